"""Peers on a Unix socket that do not keep to the rules: whatever they send, no wrong answer comes of it."""

from __future__ import annotations

import asyncio
import json
import os
import stat
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from integration.transports.servers import HOOKS, KIND, NAME, server_config

from cpex.framework import (
    GlobalContext,
    PluginConfig,
    PluginContext,
    PluginError,
    PluginResult,
    ToolPreInvokePayload,
)
from cpex.framework.external.answering import plain_question
from cpex.framework.external.grpc.client import GrpcExternalPlugin
from cpex.framework.external.mcp.client import ExternalPlugin
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.proto_convert import dict_to_struct
from cpex.framework.external.unix.client import UnixSocketExternalPlugin
from cpex.framework.external.unix.protocol import (
    MAX_MESSAGE_SIZE,
    ProtocolError,
    read_message,
    write_message,
    write_message_async,
)
from cpex.framework.external.unix.server.server import UnixSocketPluginServer

Answering = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
CONFIG = dict_to_struct({"name": NAME, "kind": KIND, "hooks": HOOKS})


@asynccontextmanager
async def peer(path: str, answering: Answering) -> AsyncIterator[None]:
    """A server that answers the question about the configuration, and every other as it is told."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await read_message(reader)
            found = messages.GetPluginConfigResponse(found=True, config=CONFIG)
            await write_message_async(writer, found.SerializeToString())
            while True:
                await answering(await read_message(reader), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield
    finally:
        server.close()
        await server.wait_closed()


def allowed(text: str) -> bytes:
    """An answer that allows, and says for which question it was made."""
    result = dict_to_struct({"continue_processing": True, "metadata": {"for": text}})
    return messages.InvokeHookResponse(plugin_name=NAME, result=result).SerializeToString()


def asking(path: str, timeout: float = 5.0) -> UnixSocketExternalPlugin:
    """A plugin behind that socket."""
    socket = {"path": path, "reconnect_delay": 0.001, "timeout": timeout}
    return UnixSocketExternalPlugin(
        PluginConfig.model_validate({"name": NAME, "kind": "external", "unix_socket": socket})
    )


async def ask(plugin: UnixSocketExternalPlugin, name: str = "t") -> Any:
    """One question."""
    context = PluginContext(global_context=GlobalContext(request_id="r"))
    async with asyncio.timeout(20):
        return await plugin.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name=name), context)


@pytest.mark.parametrize(
    ("bytes_sent", "code"),
    [
        (struct.pack(">I", 3) + b"\xff\xff\xff", "external_protocol"),
        (struct.pack(">I", MAX_MESSAGE_SIZE + 1), "external_protocol"),
        (struct.pack(">I", 100) + b"half", "external_lost"),
        (b"\x00", "external_lost"),
        (b"", "external_lost"),
        (struct.pack(">I", 0), "external_value"),
    ],
    ids=["garbage", "over the limit", "half a message", "half a length", "nothing", "an empty message"],
)
async def test_a_broken_answer_is_an_error_and_the_next_connection_is_good(
    tmp_path: Path, bytes_sent: bytes, code: str
) -> None:
    broken = True

    async def answering(question: bytes, writer: asyncio.StreamWriter) -> None:
        if broken:
            writer.write(bytes_sent)
            await writer.drain()
            if code == "external_lost":
                writer.close()
        else:
            await write_message_async(writer, allowed("second"))

    path = str(tmp_path / "s")
    async with peer(path, answering):
        plugin = asking(path)
        await plugin.initialize()
        with pytest.raises(PluginError) as raised:
            await ask(plugin)
        assert raised.value.error.code == code
        broken = False
        assert (await ask(plugin)).metadata == {"for": "second"}
        await plugin.shutdown()


@pytest.mark.conformance("E1")
async def test_a_late_answer_is_never_taken_for_the_next_questions(tmp_path: Path) -> None:
    """The published release answered a call with the late answer to an earlier one: a denial became an allow."""
    held: list[asyncio.StreamWriter] = []
    second = asyncio.Event()

    async def answering(question: bytes, writer: asyncio.StreamWriter) -> None:
        name = messages.InvokeHookRequest.FromString(question).payload["name"]
        if name == "late":
            held.append(writer)
            if len(held) == 2:
                second.set()
            return
        await write_message_async(writer, allowed(name))

    path = str(tmp_path / "s")
    async with peer(path, answering):
        plugin = asking(path, timeout=0.1)
        await plugin.initialize()
        with pytest.raises(PluginError, match=r"Request timed out after 0\.1s"):
            await ask(plugin, "late")
        cancelled = asyncio.create_task(ask(plugin, "late"))
        await asyncio.wait_for(second.wait(), 20)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        for writer in held:
            # Nobody reads any more what belongs to a question that was given up.
            with pytest.raises(ConnectionError):
                await write_for_ever(writer)
        assert (await ask(plugin, "next")).metadata == {"for": "next"}
        await plugin.shutdown()


@pytest.mark.conformance("E1")
async def test_questions_that_wait_their_turn_outlive_the_connection_that_one_of_them_ends(tmp_path: Path) -> None:
    """Each gets its own answer, whether the one before it was answered, timed out, or was cancelled."""
    asked: list[str] = []
    began = asyncio.Event()

    async def answering(question: bytes, writer: asyncio.StreamWriter) -> None:
        name = messages.InvokeHookRequest.FromString(question).payload["name"]
        asked.append(name)
        began.set()
        if name != "silent":
            await write_message_async(writer, allowed(name))

    path = str(tmp_path / "s")
    async with peer(path, answering):
        plugin = asking(path, timeout=0.5)
        await plugin.initialize()
        for end in ("timeout", "cancelled", "answered"):
            asked.clear()
            began.clear()
            first = asyncio.create_task(ask(plugin, "silent" if end != "answered" else "first"))
            queued = [asyncio.create_task(ask(plugin, f"q{n}")) for n in range(5)]
            if end == "cancelled":
                await asyncio.wait_for(began.wait(), 20)
                first.cancel()
            queued[2].cancel()
            outcomes = await asyncio.gather(first, *queued, return_exceptions=True)
            kinds = {"timeout": PluginError, "cancelled": asyncio.CancelledError, "answered": PluginResult}
            assert isinstance(outcomes[0], kinds[end])
            assert isinstance(outcomes.pop(3), asyncio.CancelledError)
            answers = [each for each in outcomes[1:] if isinstance(each, PluginResult)]
            assert [each.metadata for each in answers] == [{"for": f"q{n}"} for n in (0, 1, 3, 4)]
            assert sorted(asked[1:]) == ["q0", "q1", "q3", "q4"]
        await plugin.shutdown()


async def write_for_ever(writer: asyncio.StreamWriter) -> None:
    """Write late answers until the other end is gone."""
    async with asyncio.timeout(20):
        while True:
            await write_message_async(writer, allowed("late"))
            await asyncio.sleep(0)


@pytest.mark.conformance("E19")
async def test_an_answer_that_nobody_asked_for_ends_the_connection(tmp_path: Path) -> None:
    async def answering(question: bytes, writer: asyncio.StreamWriter) -> None:
        await write_message_async(writer, allowed("one"))
        await write_message_async(writer, allowed("one too many"))

    path = str(tmp_path / "s")
    async with peer(path, answering):
        plugin = asking(path)
        await plugin.initialize()
        for _ in range(3):
            assert (await ask(plugin)).metadata == {"for": "one"}
        await plugin.shutdown()


# The serving end.


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[UnixSocketPluginServer]:
    """A server with the contract's plugin."""
    running = UnixSocketPluginServer(str(server_config(folder, {})), str(folder / "s"))
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


async def told(writer: asyncio.StreamWriter, reader: asyncio.StreamReader, data: bytes) -> bytes:
    """What a server answers to a message."""
    write_message(writer, data)
    return await read_message(reader, timeout=20)


def question(name: str = "nothing", **args: Any) -> bytes:
    """A question of an older host."""
    context = {"global_context": {"request_id": "r"}}
    return plain_question("tool_pre_invoke", NAME, {"name": name, "args": args}, context).SerializeToString()


async def test_the_server_tells_questions_apart_by_what_they_parse_as(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        reader, writer = await asyncio.open_unix_connection(running.socket_path)
        denied = messages.InvokeHookResponse.FromString(await told(writer, reader, question("deny")))
        assert denied.result["continue_processing"] is False
        about = messages.GetPluginConfigRequest(name="CONTRACT").SerializeToString()
        found = messages.GetPluginConfigResponse.FromString(await told(writer, reader, about))
        assert (found.found, found.config["name"]) == (True, NAME)
        everything = messages.GetPluginConfigsResponse.FromString(await told(writer, reader, b""))
        assert [each["name"] for each in everything.configs] == [NAME]
        unknown = messages.InvokeHookResponse.FromString(await told(writer, reader, b"\xff\xff\xff\xff"))
        assert (unknown.error.message, unknown.error.code) == ("Unknown message type", "UNKNOWN_MESSAGE")
        writer.close()


@pytest.mark.conformance("E19")
async def test_questions_without_an_id_are_answered_in_the_order_of_asking(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        reader, writer = await asyncio.open_unix_connection(running.socket_path)
        names = ["deny", "nothing", "raise", "deny", "nothing"]
        for name in names:
            write_message(writer, question(name))
        answers = [messages.InvokeHookResponse.FromString(await read_message(reader, 20)) for _ in names]
        seen = [
            "raise" if each.error.message else "nothing" if each.result["continue_processing"] else "deny"
            for each in answers
        ]
        assert seen == names
        writer.close()


@pytest.mark.parametrize("sent", [struct.pack(">I", MAX_MESSAGE_SIZE + 1), struct.pack(">I", 9) + b"half"])
async def test_a_client_that_sends_no_message_is_let_go_and_others_are_served(tmp_path: Path, sent: bytes) -> None:
    async with server(tmp_path) as running:
        reader, writer = await asyncio.open_unix_connection(running.socket_path)
        writer.write(sent)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
        reader, writer = await asyncio.open_unix_connection(running.socket_path)
        assert await told(writer, reader, question())
        writer.close()


@pytest.mark.conformance("E16")
async def test_the_socket_is_its_owners_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        path = Path(running.socket_path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert running.running
        second = UnixSocketPluginServer(str(server_config(tmp_path, {})), str(path))
        with pytest.raises(FileExistsError, match=r"a server listens on .* already"):
            await second.start()
    assert not path.exists()
    await running.stop()
    with pytest.raises(RuntimeError, match="Server not started"):
        await running.serve_forever()


async def test_a_socket_that_a_dead_server_left_is_replaced_and_a_file_is_not(tmp_path: Path) -> None:
    left = await asyncio.start_unix_server(lambda *_: None, str(tmp_path / "s"))
    left.close()
    await left.wait_closed()
    assert (tmp_path / "s").exists()
    async with server(tmp_path):
        pass
    (tmp_path / "s").write_text("precious", encoding="utf-8")
    with pytest.raises(FileExistsError, match="is no socket"):
        async with server(tmp_path):
            pass
    assert (tmp_path / "s").read_text(encoding="utf-8") == "precious"


async def test_a_message_over_the_limit_is_not_written() -> None:
    class Nowhere:
        """A stream that must stay empty."""

        def write(self, data: bytes) -> None:
            raise AssertionError

        async def drain(self) -> None:
            raise AssertionError

    with pytest.raises(ProtocolError, match="exceeds maximum"):
        write_message(Nowhere(), bytes(MAX_MESSAGE_SIZE + 1))


# Frames.


def advertised() -> messages.GetPluginConfigResponse:
    """What a server says of a plugin that knows frames."""
    about = {"name": NAME, "kind": KIND, "hooks": HOOKS, "cpex_wire": {"version": 1, "features": ["frames", "cancel"]}}
    return messages.GetPluginConfigResponse(found=True, config=dict_to_struct(about))


@asynccontextmanager
async def peer_of_frames(path: str, answering: Answering) -> AsyncIterator[None]:
    """As `peer`; it says that it knows frames."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await read_message(reader)
            await write_message_async(writer, advertised().SerializeToString())
            while True:
                await answering(await read_message(reader), writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async with await asyncio.start_unix_server(serve, path):
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
        plugin = asking(path, timeout=0.1)
        await plugin.initialize()
        outcomes = await asyncio.gather(*(ask(plugin, "late") for _ in range(5)), return_exceptions=True)
        assert [type(each) for each in outcomes] == [PluginError] * 5
        assert {str(each).partition(": ")[2] for each in outcomes} == {
            "Request timed out after 0.1s (`timeout` of the `unix_socket` section)"
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
        plugin = asking(path, timeout=20)
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
            answer = messages.InvokeHookResponse.FromString(await read_message(reader, 20))
            assert answer.result["continue_processing"] is True
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_two_questions_at_once_with_one_id_end_the_connection(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        reader, writer = await asyncio.open_unix_connection(running.socket_path)
        for _ in range(2):
            write_message(writer, tagged(7, "hang").SerializeToString())
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()


async def test_a_client_that_takes_no_answers_is_asked_no_more_and_does_not_keep_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
        await asyncio.wait_for(reader.read(), 20)
    writer.close()


async def test_a_handler_that_cancels_itself_is_an_error_and_not_silence(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        reader, writer = await asyncio.open_unix_connection(running.socket_path)
        for data in (tagged(1, "cancel").SerializeToString(), question("cancel")):
            answer = messages.InvokeHookResponse.FromString(await told(writer, reader, data))
            assert answer.error.message == "the plugin's handler cancelled itself"
        writer.close()


# Sockets that somebody else may have put there.


@pytest.mark.conformance("E16.parent")
async def test_neither_end_uses_a_socket_where_others_may_replace_it(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        tmp_path.chmod(0o777)
        with pytest.raises(PluginError, match=rf"every user of this machine may write to.*chmod o-w {tmp_path}"):
            await asking(running.socket_path).initialize()
        second = UnixSocketPluginServer(str(server_config(tmp_path, {})), str(tmp_path / "t"))
        with pytest.raises(PermissionError, match="every user of this machine may write to"):
            await second.start()
        tmp_path.chmod(0o700)
        plugin = asking(running.socket_path)
        await plugin.initialize()
        await plugin.shutdown()


@pytest.mark.conformance("E16.parent")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("way", ["unix_socket", "grpc", "mcp"])
async def test_a_strangers_socket_in_a_folder_like_tmp_is_not_connected_to(tmp_path: Path, way: str) -> None:
    asked: list[bytes] = []

    async def answering(question: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append(question)

    path = str(tmp_path / "s")
    section = {
        "unix_socket": {"path": path},
        "grpc": {"uds": path},
        "mcp": {"proto": "STREAMABLEHTTP", "url": "http://localhost/mcp", "uds": path},
    }[way]
    async with peer(path, answering):
        tmp_path.chmod(0o1777)
        os.chown(path, 12345, 12345)
        config = PluginConfig.model_validate({"name": NAME, "kind": "external", way: section})
        classes = {"unix_socket": UnixSocketExternalPlugin, "grpc": GrpcExternalPlugin, "mcp": ExternalPlugin}
        plugin = classes[way](config)
        with pytest.raises(PluginError, match="belongs to user 12345, not to this one"):
            async with asyncio.timeout(30):
                await plugin.initialize()
        await plugin.shutdown()
    assert asked == []
