"""Peers over gRPC that do not keep to the rules, and messages that are too large: an error, and nothing left open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from integration.transports.hosts import call, host
from integration.transports.leftovers import open_descriptors
from integration.transports.servers import NAME, grpc
from listeners import listening
from support import other_tasks

from cpex.framework import PluginConfig, PluginError
from cpex.framework.external.grpc.client import GrpcExternalPlugin


@asynccontextmanager
async def peer(sent: bytes | None) -> AsyncIterator[int]:
    """The port of a server that sends those bytes to whoever connects, and closes; `None` stands for silence."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if sent is None:
            await asyncio.Event().wait()
        else:
            writer.write(sent)
            await writer.drain()

    async with listening(serve) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff" * 1000,
        b"\x00\x00\x12\x04\x00\x00",
        b"",
        None,
    ],
    ids=["another protocol", "garbage", "half a frame", "nothing", "silence"],
)
async def test_a_peer_that_is_no_plugin_server_fails_the_start_and_leaves_nothing_open(
    sent: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each of the three attempts may take that long.
    monkeypatch.setattr("cpex.framework.external.grpc.client.CONFIG_TIMEOUT_S", 1.0)
    tasks = other_tasks()
    async with peer(sent) as port:
        section = {"target": f"127.0.0.1:{port}"}
        plugin = GrpcExternalPlugin(PluginConfig.model_validate({"name": NAME, "kind": "external", "grpc": section}))
        # Shorter pauses between attempts.
        monkeypatch.setattr(plugin, "_first_attempts", plugin._later_attempts)
        with pytest.raises(
            PluginError, match=rf"at 127\.0\.0\.1:{port}: .*is the plugin server running there"
        ) as raised:
            async with asyncio.timeout(60):
                await plugin.initialize()
        assert raised.value.error.code == "external_connect"
        # gRPC closes its sockets in a thread of its own, and one that still connects when its attempt has had its time.
        # The error is at hand all the while: it may be kept, and must not keep the channel.
        async with asyncio.timeout(60):
            while sockets_to(port):  # noqa: ASYNC110 - there is nobody to tell us
                await asyncio.sleep(0.02)
    async with asyncio.timeout(60):
        while other_tasks() != tasks:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0)


@asynccontextmanager
async def far_away(port: int, first_byte_s: float) -> AsyncIterator[int]:
    """The port of a relay to a server; its bytes arrive late by that many seconds, as they do over a long line."""

    async def copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            await asyncio.sleep(first_byte_s)
            while data := await source.read(65536):
                sink.write(data)
                await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(copy(reader, back), copy(there, writer))
        finally:
            back.close()
            await back.wait_closed()

    async with listening(serve) as server:
        yield server.sockets[0].getsockname()[1]


async def test_a_server_whose_first_word_takes_half_a_second_is_a_good_server(tmp_path: Path) -> None:
    server = grpc(tmp_path, {})
    await server.start()
    try:
        near = int(server.entry["grpc"]["target"].rpartition(":")[2])
        async with far_away(near, 0.5) as port:
            entry = {**server.entry, "grpc": {"target": f"127.0.0.1:{port}"}}
            async with host(tmp_path, entry) as manager:
                assert (await call(manager, "count_swells")).metadata == {"swells": 0}
    finally:
        await server.stop()


def sockets_to(port: int) -> int:
    """How many connections to a port this process has open."""
    told = 0
    for table in ("/proc/self/net/tcp", "/proc/self/net/tcp6"):
        path = Path(table)
        lines = path.read_text(encoding="ascii").splitlines()[1:] if path.is_file() else []
        inodes = {line.split()[9] for line in lines if line.split()[2].endswith(f":{port:04X}")}
        told += sum(f"socket:[{inode}]" in open_descriptors().values() for inode in inodes)
    return told


@pytest.mark.conformance("E5")
async def test_a_message_over_the_limit_is_an_error_either_way_and_the_next_call_works(tmp_path: Path) -> None:
    server = grpc(tmp_path, {"max_content_size": 1_000_000_000})
    await server.start()
    try:
        async with host(tmp_path, server.entry, max_content_size=9_000_000) as manager:
            with pytest.raises(PluginError) as raised:
                await call(manager, "swell")
            assert raised.value.error.code == "external_too_large"
            assert (await call(manager, "count_swells")).metadata == {"swells": 1}
    finally:
        await server.stop()
