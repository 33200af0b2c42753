"""One worker process, and everybody who waits for an answer of it.

The process belongs to this object alone: no caller's task reads from it, so a caller that is cancelled takes nothing
with it but its own wait. The event loop calls back for every piece of output, for the end of a pipe and for the end of
the process; that end wakes all who wait, at once, with the last lines that the worker wrote.

This module knows lines and ids. What is asked, and when a worker is to be ended, is decided by `link.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from cpex.framework.external import wire
from cpex.framework.isolated.commands import OWN_GROUP, kill_group
from cpex.framework.isolated.framing import LineSplitter, LineTooLong, id_at_start, is_typed

__all__ = ["WorkerGone", "WorkerProcess"]

logger = logging.getLogger(__name__)

LAST_LINES = 5
"""Lines of the worker's standard error that a message tells."""
_MAX_LINE = 300
_AFTERMATH_S = 0.25
"""Seconds for what is left in the pipes of a process that has ended; a grandchild may hold them open for ever."""
_SILENT_S = 1.0
"""Seconds for a process to end after it has closed its side of the answers."""


class WorkerGone(RuntimeError):
    """The worker ended, or was ended, before it answered."""


class WorkerProcess(asyncio.SubprocessProtocol):
    """A running worker."""

    def __init__(self, name: str, max_bytes: int) -> None:
        """Use `start`.

        Args:
            name: Of the plugin, for messages.
            max_bytes: Of an answer.
        """
        self.name = name
        self.features: frozenset[str] = frozenset()
        """What the worker said that it can do."""
        self.three_argument_hooks: frozenset[str] | None = None
        """Hooks whose handlers take extensions; `None` when the worker did not say."""
        self.doubts: set[asyncio.Future[Any]] = set()
        """Each stands for a call that was given up, until the worker has shown that it goes on."""
        self.why_ended: str | None = None
        """Why this side ended the worker; `None` when it did not."""
        self._answers = LineSplitter(max_bytes)
        self._errors = LineSplitter(_MAX_LINE * 2)
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._waiting: dict[str, asyncio.Future[dict[str, Any]]] = {}
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.SubprocessTransport | None = None
        self._writable = asyncio.Event()
        self._writable.set()
        self._ended = self._loop.create_future()
        self._status: int | None = None

    @classmethod
    async def start(cls, name: str, command: Sequence[str], env: Mapping[str, str], max_bytes: int) -> WorkerProcess:
        """Start a worker, in a process group of its own.

        Raises:
            OSError: It cannot be started.
        """
        loop = asyncio.get_running_loop()
        _, protocol = await loop.subprocess_exec(lambda: cls(name, max_bytes), *command, env=dict(env), **OWN_GROUP)
        return protocol

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process runs."""
        assert isinstance(transport, asyncio.SubprocessTransport)  # the loop promises it to this kind of protocol
        self._transport = transport

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """It wrote something."""
        if fd == 1:
            for line in self._answers.feed(data):
                self._dispatch(line)
        else:
            for line in self._errors.feed(data):
                self._note_error_line(line)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """It closed a pipe, as a process does that ends."""
        if fd == 1 and self._status is None:
            self._loop.call_later(_SILENT_S, self.kill, "it closed its standard output")

    def process_exited(self) -> None:
        """It ended. What it wrote last may still be on its way."""
        assert self._transport is not None  # it was running
        self._status = self._transport.get_returncode()
        kill_group(self.pid)
        self._loop.call_later(_AFTERMATH_S, self._finish)

    def connection_lost(self, exc: Exception | None) -> None:
        """It ended, and all that it wrote has been read."""
        self._finish()

    def pause_writing(self) -> None:
        """The pipe to it is full."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The pipe to it has room again."""
        self._writable.set()

    # What the link calls.

    @property
    def pid(self) -> int:
        """Its process id, which is also that of its group."""
        assert self._transport is not None  # it was started
        return self._transport.get_pid()

    @property
    def alive(self) -> bool:
        """Whether it runs and may be asked."""
        return self._status is None and self.why_ended is None and not self._ended.done()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that it lives on."""
        return self._loop

    @property
    def waiting(self) -> Mapping[str, asyncio.Future[dict[str, Any]]]:
        """Who waits for which id."""
        return self._waiting

    def expect(self, request_id: str) -> asyncio.Future[dict[str, Any]]:
        """A future for the answer of an id.

        Raises:
            WorkerGone: The worker has ended.
        """
        if not self.alive:
            raise self.gone()
        future = self._waiting[request_id] = self._loop.create_future()

        def forget(_: object) -> None:
            # The same id may be waited for again by now.
            if self._waiting.get(request_id) is future:
                del self._waiting[request_id]

        future.add_done_callback(forget)
        return future

    async def send(self, line: bytes) -> None:
        """Send a line, once the pipe has room.

        Raises:
            WorkerGone: The worker has ended.
        """
        while not self._writable.is_set():
            await self._writable.wait()
        self.post(line)

    def post(self, line: bytes) -> None:
        """Send a line that may wait in memory.

        Raises:
            WorkerGone: The worker has ended.
        """
        pipe = self._transport.get_pipe_transport(0) if self._transport is not None else None
        if not self.alive or pipe is None:
            raise self.gone()
        assert isinstance(pipe, asyncio.WriteTransport)  # it is a standard input
        pipe.write(line)

    def kill(self, why: str) -> None:
        """End it, with everything that it has started. Does nothing when it has ended."""
        if self._status is None:
            self.why_ended = self.why_ended or why
            kill_group(self.pid)

    async def ended(self) -> None:
        """Wait for its end, and for everything of it to be released."""
        await asyncio.shield(self._ended)

    def gone(self) -> WorkerGone:
        """The failure of whoever waits for it, or comes too late."""
        if self.why_ended is not None:
            how = f"was ended: {self.why_ended}"
        elif self._status is not None and self._status < 0:
            how = f"was ended by signal {_signal_name(-self._status)}"
        else:
            how = f"ended with status {self._status}"
        return WorkerGone(f"the worker of plugin `{self.name}` {how}{self.told()}")

    def told(self) -> str:
        """The last lines of its standard error, indented, on lines of their own; empty when there were none."""
        if not self._last_lines:
            return ""
        return "; its last lines on standard error:" + "".join(f"\n  {line}" for line in self._last_lines)

    # The rest.

    def _finish(self) -> None:
        if self._ended.done():
            return
        self._writable.set()
        self._ended.set_result(None)
        # What it wrote last may lack the end of the line.
        for line in self._errors.feed(b"\n"):
            self._note_error_line(line)
        for future in list(self._waiting.values()):
            if not future.done():
                future.set_exception(self.gone())
                # Whoever gave up waiting does not ask for it.
                future.exception()
        if self._transport is not None:
            self._transport.close()

    def _dispatch(self, line: bytes | LineTooLong) -> None:
        if isinstance(line, LineTooLong):
            self._refuse(line)
            return
        try:
            message = wire.loads(line) if is_typed(line) else json.loads(line)
        except (ValueError, RecursionError):
            message = None
        request_id = message.get("request_id") if isinstance(message, dict) else None
        future = self._waiting.get(request_id) if isinstance(request_id, str) else None
        if future is None and message is None and (future := self._waiting.get(id_at_start(line) or "")) is not None:
            message = _unusable(f"the worker of plugin `{self.name}` gave an answer that is cut off, or is not JSON")
        if future is None:
            # Plugins of older workers print here; answers that nobody waits for any more come here, too. The text is
            # not logged: it may hold anything.
            logger.debug("Skipped a line of %d bytes from the worker of plugin %s", len(line), self.name)
        elif not future.done():
            future.set_result({key: value for key, value in message.items() if key not in ("request_id", "typed")})

    def _refuse(self, line: LineTooLong) -> None:
        """Fail whom a line over the limit was meant for."""
        text = (
            f"the worker of plugin `{self.name}` answered with {line.size} bytes, more than the "
            f"{self._answers.max_bytes} that the plugin's `max_content_size` allows"
        )
        meant = self._waiting.get(id_at_start(line.start) or "") or self._only_possible()
        if meant is not None and not meant.done():
            meant.set_result(_unusable(text))
        else:
            logger.warning("%s; nobody waits for it", text)

    def _only_possible(self) -> asyncio.Future[dict[str, Any]] | None:
        """Whose answer a line without an id must be; `None` when it could be anybody's."""
        # A worker that does one thing at a time answers in the order in which it was asked.
        return next(iter(self._waiting.values()), None) if "cancel" not in self.features else None

    def _note_error_line(self, line: bytes | LineTooLong) -> None:
        start = line.start if isinstance(line, LineTooLong) else line
        text = start.decode("utf-8", "replace").rstrip()[:_MAX_LINE]
        if text:
            self._last_lines.append(text)
            logger.debug("Worker of plugin %s: %s", self.name, text)


def _unusable(text: str) -> dict[str, Any]:
    """In place of an answer that cannot be used."""
    return {"status": "error", "message": text, "error": {"message": text, "code": "worker_answer"}}


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return str(number)


def worker_environment(names: Sequence[str] = (), plugin_dirs: Sequence[str] = ()) -> dict[str, str]:
    """The variables that a worker gets: what Python needs, where the framework's configuration is, and those named.

    Args:
        names: Of variables of this process that the operator lets through.
        plugin_dirs: Workers of release 0.1 refuse folders outside of the working directory, unless they can import from
            them already.
    """
    wanted = {"PLUGINS_CONFIG_FILE": os.environ.get("PLUGINS_CONFIG_FILE", "plugins/config.yaml"), "PYTHONUTF8": "1"}
    for name in ("SYSTEMROOT", *names):
        if name in os.environ:
            wanted[name] = os.environ[name]
    if plugin_dirs:
        wanted["PYTHONPATH"] = os.pathsep.join(plugin_dirs)
    return wanted
