"""MCP over the pipes of a child process.

Source: docs/reference/external.md, "Standard input and output".
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from cpex.framework.external.mcp import messages
from cpex.framework.external.mcp.child import ChildCommand
from cpex.framework.external.mcp.process import GRACE_S, ChildProcess, start_child
from cpex.framework.external.port import LinkError

__all__ = ["StdioChannel"]

Answer = dict[str, Any]


class StdioChannel:
    """A channel to a child process; see `link.Channel`."""

    def __init__(self, command: ChildCommand) -> None:
        """Keep the command; nothing is started yet."""
        self._command = command
        self._child: ChildProcess | None = None
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Answer]] = {}

    @property
    def connected(self) -> bool:
        """Whether the child is alive and its output is open."""
        return self._child is not None and not self._child.ended.is_set()

    async def open(self) -> None:
        """Start the child."""
        waiters = _Waiters()
        self._child = waiters.child = await start_child(self._command, waiters)
        self._waiting = waiters.waiting

    def agreed(self, version: str) -> None:
        """Nothing on this channel depends on it."""

    async def request(self, method: str, params: dict[str, Any]) -> Answer:
        """Ask."""
        id = next(self._ids)
        data = messages.request(id, method, params)
        child = await self._writable()
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiting = self._waiting
        waiting[id] = waiter
        child.write(data)
        try:
            return messages.result_of(await waiter)
        except asyncio.CancelledError:
            child.write(messages.cancellation(id))
            raise
        finally:
            waiting.pop(id, None)

    async def notify(self, method: str) -> None:
        """Tell."""
        data = messages.notification(method)
        (await self._writable()).write(data)

    async def _writable(self) -> ChildProcess:
        child = self._child
        if child is not None:
            # While a child does not read, callers queue here, with nothing of theirs written.
            await child.writable.wait()
        if child is None or child.ended.is_set():
            text = "the server process is not running" if child is None else child.obituary()
            raise LinkError(text, code="connect", sent=False)
        return child

    def hint(self) -> str:
        """The last lines of the child's standard error."""
        return self._child.last_words() if self._child is not None else ""

    async def close(self, *, at_once: bool) -> None:
        """End the child, with all that it started."""
        child, self._child = self._child, None
        if child is not None:
            await child.end(0 if at_once else GRACE_S)


class _Waiters:
    """Who waits for answers of one child; it may be gone before the channel has a new one."""

    def __init__(self) -> None:
        self.waiting: dict[int, asyncio.Future[Answer]] = {}
        self.child: ChildProcess | None = None

    def take(self, message: dict[str, Any]) -> None:
        """The child answered, or asks something itself."""
        if "method" in message:
            reply = messages.reply_to(message)
            if reply is not None and self.child is not None:
                self.child.write(reply)
            return
        id = message.get("id")
        waiter = self.waiting.pop(id, None) if isinstance(id, int) else None
        if waiter is not None and not waiter.done():
            waiter.set_result(message)

    def lost(self, reason: str, code: str) -> None:
        """No answer comes any more."""
        for waiter in self.waiting.values():
            if not waiter.done():
                waiter.set_exception(LinkError(reason, code=code, sent=True))
        self.waiting.clear()
