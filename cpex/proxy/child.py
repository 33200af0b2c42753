"""A server that is a child process, as a connection."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from cpex.framework.external.mcp.child import ChildCommand
from cpex.framework.external.mcp.process import GRACE_S, ChildProcess, start_child
from cpex.framework.external.port import LinkError
from cpex.proxy.port import Connection, Message, RequestId, written

__all__ = ["connected_child"]

_UNREAD = 100
"""Messages of a child that wait to be forwarded before it is read no further."""


@asynccontextmanager
async def connected_child(command: ChildCommand) -> AsyncIterator[Connection]:
    """Start a child; it is ended with all that it started when the block is left.

    Raises:
        LinkError: It cannot be started.
    """
    connection = _ChildConnection()
    child = connection.child = await start_child(command, connection)
    try:
        yield connection
    finally:
        await child.end(GRACE_S)


class _ChildConnection:
    def __init__(self) -> None:
        self.child: ChildProcess | None = None
        self._unread: deque[Message] = deque()
        self._more = asyncio.Event()
        self._paused = False
        self._reason: str | None = None

    def take(self, message: dict[str, Any]) -> None:
        """The child wrote a message."""
        self._unread.append(message)
        self._more.set()
        if len(self._unread) >= _UNREAD and not self._paused and self.child is not None:
            self._paused = True
            self.child.pause()

    def lost(self, reason: str, code: str) -> None:
        """The child has ended."""
        self._reason = reason
        self._more.set()

    async def receive(self) -> Message | None:
        """What it wrote next."""
        while not self._unread:
            if self._paused and self.child is not None:
                self._paused = False
                self.child.resume()
            if self._reason is not None:
                return None
            self._more.clear()
            await self._more.wait()
        return self._unread.popleft()

    async def send(self, message: Message, about: RequestId | None = None) -> None:
        """Write to its standard input."""
        child = self.child
        if child is not None:
            await child.writable.wait()
        if child is None or child.ended.is_set():
            raise LinkError(self.reason() or "the server process is not running", code="lost", sent=False)
        child.write(written(message))

    async def forget(self, id: RequestId) -> None:
        """Nothing waits on a pipe."""

    def headers(self, id: RequestId) -> Mapping[str, str]:
        """There are none."""
        return {}

    def reason(self) -> str:
        """How it ended, with its last words."""
        return self._reason or ""
