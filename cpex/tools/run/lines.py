"""Lines of a file or a pipe, one after another, in constant memory.

A pipe or a terminal is waited for by the event loop, so background plugins go on while nothing comes in, and Ctrl-C
ends the wait at once. A regular file is always ready and is read directly.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass

__all__ = ["MAX_LINE_BYTES", "Line", "LineSplitter", "read_lines"]

MAX_LINE_BYTES = 64_000_000
"""Longer lines are not kept, only counted."""
_CHUNK = 1 << 18


@dataclass(frozen=True, slots=True)
class Line:
    """One line without its break."""

    number: int
    """From 1."""
    data: bytes | None
    """`None` when the line is too long to be kept."""
    end: int
    """Bytes of the stream up to and with this line."""


class LineSplitter:
    """Cuts chunks into lines."""

    def __init__(self, max_bytes: int = MAX_LINE_BYTES) -> None:
        self._max_bytes = max_bytes
        self._number = 0
        self._end = 0
        self._kept: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> Iterator[Line]:
        """Lines that end in this chunk."""
        *complete, rest = chunk.split(b"\n")
        for piece in complete:
            self._keep(piece)
            yield self._line(1)
        self._keep(rest)

    def finish(self) -> Iterator[Line]:
        """The last line, when no line break follows it."""
        if self._size:
            yield self._line(0)

    def _keep(self, piece: bytes) -> None:
        self._size += len(piece)
        if self._size > self._max_bytes:
            self._kept.clear()
        elif piece:
            self._kept.append(piece)

    def _line(self, breaks: int) -> Line:
        self._number += 1
        self._end += self._size + breaks
        data = None if self._size > self._max_bytes else b"".join(self._kept)
        self._kept.clear()
        self._size = 0
        return Line(self._number, data, self._end)


async def read_lines(
    descriptor: int, before_wait: Callable[[], None] = lambda: None, max_bytes: int = MAX_LINE_BYTES
) -> AsyncIterator[Line]:
    """Lines of an open file descriptor, up to its end.

    Args:
        before_wait: Called whenever the next read may have to wait; the moment to flush what was written.
    """
    splitter = LineSplitter(max_bytes)
    waits = _can_wait_for(descriptor)
    while True:
        if waits:
            before_wait()
            await _readable(descriptor)
        chunk = os.read(descriptor, _CHUNK)
        if not chunk:
            break
        for line in splitter.feed(chunk):
            yield line
    for line in splitter.finish():
        yield line


def _can_wait_for(descriptor: int) -> bool:
    loop = asyncio.get_running_loop()
    try:
        loop.add_reader(descriptor, lambda: None)
    # Regular files are refused by the selector; some event loops wait for sockets only.
    except (OSError, NotImplementedError):
        return False
    loop.remove_reader(descriptor)
    return True


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_reader(descriptor, _settle, ready)
    try:
        await ready
    finally:
        loop.remove_reader(descriptor)


def _settle(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)
