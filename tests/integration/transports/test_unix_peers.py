"""Peers on a Unix socket that do not keep to the rules: whatever they send, no wrong answer comes of it."""

from __future__ import annotations

import asyncio
import socket
import stat
import struct
from pathlib import Path

import pytest
from integration.transports.servers import NAME, server_config
from integration.transports.unix_peers import allowed, ask, asking, peer, question, server, told

from cpex.framework import (
    PluginError,
    PluginResult,
)
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.unix.protocol import (
    MAX_MESSAGE_SIZE,
    ProtocolError,
    read_message,
    write_message,
    write_message_async,
)
from cpex.framework.external.unix.server.server import UnixSocketPluginServer


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
        plugin = asking(path, timeout=3)
        await plugin.initialize()
        with pytest.raises(PluginError, match=r"Request timed out after 3s"):
            await ask(plugin, "late")
        cancelled = asyncio.create_task(ask(plugin, "late"))
        await asyncio.wait_for(second.wait(), 60)
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
        plugin = asking(path, timeout=3)
        await plugin.initialize()
        for end in ("timeout", "cancelled", "answered"):
            asked.clear()
            began.clear()
            first = asyncio.create_task(ask(plugin, "silent" if end != "answered" else "first"))
            queued = [asyncio.create_task(ask(plugin, f"q{n}")) for n in range(5)]
            if end == "cancelled":
                await asyncio.wait_for(began.wait(), 60)
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
    async with asyncio.timeout(60):
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
        answers = [messages.InvokeHookResponse.FromString(await read_message(reader, 60)) for _ in names]
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
        assert await asyncio.wait_for(reader.read(), 60) == b""
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
    # A plain socket: servers of asyncio take theirs away from Python 3.13 on.
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))
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
