"""A child process that speaks JSON-RPC over its pipes: one message per line, its log on standard error.

Nothing here is a task: the event loop hands in what the child wrote, so a child that dies ends its waiters at once and
cancels nobody. What the child writes on standard error goes on to ours, and its last lines into messages.

Source: docs/reference/external.md, "Standard input and output".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections import deque
from typing import Any, Protocol

from cpex.framework.external.mcp import messages
from cpex.framework.external.mcp.child import ChildCommand
from cpex.framework.external.mcp.messages import MAX_MESSAGE_BYTES
from cpex.framework.external.port import LinkError

__all__ = ["GRACE_S", "ChildOwner", "ChildProcess", "start_child"]

logger = logging.getLogger(__name__)

GRACE_S = 2.0
"""Seconds for a child to end by itself once its input is closed, and again after SIGTERM."""
_LAST_WORDS_S = 0.2
"""Seconds in which what an ended child left in its pipes is still read; a grandchild may hold them open for ever."""
_SILENT_S = 1.0
"""Seconds for a child to end after it has closed its output; how it ended is then told."""
_LINES, _COLUMNS = 5, 300
"""How much of standard error a message shows."""


class ChildOwner(Protocol):
    """Who reads what a child writes."""

    def take(self, message: dict[str, Any]) -> None:
        """The child wrote a message. Called by the event loop, in order; must not block or raise."""

    def lost(self, reason: str, code: str) -> None:
        """No message comes any more. Called once, perhaps before `start_child` returns; `code` as in `LinkError`."""


async def start_child(command: ChildCommand, owner: ChildOwner) -> ChildProcess:
    """Start a child.

    Raises:
        LinkError: It cannot be started.
    """
    try:
        # A session of its own, so that the end of the child is the end of all that it started.
        _, child = await asyncio.get_running_loop().subprocess_exec(
            lambda: ChildProcess(command.words[0], owner),
            *command.words,
            cwd=command.cwd,
            env=dict(command.env),
            start_new_session=True,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        text = f"cannot start `{command.words[0]}`: {reason}; is it installed and on the PATH of this process?"
        raise LinkError(text, code="connect", sent=False) from error
    return child


class ChildProcess(asyncio.SubprocessProtocol):
    """What is known of a running child."""

    def __init__(self, name: str, owner: ChildOwner) -> None:
        self.ended = asyncio.Event()
        """No answer can come any more."""
        self.exited = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()
        self._name = name
        self._owner = owner
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
            self._end_within(_SILENT_S)

    def process_exited(self) -> None:
        """The child has ended."""
        # Before anything else can get its number: what it started and left behind ends with it.
        self._signal(signal.SIGKILL)
        self.exited.set()
        self._end_within(_LAST_WORDS_S)

    def connection_lost(self, exc: Exception | None) -> None:
        """The child has ended and every pipe is read to its end."""
        self._end()

    # Messages.

    def write(self, message: bytes) -> None:
        """Send a message; dropped when the child is gone, which its owner is told otherwise."""
        pipe = self._transport.get_pipe_transport(0)
        if not self.ended.is_set() and isinstance(pipe, asyncio.WriteTransport) and not pipe.is_closing():
            pipe.write(message + b"\n")

    def pause(self) -> None:
        """Read no more of what the child writes until `resume`; it then waits, once the pipe is full."""
        self._reading("pause_reading")

    def resume(self) -> None:
        """Read on."""
        self._reading("resume_reading")

    def _reading(self, method: str) -> None:
        pipe = self._transport.get_pipe_transport(1)
        if isinstance(pipe, asyncio.ReadTransport) and not pipe.is_closing():
            getattr(pipe, method)()

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
        elif not self.ended.is_set():
            self._owner.take(message)

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

    def _end_within(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if not self.ended.is_set():
            self._timer = asyncio.get_running_loop().call_later(seconds, self._end)

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
        self._owner.lost(self.obituary(), code)
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
