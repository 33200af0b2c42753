"""Serving over the standard input and output of this process.

Source: docs/reference/external.md, "Standard input and output".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Any

import anyio
from mcp_types import jsonrpc_message_adapter

from cpex.framework.external.mcp.pipes import FileWriter, claimed_pipes, next_line, reader_of, writer_of
from cpex.framework.external.mcp.server.tools import mcp_server_of
from cpex.framework.external.port import Service

if TYPE_CHECKING:
    from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
    from mcp.shared.message import SessionMessage

__all__ = ["serve_stdio"]

logger = logging.getLogger(__name__)


async def serve_stdio(service: Service) -> None:
    """Serve until the input ends.

    Raises:
        OSError: Standard input or output is closed.
    """
    server = mcp_server_of(service)
    with claimed_pipes() as (input_fd, output_fd):
        reader, stop_reading = await reader_of(input_fd)
        writer = await writer_of(output_fd)
        try:
            await _serve(server, reader, writer)
        finally:
            writer.close()
            stop_reading()


async def _serve(server: Any, reader: asyncio.StreamReader, writer: asyncio.StreamWriter | FileWriter) -> None:
    incoming, requests = anyio.create_memory_object_stream[Any](0)
    answers, outgoing = anyio.create_memory_object_stream[Any](0)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_read, reader, incoming)
        tasks.start_soon(_write, outgoing, writer)
        await server.run(requests, answers, server.create_initialization_options())
        tasks.cancel_scope.cancel()


async def _read(reader: asyncio.StreamReader, incoming: MemoryObjectSendStream[SessionMessage]) -> None:
    from mcp.shared.message import SessionMessage

    with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
        async with incoming:
            while line := await next_line(reader):
                try:
                    message = jsonrpc_message_adapter.validate_json(line, by_name=False)
                except ValueError:
                    # Its content may be anything, secrets included; the log gets none of it.
                    logger.warning("Left out a line of %d bytes that is no MCP message", len(line))
                else:
                    await incoming.send(SessionMessage(message))


async def _write(
    outgoing: MemoryObjectReceiveStream[SessionMessage], writer: asyncio.StreamWriter | FileWriter
) -> None:
    # A host that has gone reads nothing more, and the end of the input will say so.
    with contextlib.suppress(ConnectionError):
        async with outgoing:
            async for message in outgoing:
                text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                writer.write(text.encode() + b"\n")
                await writer.drain()
