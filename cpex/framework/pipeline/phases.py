"""The phases of a hook call whose plugins the caller waits for.

`run_serial` walks sequential, transform and audit plugins in the caller's task. `run_concurrent` runs its plugins
side by side. What happens after the decision, in the background, is in `aftermath.py`.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine, Iterator
from contextvars import copy_context
from typing import Any

from cpex.framework.clock import elapsed_ns
from cpex.framework.errors import PluginViolationError
from cpex.framework.memory.views import SOLE_REFERENCE, getrefcount, settle
from cpex.framework.models.context import PluginContext
from cpex.framework.models.lazy import PENDING, raw_dict, set_raw_dict
from cpex.framework.models.mode import ControlExecutionStatus, OnError
from cpex.framework.models.result import PluginResult
from cpex.framework.pipeline.call import ExecutionContext, foreign_result
from cpex.framework.pipeline.plan import Step
from cpex.framework.pipeline.relay import relay
from cpex.framework.pipeline.stepping import carry_on

new = object.__new__
# Enters a context in the table without asking for those that nobody has touched.
put = dict.__setitem__


def admitted(call: ExecutionContext, step: Step) -> bool:
    """Whether a step takes its turn; one that is disabled at run time leaves a record, one that does not apply none."""
    # Conditions first: a call that does not concern the plugin must not use up its trial.
    if step.matches is not None and not step.matches(call.payload, call.global_context):
        call.skipped += 1
        return False
    disabled = call.engine.disabled
    if disabled and not disabled.admits(step):
        call.skipped += 1
        call.trail.append(step.record(status=ControlExecutionStatus.DISABLED, requested_allow=None, matched=None))
        return False
    return True


def is_plain_allow(result: PluginResult[Any]) -> bool:
    """Whether an answer allows and carries nothing else."""
    values = raw_dict(result)
    return (
        values["continue_processing"] is True
        and values["modified_payload"] is None
        and values["modified_extensions"] is None
        and values["violation"] is None
        and not values["metadata"]
        and not values["retry_delay_ms"]
        and not values["http_headers"]
    )


async def run_serial(call: ExecutionContext) -> None:
    """Run the sequential, transform and audit plugins one after another, until one halts the call.

    The loop is written out in one piece because it is the price of every guarded operation: an untouched view passes
    from plugin to plugin, a plain allow costs one short trail entry, and nothing is awaited that did not suspend.
    `invoke` and `is_plain_allow` say the same in smaller pieces.
    """
    plan, trail, tracer, base, now = call.plan, call.trail, call.tracer, call.views.base, call.started_ns
    request_id, source, table, owed = call.request_id, call.source, call.table, call.owed
    answers, max_bytes, watched = plan.answers, call.engine.max_payload_bytes, call.watched
    limited = plan.smallest_limit < max_bytes
    view: Any = None
    context: Any = None
    for step in plan.serial:
        if (watched or step.matches is not None) and not _ready(call, step):
            continue
        if owed is None:
            context = call.context_for(step)
            context_values = raw_dict(context)
        elif context is None:
            context = new(PluginContext)
            context_values = {PENDING: source}
            set_raw_dict(context, context_values)
        if view is None:
            view = call.views.view()
            base = call.views.base
        span = tracer.start(step, call.limit_of(step)) if tracer is not None else None
        started, result = now, None
        try:
            if limited and step.max_bytes < max_bytes:
                call.check_size(step)
            variables = copy_context()
            coroutine: Any = (
                step.call(view, context, call.extensions_for(step))
                if step.takes_extensions
                else step.call(view, context)
            )
            try:
                waiting = variables.run(coroutine.send, None)
            except StopIteration as stop:
                result = stop.value
            else:
                result = await carry_on(coroutine, variables, waiting, call.seconds_for(step, started))
            now = elapsed_ns()
            if (
                type(result) in answers
                and (values := raw_dict(result))["continue_processing"] is True
                and values["modified_payload"] is None
                and values["modified_extensions"] is None
                and values["violation"] is None
                and not (values["metadata"] or values["retry_delay_ms"] or values["http_headers"])
            ):
                trail.append((step, now - started))
                plain = True
            else:
                call.answered(step, view, result, now - started)
                plain = False
            if len(context_values) == 1 and owed is not None and getrefcount(context) == SOLE_REFERENCE:
                owed.append(step.uuid)
            else:
                if step.shares and "global_context" in context_values:
                    call.share_state(context)
                if owed is not None:
                    put(table, request_id + step.uuid, context)
                    context = None
        except BaseException as error:
            now = elapsed_ns()
            if tracer is not None:
                tracer.end(span, "error")
            settle(view)
            view = None
            if owed is not None and context is not None:
                put(table, request_id + step.uuid, context)
                context = None
            call.failed(step, error, now - started)
            if step.shares and isinstance(error, PluginViolationError):
                call.share_state(call.table[request_id + step.uuid])
            if call.halted_by is not None:
                return
            watched = call.watched
            continue
        if tracer is not None:
            tracer.end_plugin(span, result)
        if watched:
            call.engine.disabled.passed(step)
        if plain and base is not None and getrefcount(view) == SOLE_REFERENCE and raw_dict(view) == base:
            continue
        settle(view)
        view = None
        if call.halted_by is not None:
            return


def _ready(call: ExecutionContext, step: Step) -> bool:
    if call.past_deadline():
        raise call.out_of_time(step, 0)
    return admitted(call, step)


async def invoke(
    call: ExecutionContext, step: Step, view: Any, context: PluginContext, started_ns: int
) -> PluginResult[Any]:
    """One handler call from start to end, as `run_serial` has it written out.

    Raises:
        ForeignResult: The handler returned something else than a `PluginResult`.
    """
    if step.max_bytes < call.engine.max_payload_bytes:
        call.check_size(step)
    variables = copy_context()
    coroutine: Any = (
        step.call(view, context, call.extensions_for(step)) if step.takes_extensions else step.call(view, context)
    )
    try:
        waiting = variables.run(coroutine.send, None)
    except StopIteration as stop:
        result = stop.value
    else:
        result = await carry_on(coroutine, variables, waiting, call.seconds_for(step, started_ns))
    if not isinstance(result, PluginResult):
        raise foreign_result(step, result)
    return result


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

    __slots__ = ("_call", "_decided", "_slots", "_wake", "ended", "tasks", "turns")

    def __init__(self, call: ExecutionContext, turns: list[_Turn], pool: int) -> None:
        self._call = call
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
                await take_turn(self._call, turn)
            else:
                async with self._slots:
                    await take_turn(self._call, turn)
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
    turns = [_Turn(step) for step in call.plan.concurrent if _ready(call, step)]
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
        await take_turn(call, turn)
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


async def take_turn(call: ExecutionContext, turn: _Turn) -> None:
    """Call one plugin; its answer or failure stays in the turn. Cancellation goes on its way as well."""
    step, tracer = turn.step, call.tracer
    started = elapsed_ns()
    context = turn.context = call.context_for(step)
    span = tracer.start(step, call.limit_of(step)) if tracer is not None else None
    view = call.views.view()
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
