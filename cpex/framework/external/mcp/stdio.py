"""MCP over the pipes of a child process: one JSON-RPC message per line, its log on standard error.

Nothing here is a task: the event loop hands in what the child wrote, so a child that dies ends its waiters at once and
cancels nobody. What the child writes on standard error goes on to ours, and its last lines into messages.

Source: docs/reference/external.md, "Standard input and output".
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import sys
from collections import deque
from typing import Any

from cpex.framework.external.mcp import messages
from cpex.framework.external.mcp.child import ChildCommand
from cpex.framework.external.mcp.messages import MAX_MESSAGE_BYTES
from cpex.framework.external.port import LinkError

__all__ = ["StdioChannel"]

logger = logging.getLogger(__name__)

GRACE_S = 2.0
"""Seconds for a child to end by itself once its input is closed, and again after SIGTERM."""
_LAST_WORDS_S = 0.2
"""Seconds in which what an ended child left in its pipes is still read; a grandchild may hold them open for ever."""
_LINES, _COLUMNS = 5, 300
"""How much of standard error a message shows."""

Answer = dict[str, Any]


class StdioChannel:
    """A channel to a child process; see `link.Channel`."""

    def __init__(self, command: ChildCommand) -> None:
        """Keep the command; nothing is started yet."""
        self._command = command
        self._child: _Child | None = None
        self._ids = itertools.count(1)

    @property
    def connected(self) -> bool:
        """Whether the child is alive and its output is open."""
        return self._child is not None and not self._child.ended.is_set()

    async def open(self) -> None:
        """Start the child."""
        command = self._command
        loop = asyncio.get_running_loop()
        try:
            # A session of its own, so that the end of the child is the end of all that it started.
            _, self._child = await loop.subprocess_exec(
                lambda: _Child(command.words[0]),
                *command.words,
                cwd=command.cwd,
                env=dict(command.env),
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            text = f"cannot start `{command.words[0]}`: {reason}; is it installed and on the PATH of this process?"
            raise LinkError(text, code="connect", sent=False) from error

    def agreed(self, version: str) -> None:
        """Nothing on this channel depends on it."""

    async def request(self, method: str, params: dict[str, Any]) -> Answer:
        """Ask."""
        id = next(self._ids)
        data = messages.request(id, method, params)
        child = await self._writable()
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        child.waiting[id] = waiter
        child.write(data)
        try:
            return messages.result_of(await waiter)
        except asyncio.CancelledError:
            child.write(messages.cancellation(id))
            raise
        finally:
            child.waiting.pop(id, None)

    async def notify(self, method: str) -> None:
        """Tell."""
        data = messages.notification(method)
        (await self._writable()).write(data)

    async def _writable(self) -> _Child:
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


class _Child(asyncio.SubprocessProtocol):
    """What is known of a running child, and who waits for its answers."""

    def __init__(self, name: str) -> None:
        self.waiting: dict[int, asyncio.Future[Answer]] = {}
        self.ended = asyncio.Event()
        """No answer can come any more."""
        self.exited = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self._name = name
        self._transport: asyncio.SubprocessTransport
        self._line = bytearray()
        self._searched = 0
        self._noise = 0
        self._errors: deque[str] = deque(maxlen=_LINES)
        self._error_line = b""
        self._reason = ""
        self._timer: asyncio.TimerHandle | None = None

    # What the event loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The child runs."""
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """The child wrote something."""
        if fd == 1:
            self._take_output(data)
        else:
            self._take_error(data)

    def pause_writing(self) -> None:
        """The child reads slower than callers write."""
        self.writable.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self.writable.set()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """The child closed a pipe, most often by ending."""
        if fd == 1 and not self.exited.is_set():
            self._end_soon()

    def process_exited(self) -> None:
        """The child has ended."""
        self.exited.set()
        self._end_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """The child has ended and every pipe is read to its end."""
        self._end()

    # Messages.

    def write(self, message: bytes) -> None:
        """Send a message; lost when the child is gone, which its waiter is told otherwise."""
        pipe = self._transport.get_pipe_transport(0)
        if not self.ended.is_set() and isinstance(pipe, asyncio.WriteTransport) and not pipe.is_closing():
            pipe.write(message + b"\n")

    def _take_output(self, data: bytes) -> None:
        self._line += data
        while (end := self._line.find(b"\n", self._searched)) >= 0:
            line = bytes(self._line[:end])
            del self._line[: end + 1]
            self._searched = 0
            self._take_line(line)
        self._searched = len(self._line)
        if self._searched > MAX_MESSAGE_BYTES:
            self._line.clear()
            self._searched = 0
            self._end(f"the server sent a line of more than {MAX_MESSAGE_BYTES:,} bytes", "too_large")

    def _take_line(self, line: bytes) -> None:
        message = messages.parsed(line) if line.strip() else None
        if message is None:
            if line.strip():
                self._take_noise()
        elif "method" in message:
            reply = messages.reply_to(message)
            if reply is not None:
                self.write(reply)
        else:
            id = message.get("id")
            waiter = self.waiting.pop(id, None) if isinstance(id, int) else None
            if waiter is not None and not waiter.done():
                waiter.set_result(message)

    def _take_noise(self) -> None:
        self._noise += 1
        if self._noise == 1:
            # Its content may be anything, secrets included; the log gets none of it.
            logger.warning(
                "The plugin server `%s` writes lines to standard output that are no MCP messages; they are left out",
                self._name,
            )

    def _take_error(self, data: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(data.decode("utf-8", "replace"))
            sys.stderr.flush()
        *lines, rest = (self._error_line + data).split(b"\n")
        self._error_line = rest[-_COLUMNS * 4 :]
        self._errors.extend(line.decode("utf-8", "replace").strip()[:_COLUMNS] for line in lines if line.strip())

    # The end.

    def _end_soon(self) -> None:
        if self._timer is None and not self.ended.is_set():
            self._timer = asyncio.get_running_loop().call_later(_LAST_WORDS_S, self._end)

    def _end(self, reason: str = "", code: str = "lost") -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.ended.is_set():
            return
        if not reason and not self.exited.is_set():
            reason = "the server process closed its standard output"
        self._reason = reason
        self.ended.set()
        # Those who wait to write learn of it too.
        self.writable.set()
        for waiter in self.waiting.values():
            if not waiter.done():
                waiter.set_exception(LinkError(self.obituary(), code=code, sent=True))
        self.waiting.clear()
        if not self.exited.is_set():
            self._signal(signal.SIGKILL)

    def obituary(self) -> str:
        """Why there is no answer, with the child's last words."""
        status = self._transport.get_returncode()
        if self._reason:
            reason = self._reason
        elif status is None:
            reason = "the server process is running no more"
        elif status < 0:
            reason = f"the server process was killed by {_signal_name(-status)}"
        else:
            reason = f"the server process exited with status {status}"
        return reason + self.last_words()

    def last_words(self) -> str:
        """The last lines on standard error, as the end of a message."""
        lines = [*self._errors, self._error_line.decode("utf-8", "replace").strip()[:_COLUMNS]]
        shown = " | ".join(line for line in lines[-_LINES:] if line)
        noise = f"; it wrote {self._noise} lines to standard output that are no MCP messages" if self._noise else ""
        return noise + (f"; last lines on its standard error: {shown}" if shown else "")

    async def end(self, grace_s: float) -> None:
        """End the process and its group: by closing its input, then by SIGTERM, then by SIGKILL."""
        try:
            if grace_s:
                pipe = self._transport.get_pipe_transport(0)
                if pipe is not None:
                    pipe.close()
                if not await self._has_exited(grace_s):
                    self._signal(signal.SIGTERM)
                    await self._has_exited(grace_s)
            self._signal(signal.SIGKILL)
            await self._has_exited(GRACE_S)
        finally:
            # Also when this was cancelled: nothing may be left running.
            self._signal(signal.SIGKILL)
            self._end()
            self._transport.close()

    async def _has_exited(self, within_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.exited.wait(), within_s)
        return self.exited.is_set()

    def _signal(self, number: int) -> None:
        if self.exited.is_set():
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._transport.get_pid(), number)
            else:
                self._transport.send_signal(number)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
