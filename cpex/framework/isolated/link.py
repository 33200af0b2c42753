"""The host's end of the line to a worker: starts it when it is needed, asks, and replaces it when it is stuck or gone.

A worker counts as stuck when a call was given up, by its deadline or by its caller, and the worker then shows no sign
of life. A worker of ours is asked for one and has two seconds, also while plugin code is waiting; one of release 0.1
does one thing at a time, so it has the rest of the call's own time to answer it. Until then the worker is in doubt, and
new calls wait rather than be lost with it.

Source: docs/isolated.md, "When a worker fails".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from typing import Any
from uuid import uuid4

from cpex.framework.clock import monotonic
from cpex.framework.isolated.commands import kill_group
from cpex.framework.isolated.framing import DEFAULT_MAX_BYTES, frame
from cpex.framework.isolated.process import WorkerGone, WorkerProcess

__all__ = ["CANCEL", "WorkerFailed", "WorkerGone", "WorkerLink", "WorkerTimeout"]

logger = logging.getLogger(__name__)

CANCEL = "cancel"
"""Feature of a worker that runs calls side by side, ends one when it is told to, and tells at once that it did."""
GRACE_S = 2.0
"""Seconds that such a worker has to answer when a call was given up."""
STOP_S = 5.0
"""Seconds for a worker to end when it is told to."""
HANDSHAKE_S = 20.0
"""Seconds for a new worker to say what it can do; an interpreter starts slowly on a busy machine."""
MAX_RESPAWNS = 3
"""New starts in a row without a single good answer."""
RESPAWN_PAUSE_S = 0.1
"""Seconds before the first of them; each further one waits twice as long."""
RESPAWN_AGAIN_S = 60.0
"""Seconds after which the count begins anew."""
PROTOCOL_VERSION = 1
"""Of the lines; additions within it are told by features."""
_UNKNOWN_TASK = "task type not supported"

Prepare = Callable[[WorkerProcess], Awaitable[None]]
Make = Callable[[WorkerProcess, str], bytes]


class WorkerTimeout(RuntimeError):
    """The worker did not answer in time."""


class WorkerFailed(RuntimeError):
    """The worker answered that it cannot do what it was asked for.

    Attributes:
        answer: `{"status": "error", "message", "error"?}`.
    """

    def __init__(self, answer: dict[str, Any]) -> None:
        super().__init__(f"Worker process error: {answer.get('message')}")
        self.answer = answer


class WorkerLink:
    """Asks one worker at a time, replacing it as needed. Usable on one event loop at a time."""

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        env: Mapping[str, str],
        max_bytes: int = DEFAULT_MAX_BYTES,
        prepare: Prepare | None = None,
    ) -> None:
        """Args:
        name: Of the plugin, for messages.
        command: Made anew for every start.
        max_bytes: Of a line, in either direction.
        prepare: Awaited for each new worker after the handshake; its failure is that of the start.
        """
        self._name = name
        self._command = command
        self._env = env
        self.max_bytes = max_bytes
        self._prepare = prepare
        self._process: WorkerProcess | None = None
        self._starting: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._respawns = 0
        self._started_at = 0.0
        self._failure = ""

    @property
    def process(self) -> WorkerProcess | None:
        """The worker that was started last; it may have ended."""
        return self._process

    async def ready(self) -> WorkerProcess:
        """A worker that can be asked; started, if there is none.

        Raises:
            WorkerGone: It cannot be started, or has been started too often in vain.
            WorkerFailed: It answered the handshake with an error.
        """
        self._settle_on_loop()
        while True:
            process = self._process
            if process is not None and process.alive:
                if not process.doubts:
                    return process
                # It shows a sign of life, or it is ended.
                await asyncio.wait(process.doubts)
                continue
            if self._starting is None:
                # A task of its own: who waits for the start may have less time than it takes, and be one of many.
                self._starting = asyncio.create_task(self._start(self._pause()), context=Context())
                self._starting.add_done_callback(self._start_ended)
            starting = self._starting
            await asyncio.wait({starting})
            if starting.cancelled():
                raise WorkerGone(f"the worker of plugin `{self._name}` was shut down while it was starting")
            starting.result()

    async def call(self, make: Make, timeout_s: float) -> tuple[WorkerProcess, dict[str, Any]]:
        """Ask, and wait for the answer.

        Args:
            make: Gives the line for a worker and a request id.
            timeout_s: Seconds for all of it, the start of a worker included.

        Returns:
            Who answered, and the answer without its `request_id`.

        Raises:
            WorkerFailed: The worker answered with an error; its message follows `Worker process error: `.
            WorkerGone: The worker ended first, or cannot be started.
            WorkerTimeout: Time ran out.
            ValueError: The line is over the limit; nothing was sent.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        request_id = str(uuid4())
        asked: WorkerProcess | None = None
        try:
            async with asyncio.timeout_at(deadline):
                process = await self.ready()
                line = self._checked(make(process, request_id), process)
                future = process.expect(request_id)
                asked = process
                await process.send(line)
                answer = await future
        except TimeoutError:
            if asked is None:
                raise WorkerTimeout(self._late("start", timeout_s, "")) from None
            self._give_up(asked, request_id, deadline)
            raise WorkerTimeout(self._late("answer", timeout_s, asked.told())) from None
        except asyncio.CancelledError:
            if asked is not None:
                self._give_up(asked, request_id, deadline)
            raise
        # Whatever it says, a worker that answers works.
        self._respawns = 0
        if answer.get("status") == "error":
            raise WorkerFailed(answer)
        return asked, answer

    async def exchange(self, process: WorkerProcess, task: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """Ask a worker that is being started.

        Raises:
            WorkerGone: It ended first.
            WorkerTimeout: It did not answer in time.
        """
        request_id = str(uuid4())
        future = process.expect(request_id)
        try:
            async with asyncio.timeout(timeout_s):
                await process.send(self._checked(frame({"request_id": request_id, **task}), process))
                return await future
        except TimeoutError:
            raise WorkerTimeout(self._late(f"answer `{task['task_type']}`", timeout_s, process.told())) from None

    async def close(self) -> None:
        """End the worker, at once if it does not end by itself in five seconds. A later call starts another."""
        self._settle_on_loop()
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait({self._starting})
        process, self._process = self._process, None
        self._respawns = 0
        if process is None:
            return
        try:
            async with asyncio.timeout(STOP_S):
                process.post(frame({"request_id": "shutdown", "task_type": "shutdown"}))
                await process.ended()
        except (WorkerGone, TimeoutError):
            pass
        finally:
            process.kill("it did not end when it was told to")
            await process.ended()

    def abandon(self) -> None:
        """End the worker without waiting for anything; for who has no event loop any more."""
        process, self._process = self._process, None
        if process is not None and process.alive:
            kill_group(process.pid)

    # Starting.

    def _settle_on_loop(self) -> None:
        """A worker belongs to the loop that started it; one of a loop that is gone cannot be asked."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            self.abandon()
            self._starting = None
            self._loop = loop

    def _pause(self) -> float:
        """Seconds to wait before a worker is started.

        Raises:
            WorkerGone: It has been started too often in vain.
        """
        now = monotonic()
        if self._process is None and not self._failure:
            self._started_at = now
            return 0.0
        if self._respawns >= MAX_RESPAWNS:
            left = self._started_at + RESPAWN_AGAIN_S - now
            if left > 0:
                raise WorkerGone(
                    f"the worker of plugin `{self._name}` was started {MAX_RESPAWNS + 1} times without one good "
                    f"answer; the next attempt is due in {left:.0f}s; the last failure: {self._failure or 'it ended'}"
                )
            self._respawns = 0
        self._started_at = now
        self._respawns += 1
        return RESPAWN_PAUSE_S * float(2 ** (self._respawns - 1))

    async def _start(self, pause_s: float) -> None:
        if self._process is not None:
            self._failure = str(self._process.gone())
            logger.warning("Starting another worker: %s", self._failure)
        if pause_s:
            await asyncio.sleep(pause_s)
        process: WorkerProcess | None = None
        try:
            process = await self._spawn()
            await self._shake_hands(process)
            if self._prepare is not None:
                await self._prepare(process)
            if not process.alive:
                raise process.gone()
        except BaseException as error:
            self._failure = str(error) or type(error).__name__
            if process is not None:
                process.kill("its start failed")
                await process.ended()
            raise
        self._process, self._failure = process, ""

    async def _spawn(self) -> WorkerProcess:
        command = self._command()
        try:
            return await WorkerProcess.start(self._name, command, self._env, self.max_bytes)
        except OSError as error:
            raise WorkerGone(
                f"the worker of plugin `{self._name}` cannot be started: `{command[0]}`: {error.strerror or error}; "
                "start the host anew, so that the environment is built again"
            ) from error

    def _start_ended(self, task: asyncio.Task[None]) -> None:
        if self._starting is task:
            self._starting = None
        if not task.cancelled():
            # Whoever waited was told; maybe nobody did.
            task.exception()

    async def _shake_hands(self, process: WorkerProcess) -> None:
        answer = await self.exchange(process, {"task_type": "capabilities"}, HANDSHAKE_S)
        if answer.get("status") == "error":
            if _UNKNOWN_TASK not in str(answer.get("message")):
                raise WorkerFailed(answer)
            return
        if (spoken := answer.get("protocol_version", PROTOCOL_VERSION)) != PROTOCOL_VERSION:
            raise WorkerGone(
                f"the worker of plugin `{self._name}` speaks version {spoken} of the protocol, and this host version "
                f"{PROTOCOL_VERSION}; let the plugin's requirements file ask for a `cpex` of this host's age"
            )
        features = answer.get("features")
        process.features = frozenset(each for each in features if isinstance(each, str)) if features else frozenset()

    # Giving up.

    def _give_up(self, process: WorkerProcess, request_id: str, deadline: float) -> None:
        """Nobody waits for an answer any more: see to it that the worker does not stay stuck with it."""
        if not process.alive:
            return
        loop = asyncio.get_running_loop()
        if CANCEL in process.features:
            grace, sign = GRACE_S, str(uuid4())
            future = process.expect(sign)
            process.post(frame({"request_id": sign, "task_type": CANCEL, "target": request_id}))
        else:
            grace = deadline - loop.time()
            future = process.expect(request_id)
        why = "it showed no sign of life after a call had been given up"
        if grace <= 0:
            process.kill(why)
            return
        process.doubts.add(future)
        timer = loop.call_later(grace, process.kill, why)
        future.add_done_callback(process.doubts.discard)
        future.add_done_callback(lambda _: timer.cancel())

    def _checked(self, line: bytes, process: WorkerProcess) -> bytes:
        # A worker of release 0.1 counts the end of the line as well.
        size = len(line) - (1 if CANCEL in process.features else 0)
        if size > self.max_bytes:
            raise ValueError(
                f"task_data exceeds max_content_size of plugin `{self._name}`: {size} bytes, at most {self.max_bytes}; "
                "nothing was sent"
            )
        return line

    def _late(self, what: str, timeout_s: float, told: str) -> str:
        return (
            f"Worker process timed out after {timeout_s} seconds: the worker of plugin `{self._name}` did not {what} "
            f"in time{told}"
        )
