"""Running handlers side by side in no more tasks than they need.

A relay is a task that takes turns one after another. A turn that ends without waiting costs no task. The first turn
that waits keeps the task it began in, to its end, so that timers, cancel scopes and `current_task()` inside it see one
task; the turns after it go on in a new task at once.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterator
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar
from weakref import getweakrefcount

from cpex.framework.clock import elapsed_ns
from cpex.framework.errors import denial_in
from cpex.framework.memory.views import SOLE_REFERENCE, ContextSource, base_of, getrefcount, settle
from cpex.framework.models.context import PluginContext
from cpex.framework.models.copying import copy_tree
from cpex.framework.models.lazy import PENDING, raw_dict, set_raw_dict
from cpex.framework.models.result import PluginResult
from cpex.framework.pipeline.answers import foreign_result
from cpex.framework.pipeline.call import ExecutionContext
from cpex.framework.pipeline.plan import Step
from cpex.framework.pipeline.stepping import ENDED, Stepper, carry_on
from cpex.framework.pipeline.turns import PLAIN_ALLOWS, opened

_new = object.__new__
# Enters a context in the table without asking for those that nobody has touched.
_put = dict.__setitem__


class Turn:
    """One plugin's turn in a relay, and how it went.

    One is made for every plugin of a call, so what most turns never change is read from the class.
    """

    awaited: Any
    coroutine: Coroutine[Any, Any, Any]
    span: str | None
    started_ns: int
    stepper: Stepper
    variables: Context
    view: Any
    context: PluginContext | None = None
    """What the plugin was handed, as far as it may have touched it."""
    result: PluginResult[Any] | None = None
    error: BaseException | None = None
    """What it raised. Its traceback refers to frames that refer to the turn, so it must be let go."""
    duration_ns = 0
    plain = False
    """Whether it is known that the answer allows and carries nothing else."""

    def __init__(self, step: Step) -> None:
        self.step = step


T = TypeVar("T", bound=Turn)


class Relay(ABC, Generic[T]):
    """Takes turns until none is left."""

    decided = False
    """Whether nothing can matter any more; turns that have not begun are left untaken, as far as `leaves` says so."""
    noted = False
    """Whether the table knows of the turns' contexts before they begin, so that somebody may have asked for them."""

    def __init__(self, call: ExecutionContext, turns: Iterator[T], payload: Any, source: ContextSource) -> None:
        """Prepare.

        Args:
            turns: Whoever takes a turn takes it from here.
            payload: What views are made of; nobody changes it while turns are taken.
            source: What new contexts are made from.
        """
        self.call = call
        self._turns = turns
        self._payload = payload
        self._source = source
        # A context that is not noted anywhere yet can be left out when nobody touches it.
        self._owed = call.owed if call.plan.distinct else None

    @abstractmethod
    def entered(self, turn: T) -> PluginContext:
        """The context of a turn whose plugin may have one already; entered in the table."""

    @abstractmethod
    def allowed(self, turns: list[T]) -> None:
        """Take in turns that ended at once, each with a plain allow: in order, and before anything else can run."""

    @abstractmethod
    def ended(self, turn: T) -> None:
        """Take in how any other turn went."""

    @abstractmethod
    def is_interrupt(self, error: BaseException) -> bool:
        """Whether what a plugin raised is not the plugin's to give, and ends the task."""

    def leaves(self, turn: T) -> bool:
        """Whether a turn that has not begun when all is decided is left untaken."""
        return True

    @abstractmethod
    def spawn(self) -> asyncio.Task[Any] | None:
        """Start a task that goes on with the turns; `None` when there must not be another one."""

    async def run(self) -> None:
        """Take turns until none is left; while one waits, a successor takes the rest if there may be one."""
        while (turn := self.take_turns()) is not None:
            self.spawn()
            await self.finish(turn)

    def take_turns(self) -> T | None:
        """Take turns until one has to wait, which is returned, or none is left.

        Written out in one piece for its speed. What passes from turn to turn, and when, is as in the serial walk
        (`serial.py`).
        """
        call, source, owed, noted, payload = self.call, self._source, self._owed, self.noted, self._payload
        special, tracer, idle = call.special, call.tracer, call.engine.idle_steppers
        kind, base = type(payload), base_of(payload)
        stepper = idle.pop() if idle else Stepper()
        send, answer = stepper.send, stepper.answer
        view: Any = None
        context: Any = None
        # Whether a turn's context may stand in the table already, for somebody to find.
        perhaps_entered = noted or owed is None
        allowed: list[T] = []
        now = elapsed_ns()
        for turn in self._turns:
            if self.decided and self.leaves(turn):
                break
            step = turn.step
            started = now
            if special:
                turn.span = tracer.start(step, call.limit_of(step)) if tracer is not None else None
            if perhaps_entered and (owed is None or turn.context is not None or (noted and not owed)):
                context = self.entered(turn)
            elif context is None:
                context = _new(PluginContext)
                set_raw_dict(context, {PENDING: source})
            if view is None:
                if base is None:
                    view = copy_tree(payload)
                else:
                    view = _new(kind)
                    set_raw_dict(view, base.copy())
            try:
                coroutine: Any = opened(call, step, view, context) if special else step.call(view, context)
                variables = copy_context()
                awaited = variables.run(send, coroutine)
                if awaited is not ENDED:
                    turn.context, turn.view, turn.started_ns = context, view, started
                    turn.coroutine, turn.variables, turn.awaited, turn.stepper = coroutine, variables, awaited, stepper
                    if owed is not None:
                        _put(call.table, call.request_id + step.uuid, context)
                    self.allowed(allowed)
                    return turn
                now = elapsed_ns()
                turn.duration_ns = now - started
                turn.result = result = answer[0]
                try:
                    plain = raw_dict(result) in PLAIN_ALLOWS
                # It has no instance dictionary of a model: no answer at all.
                except TypeError:
                    plain = False
                if not plain and not isinstance(result, PluginResult):
                    turn.result = None
                    raise foreign_result(step, result)
            except BaseException as error:
                now, plain = elapsed_ns(), False
                turn.duration_ns, turn.error = now - started, denial_in(error) or error
                # It went down with the handler.
                stepper = Stepper()
                send, answer = stepper.send, stepper.answer
            if (
                (owed is not None and len(raw_dict(context)) == 1)
                and getrefcount(context) == SOLE_REFERENCE
                and not getweakrefcount(context)
            ):
                owed.append(step.uuid)
            else:
                turn.context = context
                if owed is not None:
                    _put(call.table, call.request_id + step.uuid, context)
                context = None
            # SECURITY: a weak reference would lead to what the next one does with it.
            if base is None or getrefcount(view) != SOLE_REFERENCE or getweakrefcount(view) or raw_dict(view) != base:
                settle(view)
                view = None
            if special:
                self.close_span(turn)
            if plain:
                turn.plain = True
                allowed.append(turn)
            else:
                self.allowed(allowed)
                allowed = []
                self._ended(turn)
        self.allowed(allowed)
        answer[0] = None
        idle.append(stepper)
        return None

    async def finish(self, turn: T) -> None:
        """Wait for a turn that has to wait, in the task that it began in."""
        try:
            seconds = self.call.seconds_for(turn.step, turn.started_ns)
            result = await carry_on(turn.coroutine, turn.variables, turn.awaited, seconds)
            if not isinstance(result, PluginResult):
                raise foreign_result(turn.step, result)
            turn.result = result
        except BaseException as error:
            turn.error = denial_in(error) or error
        turn.duration_ns = elapsed_ns() - turn.started_ns
        settle(turn.view)
        # The turn may be kept by records; what it took to get there need not be.
        del turn.view, turn.coroutine, turn.variables, turn.awaited, turn.stepper
        if self.call.special:
            self.close_span(turn)
        self._ended(turn)

    def close_span(self, turn: T) -> None:
        """Close the span of a turn that ended."""
        tracer = self.call.tracer
        if tracer is None:
            return
        if turn.result is not None:
            tracer.end_plugin(turn.span, turn.result)
        else:
            tracer.end(turn.span, "error")

    def _ended(self, turn: T) -> None:
        error = turn.error
        try:
            self.ended(turn)
            if error is not None and self.is_interrupt(error):
                raise error
        finally:
            # Its traceback refers to this frame: a cycle that would keep the call alive.
            del error
