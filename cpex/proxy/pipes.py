"""The client at the other end of this process's own standard input and output."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING

from cpex.framework.external.mcp import messages
from cpex.framework.external.mcp.pipes import claimed_pipes, next_line, reader_of, writer_of
from cpex.framework.external.port import LinkError
from cpex.proxy.errors import INVALID_REQUEST
from cpex.proxy.port import Connection, Message, RequestId, written

if TYPE_CHECKING:
    import asyncio

    from cpex.framework.external.mcp.pipes import FileWriter

__all__ = ["client_on_pipes"]


@contextlib.asynccontextmanager
async def client_on_pipes() -> AsyncIterator[Connection]:
    """The client that started this process.

    Raises:
        OSError: Standard input or output is closed.
    """
    with claimed_pipes() as (input_fd, output_fd):
        reader, stop_reading = await reader_of(input_fd)
        writer = await writer_of(output_fd)
        try:
            yield _Pipes(reader, writer)
        finally:
            writer.close()
            stop_reading()


class _Pipes:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | FileWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def receive(self) -> Message | None:
        """The next message. What is none is refused here and never forwarded: a server might read it differently."""
        while line := await next_line(self._reader):
            if (message := messages.parsed(line)) is not None:
                return message
            if line.strip():
                error = {"code": INVALID_REQUEST, "message": "the line is no single JSON-RPC 2.0 message"}
                await self.send({"jsonrpc": "2.0", "id": None, "error": error})
        return None

    async def send(self, message: Message, about: RequestId | None = None) -> None:
        """Write a line."""
        try:
            self._writer.write(written(message) + b"\n")
            await self._writer.drain()
        except (ConnectionError, ValueError) as error:
            raise LinkError("the client reads no more", code="lost", sent=False) from error

    async def forget(self, id: RequestId) -> None:
        """Nothing waits on a pipe."""

    def headers(self, id: RequestId) -> Mapping[str, str]:
        """There are none."""
        return {}

    def reason(self) -> str:
        """The end of the input is how clients leave."""
        return ""
