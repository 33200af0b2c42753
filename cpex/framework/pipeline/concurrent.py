"""The concurrent phase of a hook call: its plugins run side by side, and the first that denies ends them all."""

from __future__ import annotations

import asyncio
from operator import attrgetter
from typing import Any

from cpex.framework.errors import PluginViolationError
from cpex.framework.models.context import PluginContext
from cpex.framework.models.lazy import raw_dict
from cpex.framework.models.mode import OnError
from cpex.framework.pipeline.answers import take_answer
from cpex.framework.pipeline.call import ExecutionContext
from cpex.framework.pipeline.failures import take_failure
from cpex.framework.pipeline.plan import Step
from cpex.framework.pipeline.relay import Relay, Turn
from cpex.framework.pipeline.turns import is_plain_allow, is_ready


class _Turn(Turn):
    """One concurrent plugin's turn."""

    counted = False
    """Whether it had its effect on the call."""

    def __init__(self, step: Step, index: int) -> None:
        # Written out: one is made for every turn.
        self.step = step
        self.index = index

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


_index = attrgetter("index")


class _Race(Relay[_Turn]):
    """The turns of one concurrent phase: who has ended, and what still runs."""

    def __init__(self, call: ExecutionContext, turns: list[_Turn], pool: int) -> None:
        super().__init__(call, iter(turns), call.payload, call.source)
        self.turns = turns
        self._over: list[_Turn] = []
        self._in_order = True
        """Whether those that are over ended in the order of priority."""
        self._tasks: list[asyncio.Task[Any]] = []
        self._pool = pool or len(turns)
        self._wake: asyncio.Future[None] | None = None
        self._starting = True
        """Whether turns that are to start together have not all begun; until they have, nobody is told how any went."""

    async def run(self) -> None:
        try:
            while (turn := self.take_turns()) is not None:
                if self.spawn() is None:
                    self._started()
                await self.finish(turn)
        finally:
            self._started()

    def entered(self, turn: _Turn) -> PluginContext:
        context = turn.context = self.call.context_for(turn.step)
        return context

    def allowed(self, turns: list[_Turn]) -> None:
        if turns:
            # One task takes its turns in order.
            self._in_order = not self._over
            self._over += turns
            if not self._starting:
                self._wake_up()

    def ended(self, turn: _Turn) -> None:
        self._in_order = not self._over
        self._over.append(turn)
        if turn.ends_the_call:
            self.decided = True
        self._wake_up()

    def leaves(self, turn: _Turn) -> bool:
        # One that denies without waiting does not keep others from starting beside it; only those behind the pool.
        return not self._starting or turn.index >= self._pool

    def _started(self) -> None:
        self._starting = False
        self._wake_up()

    def _wake_up(self) -> None:
        if self._wake is not None and not self._starting:
            if not self._wake.done():
                self._wake.set_result(None)
            self._wake = None

    def is_interrupt(self, error: BaseException) -> bool:
        return not isinstance(error, Exception)

    def spawn(self) -> asyncio.Task[Any] | None:
        # Each task has one turn that has not ended, so that the number of tasks bounds what runs at once.
        pool = self._pool
        if len(self._tasks) >= pool and sum(not task.done() for task in self._tasks) >= pool:
            return None
        # What `asyncio.create_task` does, without its detour over the context that nobody gave.
        task = asyncio.get_running_loop().create_task(self.run(), name="cpex:concurrent")
        self._tasks.append(task)
        return task

    def wait(self, seen: int) -> asyncio.Future[None] | None:
        """What to wait for when no turn has ended since the first `seen` did."""
        if len(self._over) > seen and not self._starting:
            return None
        self._wake = asyncio.get_running_loop().create_future()
        return self._wake

    def ended_since(self, seen: int) -> list[_Turn]:
        """Turns that have ended since the first `seen` did.

        Those that end at the same moment are taken by priority, so that the same inputs give the same decision.
        """
        ended = self._over[seen:]
        if not self._in_order:
            ended.sort(key=_index)
        return ended

    async def stop(self) -> None:
        """Cancel what still runs and wait until all of it has ended, however often we are cancelled meanwhile."""
        self.decided, self._starting = True, False
        cancelled = False
        while running := [task for task in self._tasks if not task.done()]:
            for task in running:
                task.cancel()
            try:
                await asyncio.wait(running)
            except asyncio.CancelledError:
                cancelled = True
        self.let_go()
        if cancelled:
            raise asyncio.CancelledError

    def let_go(self) -> bool:
        """Forget the tasks if all have ended; return whether they had."""
        for task in self._tasks:
            if not task.done():
                return False
            # Looked at, so that nobody is told of an exception that nobody looked at: turns keep their own.
            if not task.cancelled():
                task.exception()
        self._tasks.clear()
        return True


async def run_concurrent(call: ExecutionContext, pool: int) -> None:
    """Run the concurrent plugins side by side; the first denial or fatal failure ends them all.

    When this returns or raises, no task of it is left. State merges in the order of priority, whoever ended first.

    Args:
        pool: How many may run at once; 0 means all.
    """
    steps = call.plan.concurrent
    if call.special or call.engine.disabled:
        steps = tuple(step for step in steps if is_ready(call, step))
    turns = [_Turn(step, index) for index, step in enumerate(steps)]
    race = _Race(call, turns, pool)
    settled = False
    try:
        if len(turns) == 1:
            # A lone plugin needs no task of its own.
            await _run_alone(race)
        elif turns:
            settled = await _run_race(race)
    finally:
        for turn in turns if not settled else ():
            if not turn.counted:
                call.trail.append(turn.step.cancelled(turn.duration_ns))
            elif turn.context is not None and turn.answered and "global_context" in raw_dict(turn.context):
                call.share_state(turn.context)
            if turn.error is not None:
                # Its traceback refers to frames that refer to the turn: a cycle that would keep the call alive.
                turn.error = None


async def _run_alone(race: _Race) -> None:
    turn = race.turns[0]
    try:
        if race.take_turns() is not None:
            await race.finish(turn)
    finally:
        turn.counted = turn.error is None or isinstance(turn.error, Exception)
    _count(race.call, turn)


async def _run_race(race: _Race) -> bool:
    """Run the turns; return whether all of them allowed and kept nothing, so that nothing is left to be done."""
    call, seen, settled = race.call, 0, True
    note = call.trail.append
    race.spawn()
    try:
        while seen < len(race.turns) and call.halted_by is None:
            if (wake := race.wait(seen)) is not None:
                await wake
            for turn in race.ended_since(seen):
                seen += 1
                turn.counted = True
                if turn.plain and not call.watched:
                    note((turn.step, turn.duration_ns))
                    if turn.context is not None:
                        settled = False
                    continue
                settled = False
                _count(call, turn)
                if call.halted_by is not None:
                    break
    finally:
        if not race.let_go():
            await race.stop()
    return settled and seen == len(race.turns)


def _count(call: ExecutionContext, turn: _Turn) -> None:
    """Let a turn that ended have its effect; raises when its failure ends the call."""
    if turn.error is not None:
        take_failure(call, turn.step, turn.error, turn.duration_ns)
        return
    assert turn.result is not None  # it ended, and not with an error
    if is_plain_allow(turn.result):
        call.trail.append((turn.step, turn.duration_ns))
    else:
        try:
            take_answer(call, turn.step, None, turn.result, turn.duration_ns)
        # A change that cannot be is the plugin's failure.
        except Exception as error:
            take_failure(call, turn.step, error, turn.duration_ns)
    if call.watched:
        call.engine.disabled.passed(turn.step)
