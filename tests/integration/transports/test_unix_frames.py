"""Questions in frames over a Unix socket: many at once, given up, held back, or more than there is room for."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from integration.transports.servers import HOOKS, KIND, NAME
from integration.transports.unix_peers import Answering, ask, asking, question, server, told
from listeners import listening

from cpex.framework import (
    PluginError,
)
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.proto_convert import dict_to_struct
from cpex.framework.external.unix.protocol import (
    read_message,
    write_message,
    write_message_async,
)


def advertised() -> messages.GetPluginConfigResponse:
    """What a server says of a plugin that knows frames."""
    about = {"name": NAME, "kind": KIND, "hooks": HOOKS, "cpex_wire": {"version": 1, "features": ["frames", "cancel"]}}
    return messages.GetPluginConfigResponse(found=True, config=dict_to_struct(about))


@asynccontextmanager
async def peer_of_frames(path: str, answering: Answering) -> AsyncIterator[None]:
    """As `peer`; it says that it knows frames."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        await write_message_async(writer, advertised().SerializeToString())
        while True:
            await answering(await read_message(reader), writer)

    async with listening(serve, path):
        yield


def frame_answer(request: messages.InvokeHookRequest, text: str) -> bytes:
    """An answer to a question in a frame that allows, and says for whom."""
    id = json.loads(request.frame)["id"]
    result = {"continue_processing": True, "metadata": {"for": text}}
    frame = json.dumps({"id": id, "plugin": NAME, "result": result}).encode()
    return messages.InvokeHookResponse(frame=frame, correlation_id=request.correlation_id).SerializeToString()


def tool_of(request: messages.InvokeHookRequest) -> str:
    """The name of the tool that a question in a frame is about."""
    name: str = json.loads(request.frame)["payload"]["name"]
    return name


@pytest.mark.conformance("E1")
async def test_a_late_answer_in_a_frame_is_dropped_and_the_connection_stays(tmp_path: Path) -> None:
    late: list[messages.InvokeHookRequest] = []
    told: list[int] = []
    connections: set[asyncio.StreamWriter] = set()

    async def answering(question: bytes, writer: asyncio.StreamWriter) -> None:
        connections.add(writer)
        request = messages.InvokeHookRequest.FromString(question)
        if request.cancel:
            told.append(request.correlation_id)
        elif tool_of(request) == "late":
            late.append(request)
        else:
            for each in late:
                await write_message_async(writer, frame_answer(each, "late"))
            await write_message_async(writer, frame_answer(request, "next"))

    path = str(tmp_path / "s")
    async with peer_of_frames(path, answering):
        plugin = asking(path, timeout=3)
        await plugin.initialize()
        outcomes = await asyncio.gather(*(ask(plugin, "late") for _ in range(5)), return_exceptions=True)
        assert [type(each) for each in outcomes] == [PluginError] * 5
        assert {str(each).partition(": ")[2] for each in outcomes} == {
            "Request timed out after 3s (`timeout` of the `unix_socket` section)"
        }
        assert (await ask(plugin, "next")).metadata == {"for": "next"}
        assert told == [each.correlation_id for each in late]
        assert len(connections) == 1
        await plugin.shutdown()


@pytest.mark.conformance("E18")
async def test_what_a_full_socket_does_not_take_is_sent_later_or_never(tmp_path: Path) -> None:
    """A question that was given up before there was room for it never reaches the server."""
    reading = asyncio.Event()
    seen: list[str] = []

    async def answering(question: bytes, writer: asyncio.StreamWriter) -> None:
        await reading.wait()
        request = messages.InvokeHookRequest.FromString(question)
        if not request.cancel:
            seen.append(tool_of(request)[:5])
            await write_message_async(writer, frame_answer(request, tool_of(request)[:5]))

    path = str(tmp_path / "s")
    async with peer_of_frames(path, answering):
        plugin = asking(path, timeout=60)
        await plugin.initialize()
        # Two that fill the socket, the second of them only in part sent; then some that must wait.
        waiting = [asyncio.create_task(ask(plugin, f"big-{n}" + "x" * 1_000_000)) for n in range(2)]
        waiting += [asyncio.create_task(ask(plugin, f"few-{n}")) for n in range(3)]
        await asyncio.sleep(0)
        given_up = waiting.pop(3)
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        reading.set()
        answers = [(await each).metadata["for"] for each in waiting]
        assert answers == ["big-0", "big-1", "few-0", "few-2"]
        assert sorted(seen) == answers
        await plugin.shutdown()


def tagged(id: int, name: str = "nothing", **args: Any) -> messages.InvokeHookRequest:
    """A question in a frame."""
    document = {
        "id": f"{id:x}",
        "hook": "tool_pre_invoke",
        "plugin": NAME,
        "payload": {"name": name, "args": args},
        "context": {"global_context": {"request_id": "r"}},
    }
    frame = json.dumps(document).encode()
    return messages.InvokeHookRequest(hook_type="-", plugin_name="-", frame=frame, correlation_id=id)


async def test_an_answer_in_order_reaches_a_client_that_has_said_its_last_word(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        reader, writer = await asyncio.open_unix_connection(running.socket_path)
        for _ in range(2):
            write_message(writer, question("echo", turns=3, number=1))
        writer.write_eof()
        for _ in range(2):
            answer = messages.InvokeHookResponse.FromString(await read_message(reader, 60))
            assert answer.result["continue_processing"] is True
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_two_questions_at_once_with_one_id_end_the_connection(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        reader, writer = await asyncio.open_unix_connection(running.socket_path)
        for _ in range(2):
            write_message(writer, tagged(7, "hang").SerializeToString())
        assert await asyncio.wait_for(reader.read(), 60) == b""
        writer.close()


async def test_a_client_that_takes_no_answers_is_asked_no_more_and_does_not_keep_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The grace is no setting, and all of it is waited for here.
    monkeypatch.setattr("cpex.framework.external.unix.server.server.STOP_GRACE_S", 0.01)
    async with server(tmp_path) as running:
        reader, writer = await asyncio.open_unix_connection(running.socket_path)
        number = 0
        # What the server does not read fills the socket, and then this end's own room.
        while writer.transport.get_write_buffer_size() == 0:
            number += 1
            assert number < 1000, "the server reads on and on, and keeps every answer"
            write_message(writer, tagged(number, "add", text="x" * 1_000_000).SerializeToString())
            for _ in range(200):
                await asyncio.sleep(0)
        assert running.running
    # The server has stopped by now.
    with pytest.raises(ConnectionError):
        await asyncio.wait_for(reader.read(), 60)
    writer.close()


async def test_a_handler_that_cancels_itself_is_an_error_and_not_silence(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        reader, writer = await asyncio.open_unix_connection(running.socket_path)
        for data in (tagged(1, "cancel").SerializeToString(), question("cancel")):
            answer = messages.InvokeHookResponse.FromString(await told(writer, reader, data))
            assert answer.error.message == "the plugin's handler cancelled itself"
        writer.close()
