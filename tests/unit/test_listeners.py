"""Peers that tests make up leave no connection open, whenever it came."""

from __future__ import annotations

import asyncio
import socket

import pytest
from listeners import listening


async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_ends_with_its_listener_however_far_it_has_got(turns: int) -> None:
    async with listening(never) as server:
        client = socket.create_connection(server.sockets[0].getsockname(), timeout=60)
        for _ in range(turns):
            await asyncio.sleep(0)
    with client:
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            # The other way to end it.
            pass


async def test_a_fault_of_a_peer_is_told_when_its_listener_ends() -> None:
    async def faulty(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise LookupError("a fault of the test's own")

    async def hear_it_end() -> None:
        async with asyncio.timeout(60), listening(faulty) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            assert await reader.read() == b""
            writer.close()
            await writer.wait_closed()

    with pytest.raises(LookupError, match="of the test's own"):
        await hear_it_end()
