"""The standard input and output of this process as a transport.

Standard output belongs to the protocol: while it is claimed, what plugins and their libraries print, by whatever means,
goes to standard error, and what they read from standard input is empty.

Source: docs/reference/external.md, "Standard input and output".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
import sys
import threading
from collections.abc import Callable, Iterator

from cpex.framework.external.mcp.messages import MAX_MESSAGE_BYTES

__all__ = ["FileWriter", "claimed_pipes", "next_line", "reader_of", "writer_of"]

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def claimed_pipes() -> Iterator[tuple[int, int]]:
    """Duplicates of standard input and output, which meanwhile are empty and standard error."""
    sys.stdout.flush()
    input_fd, output_fd = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    try:
        yield input_fd, output_fd
    finally:
        sys.stdout.flush()
        # The pipes' transports own the duplicates and close them.
        with contextlib.suppress(OSError):
            os.dup2(output_fd, 1)


async def reader_of(fd: int) -> tuple[asyncio.StreamReader, Callable[[], None]]:
    """What comes in, and what ends the reading."""
    reader = asyncio.StreamReader(limit=MAX_MESSAGE_BYTES)
    loop = asyncio.get_running_loop()
    mode = os.fstat(fd).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        protocol = asyncio.StreamReaderProtocol(reader)
        transport, _ = await loop.connect_read_pipe(lambda: protocol, os.fdopen(fd, "rb"))
        return reader, transport.close
    # The event loop cannot wait for files and some devices; a thread can, and one that waits keeps no process alive.
    threading.Thread(target=_feed, args=(fd, reader, loop), daemon=True, name="stdin").start()
    return reader, lambda: None


def _feed(fd: int, reader: asyncio.StreamReader, loop: asyncio.AbstractEventLoop) -> None:
    # A loop that is closed meanwhile wants nothing more.
    with contextlib.suppress(RuntimeError, OSError):
        while data := os.read(fd, 65536):
            loop.call_soon_threadsafe(reader.feed_data, data)
        loop.call_soon_threadsafe(reader.feed_eof)


async def writer_of(fd: int) -> asyncio.StreamWriter | FileWriter:
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return FileWriter(fd)
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.connect_write_pipe(_FlowControl, os.fdopen(fd, "wb"))
    return asyncio.StreamWriter(transport, protocol, None, loop)


class FileWriter:
    """Writes to a file, which never makes one wait; for those who try a server out."""

    def __init__(self, fd: int) -> None:
        self._file = os.fdopen(fd, "wb", buffering=0)

    def write(self, data: bytes) -> None:
        self._file.write(data)

    async def drain(self) -> None:
        return

    def close(self) -> None:
        self._file.close()


class _FlowControl(asyncio.streams.FlowControlMixin):
    """Lets writers wait while the host does not read."""

    async def _get_close_waiter(self, stream: asyncio.StreamWriter) -> None:
        return


async def next_line(reader: asyncio.StreamReader) -> bytes:
    """The next line; empty at the end of the input, which a line over the limit is too: nothing after it is known."""
    try:
        return await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except asyncio.LimitOverrunError:
        logger.error("A message is larger than %d bytes; the connection is closed", MAX_MESSAGE_BYTES)
        return b""
