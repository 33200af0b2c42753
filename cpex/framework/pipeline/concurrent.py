"""The concurrent phase of a hook call: its plugins run side by side, and the first that denies ends them all."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from cpex.framework.clock import elapsed_ns
from cpex.framework.errors import PluginViolationError
from cpex.framework.memory.views import Views, settle
from cpex.framework.models.context import PluginContext
from cpex.framework.models.mode import OnError
from cpex.framework.models.result import PluginResult
from cpex.framework.pipeline.call import ExecutionContext
from cpex.framework.pipeline.plan import Step
from cpex.framework.pipeline.relay import relay
from cpex.framework.pipeline.turns import invoke, is_plain_allow, is_ready


class _Turn:
    """How one concurrent plugin's turn went."""

    __slots__ = ("context", "duration_ns", "error", "result", "step")

    def __init__(self, step: Step) -> None:
        self.step = step
        self.context: PluginContext | None = None
        self.result: PluginResult[Any] | None = None
        self.error: BaseException | None = None
        self.duration_ns = 0

    @property
    def answered(self) -> bool:
        """Whether the plugin said something, by result or by a raised violation, rather than fail."""
        return self.result is not None or isinstance(self.error, PluginViolationError)

    @property
    def ends_the_call(self) -> bool:
        """Whether nothing that runs beside this turn can matter any more."""
        if self.result is not None:
            return not self.result.continue_processing
        return self.step.on_error is OnError.FAIL or not isinstance(self.error, Exception) or self.answered


class _Race:
    """The turns of one concurrent phase: who has ended, and what still runs."""

    __slots__ = ("_call", "_decided", "_slots", "_views", "_wake", "ended", "tasks", "turns")

    def __init__(self, call: ExecutionContext, turns: list[_Turn], pool: int) -> None:
        self._call = call
        self._views = Views(call.payload)
        self.turns = turns
        self.ended: list[_Turn] = []
        self.tasks: list[asyncio.Task[Any]] = []
        self._slots = asyncio.Semaphore(pool) if 0 < pool < len(turns) else None
        self._wake: asyncio.Future[None] | None = None
        self._decided = False

    def start(self) -> None:
        """Let the turns begin."""
        self._spawn(functools.partial(relay, self._open_turns(), self._take, self._spawn))

    def _spawn(self, begin: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[Any]:
        task = asyncio.create_task(begin(), name="cpex:concurrent")
        self.tasks.append(task)
        return task

    def _open_turns(self) -> Iterator[_Turn]:
        for turn in self.turns:
            if self._decided:
                return
            yield turn

    async def _take(self, turn: _Turn) -> None:
        try:
            if self._slots is None:
                await take_turn(self._call, turn, self._views.view())
            else:
                async with self._slots:
                    await take_turn(self._call, turn, self._views.view())
        finally:
            self.ended.append(turn)
            self._decided = self._decided or turn.ends_the_call
            if self._wake is not None and not self._wake.done():
                self._wake.set_result(None)

    async def next_ended(self, seen: int) -> list[_Turn]:
        """Turns that have ended since the first `seen` did, by priority; waits until there is one."""
        while len(self.ended) == seen:
            self._wake = asyncio.get_running_loop().create_future()
            await self._wake
        # Those that end at the same moment are taken by priority, so that the same inputs give the same decision.
        return sorted(self.ended[seen:], key=self.turns.index)

    async def stop(self) -> None:
        """Cancel what still runs and wait until all of it has ended, however often we are cancelled meanwhile."""
        self._decided = True
        cancelled = False
        while running := {task for task in self.tasks if not task.done()}:
            for task in running:
                task.cancel()
            try:
                await asyncio.wait(running)
            except asyncio.CancelledError:
                cancelled = True
        for task in self.tasks:
            # Looked at, so that nobody is told of an exception that nobody looked at: turns keep their own.
            if not task.cancelled():
                task.exception()
        self.tasks.clear()
        if cancelled:
            raise asyncio.CancelledError


async def run_concurrent(call: ExecutionContext, pool: int) -> None:
    """Run the concurrent plugins side by side; the first denial or fatal failure ends them all.

    When this returns or raises, no task of it is left. State merges in the order of priority, whoever ended first.

    Args:
        pool: How many may run at once; 0 means all.
    """
    turns = [_Turn(step) for step in call.plan.concurrent if is_ready(call, step)]
    counted: list[_Turn] = []
    try:
        if len(turns) == 1:
            # A lone plugin needs no task of its own.
            await _take_alone(call, turns[0], counted)
        elif turns:
            await _run_race(call, _Race(call, turns, pool), counted)
    finally:
        call.trail.extend(turn.step.cancelled(turn.duration_ns) for turn in turns if turn not in counted)
        for turn in turns:
            if turn.answered and turn in counted and turn.context is not None:
                call.share_state(turn.context)
            # Its traceback refers to frames that refer to the turn: a cycle that would keep the call alive.
            turn.error = None


async def _take_alone(call: ExecutionContext, turn: _Turn, counted: list[_Turn]) -> None:
    try:
        await take_turn(call, turn, Views(call.payload).view())
    finally:
        if turn.error is None or isinstance(turn.error, Exception):
            counted.append(turn)
    _count(call, turn)


async def _run_race(call: ExecutionContext, race: _Race, counted: list[_Turn]) -> None:
    race.start()
    seen = 0
    try:
        while seen < len(race.turns) and call.halted_by is None:
            for turn in await race.next_ended(seen):
                seen += 1
                counted.append(turn)
                _count(call, turn)
                if call.halted_by is not None:
                    break
    finally:
        await race.stop()


def _count(call: ExecutionContext, turn: _Turn) -> None:
    """Let a turn that ended have its effect; raises when its failure ends the call."""
    if turn.error is not None:
        call.failed(turn.step, turn.error, turn.duration_ns)
        return
    assert turn.result is not None  # it ended, and not with an error
    if is_plain_allow(turn.result):
        call.trail.append((turn.step, turn.duration_ns))
    else:
        try:
            call.answered(turn.step, None, turn.result, turn.duration_ns)
        # A change that cannot be is the plugin's failure.
        except Exception as error:
            call.failed(turn.step, error, turn.duration_ns)
    if call.watched:
        call.engine.disabled.passed(turn.step)


async def take_turn(call: ExecutionContext, turn: _Turn, view: Any) -> None:
    """Call one plugin; its answer or failure stays in the turn. Cancellation goes on its way as well."""
    step, tracer = turn.step, call.tracer
    started = elapsed_ns()
    context = turn.context = call.context_for(step)
    span = tracer.start(step, call.limit_of(step)) if tracer is not None else None
    try:
        turn.result = await invoke(call, step, view, context, started)
    except BaseException as error:
        turn.error = error
        # Plugin boundary; what is no `Exception` is not the plugin's to give.
        if not isinstance(error, Exception):
            raise
    finally:
        turn.duration_ns = elapsed_ns() - started
        settle(view)
        if tracer is not None:
            if turn.result is not None:
                tracer.end_plugin(span, turn.result)
            else:
                tracer.end(span, "error")
