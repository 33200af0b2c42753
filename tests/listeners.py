"""Peers that tests make up: listeners of this process, whose connections have all ended when their context is left.

`asyncio.start_server` alone leaves that to chance: its `close` ends no connection, one that was taken a moment before
is lost, and a handler that is cancelled before its first step closes nothing. What is left is found by the garbage
collector, in some other test.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

__all__ = ["Serve", "listening"]

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
"""Has one connection; it is closed when that returns, or when its client leaves in the middle of a read or write."""

_TURNS_TO_ACCEPT = 3
"""Turns of the loop after which a connection that asyncio has taken is told to its handler."""


@contextlib.asynccontextmanager
async def listening(serve: Serve, path: str | None = None) -> AsyncIterator[asyncio.Server]:
    """Listen on a Unix socket, or without a path on a port of 127.0.0.1; raises what a handler raised."""
    writers: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers[asyncio.create_task(_served(serve, reader, writer))] = writer

    if path is None:
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
    else:
        server = await asyncio.start_unix_server(connected, path)
    try:
        yield server
    finally:
        loop = asyncio.get_running_loop()
        for listener in server.sockets:
            # Not by `close`: asyncio drops a connection, and leaves it open, whose listener is closed between its being
            # taken and its being told to its handler.
            loop.remove_reader(listener)
        for _ in range(_TURNS_TO_ACCEPT):
            await asyncio.sleep(0)
        server.close()
        await _ended(writers)
        await server.wait_closed()


async def _served(serve: Serve, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await serve(reader, writer)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _ended(writers: dict[asyncio.Task[None], asyncio.StreamWriter]) -> None:
    for task in writers:
        task.cancel()
    outcomes = await asyncio.gather(*writers, return_exceptions=True)
    for writer in writers.values():
        # Not only closed: that would wait for a client to read what it never will.
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
