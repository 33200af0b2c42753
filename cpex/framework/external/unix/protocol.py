"""How messages follow one another on the socket: four bytes of length, most significant first, then that many bytes.

An end of stream between two messages is an orderly end; inside of one it is not. Nothing is skipped and nothing is
guessed: after anything else than whole messages the connection is of no more use.

Source: docs/reference/external.md, "Unix socket".
"""

from __future__ import annotations

import asyncio
import struct
from typing import Protocol

__all__ = [
    "LENGTH_FORMAT",
    "LENGTH_SIZE",
    "MAX_MESSAGE_SIZE",
    "ProtocolError",
    "read_message",
    "write_message",
    "write_message_async",
]

MAX_MESSAGE_SIZE = 16 * 1024 * 1024
"""Bytes, without the length in front."""
LENGTH_FORMAT = ">I"
LENGTH_SIZE = 4
"""Bytes."""
_LENGTH = struct.Struct(LENGTH_FORMAT)


class ProtocolError(Exception):
    """The stream does not hold whole messages of the allowed size."""


class Writer(Protocol):
    """What a message is written to."""

    def write(self, data: bytes) -> None:
        """Take bytes to send."""

    async def drain(self) -> None:
        """Wait until there is room for more."""


async def read_message(reader: asyncio.StreamReader, timeout: float | None = None) -> bytes:
    """Read one message, which may be empty.

    Args:
        timeout: Seconds; `None` means no limit. The stream is of no more use after it has run out.

    Raises:
        asyncio.IncompleteReadError: The stream has ended; `partial` is empty when it ended between two messages.
        ProtocolError: The announced length is over the limit.
        TimeoutError: There was no whole message in time.
    """
    async with asyncio.timeout(timeout):
        (length,) = _LENGTH.unpack(await reader.readexactly(LENGTH_SIZE))
        if length > MAX_MESSAGE_SIZE:
            raise ProtocolError(f"a message of {length} bytes exceeds maximum of {MAX_MESSAGE_SIZE}")
        if not length:
            return b""
        try:
            return await reader.readexactly(length)
        except asyncio.IncompleteReadError as error:
            # Even without a byte of the content: the length announced some.
            raise asyncio.IncompleteReadError(error.partial or b"\0", length) from error


def write_message(writer: Writer, data: bytes) -> None:
    """Hand one message to the stream, without waiting.

    Raises:
        ProtocolError: It is over the limit; nothing was written.
    """
    if len(data) > MAX_MESSAGE_SIZE:
        raise ProtocolError(f"a message of {len(data)} bytes exceeds maximum of {MAX_MESSAGE_SIZE}")
    # One write: two would be two packets, and a peer that waits for the second.
    writer.write(_LENGTH.pack(len(data)) + data)


async def write_message_async(writer: Writer, data: bytes, drain: bool = True) -> None:
    """Write one message, and wait until the stream has room for more unless told otherwise.

    Raises:
        ProtocolError: It is over the limit; nothing was written.
        OSError: The other end is gone.
    """
    write_message(writer, data)
    if drain:
        await writer.drain()
