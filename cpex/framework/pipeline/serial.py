"""The serial phases of a hook call: sequential, transform and audit plugins, one after another in the caller's task."""

from __future__ import annotations

from collections.abc import Coroutine, Iterator
from contextvars import Context, copy_context
from operator import length_hint
from typing import Any
from weakref import getweakrefcount

from cpex.framework.clock import elapsed_ns
from cpex.framework.errors import PluginViolationError, denial_in
from cpex.framework.memory.views import OWN_DICTIONARY, SOLE_REFERENCE, base_of, getrefcount, settle
from cpex.framework.models.context import PluginContext
from cpex.framework.models.copying import copy_tree
from cpex.framework.models.lazy import PENDING, raw_dict, set_raw_dict
from cpex.framework.pipeline.answers import take_answer
from cpex.framework.pipeline.call import ExecutionContext
from cpex.framework.pipeline.failures import take_failure
from cpex.framework.pipeline.plan import Step
from cpex.framework.pipeline.stepping import ENDED, Stepper, carry_on
from cpex.framework.pipeline.turns import PLAIN_ALLOWS, is_plain_allow, is_ready, opened

_new = object.__new__
# Enters a context in the table without asking for those that nobody has touched.
_put = dict.__setitem__


class Waiting:
    """A plugin's turn that has to wait."""

    __slots__ = ("awaited", "context", "coroutine", "span", "started_ns", "step", "stepper", "variables", "view")

    def __init__(self, step: Step, view: Any, context: PluginContext, span: str | None, started_ns: int) -> None:
        self.step = step
        self.view = view
        self.context = context
        self.span = span
        self.started_ns = started_ns

    def for_(self, awaited: Any, coroutine: Coroutine[Any, Any, Any], variables: Context, stepper: Stepper) -> Waiting:
        """The same, with what it takes to go on."""
        self.awaited = awaited
        self.coroutine = coroutine
        self.variables = variables
        # Kept for as long as the coroutine, which would otherwise be closed.
        self.stepper = stepper
        return self


async def resume(call: ExecutionContext, steps: Iterator[Step], turn: Waiting | None) -> None:
    """Wait for the plugin whose turn it is, and walk on from there, until none is left or one halts the call.

    Raises:
        PluginError: A plugin failed and its `on_error` is `fail`, or the call ran out of time.
    """
    while turn is not None:
        try:
            left = call.seconds_for(turn.step, turn.started_ns)
            result = await carry_on(turn.coroutine, turn.variables, turn.awaited, left)
            _take_in(call, turn, result)
        except BaseException as error:
            settle(turn.view)
            _fail(call, turn.step, turn.context, turn.span, error, elapsed_ns() - turn.started_ns)
        else:
            settle(turn.view)
            _hand_over(call, turn.step, turn.context, turn.span, result)
        # Setting a walk up for nobody would take longer than most walks.
        turn = walk(call, steps, elapsed_ns()) if call.halted_by is None and length_hint(steps) else None


def walk(call: ExecutionContext, steps: Iterator[Step], now: int) -> Waiting | None:
    """Let plugins take their turns until one has to wait, which is returned, or none is left, or one halts the call.

    Args:
        steps: Those that have not had their turns. Afterwards, those after the one that waits.
        now: When the first of them began, on the clock of `elapsed_ns`.

    Raises:
        PluginError: A plugin failed and its `on_error` is `fail`, or the call ran out of time.

    The loop is written out in one piece because it is the price of every guarded operation: an untouched view passes
    from plugin to plugin, a plain allow costs one short trail entry, and nothing is awaited that did not suspend.
    """
    # In local variables: reading an attribute costs each turn more than these lines cost the call.
    source, owed, trail, special, tracer = call.source, call.owed, call.trail, call.special, call.tracer
    payload, idle = call.payload, call.engine.idle_steppers
    kind, base = type(payload), base_of(payload)
    stepper = idle.pop() if idle else Stepper()
    send, answer = stepper.send, stepper.answer
    view: Any = None
    context: Any = None
    # The instance dictionaries of the two. They tell whether a plugin has touched what it was handed.
    shown: dict[str, Any] = {}
    told: dict[str, Any] = {}
    span: str | None = None
    for step in steps:
        if special:
            if not is_ready(call, step):
                continue
            span = tracer.start(step, call.limit_of(step)) if tracer is not None else None
        if context is None:
            if owed is None:
                context = call.context_for(step)
            else:
                context = _new(PluginContext)
                told = {PENDING: source}
                set_raw_dict(context, told)
        if view is None:
            if base is None:
                view = copy_tree(payload)
            else:
                view = _new(kind)
                shown = base.copy()
                set_raw_dict(view, shown)
        started, plain = now, False
        try:
            coroutine: Any = opened(call, step, view, context) if special else step.call(view, context)
            variables = copy_context()
            awaited = variables.run(send, coroutine)
            if awaited is not ENDED:
                return Waiting(step, view, context, span, started).for_(awaited, coroutine, variables, stepper)
            now = elapsed_ns()
            result = answer[0]
            try:
                plain = raw_dict(result) in PLAIN_ALLOWS or is_plain_allow(result)
            # It has no instance dictionary of a model: no answer at all.
            except TypeError:
                pass
            if plain:
                trail.append((step, now - started))
            else:
                take_answer(call, step, view, result, now - started)
        except BaseException as error:
            now = elapsed_ns()
            settle(view)
            _fail(call, step, context, span, error, now - started)
            if call.halted_by is not None:
                return None
            # The stepper went down with the handler.
            stepper = Stepper()
            send, answer = stepper.send, stepper.answer
            view, context, special = None, None, call.special
            continue
        # Nobody has looked into the context, and nobody but us holds it: the next plugin gets the same object, and the
        # table only notes whose it was.
        if (
            (owed is not None and not special and len(told) == 1)
            and getrefcount(context) == SOLE_REFERENCE
            and getrefcount(told) == OWN_DICTIONARY
            and not getweakrefcount(context)
        ):
            owed.append(step.uuid)
        else:
            _hand_over(call, step, context, span, result)
            context = None
        # The same for the view: as it was, and held by nobody else. SECURITY: whoever could find it again by a weak
        # reference would see what the next plugin does with it.
        if (
            (plain and base is not None and shown == base)
            and getrefcount(view) == SOLE_REFERENCE
            and getrefcount(shown) == OWN_DICTIONARY
            and not getweakrefcount(view)
        ):
            continue
        settle(view)
        view = None
        if not plain:
            if call.halted_by is not None:
                break
            if payload is not call.payload:
                payload = call.payload
                kind, base = type(payload), base_of(payload)
    answer[0] = None
    idle.append(stepper)
    return None


def _take_in(call: ExecutionContext, turn: Waiting, result: Any) -> None:
    """Let an answer have its effect."""
    duration_ns = elapsed_ns() - turn.started_ns
    if is_plain_allow(result):
        call.trail.append((turn.step, duration_ns))
    else:
        take_answer(call, turn.step, turn.view, result, duration_ns)


def _hand_over(call: ExecutionContext, step: Step, context: PluginContext, span: str | None, result: Any) -> None:
    """End a turn that was answered."""
    if step.shares and "global_context" in raw_dict(context):
        call.share_state(context)
    if call.owed is not None:
        _put(call.table, call.request_id + step.uuid, context)
    if call.tracer is not None:
        call.tracer.end_plugin(span, result)
    if call.watched:
        call.engine.disabled.passed(step)


def _fail(
    call: ExecutionContext, step: Step, context: PluginContext, span: str | None, error: BaseException, duration_ns: int
) -> None:
    """End a turn that failed or was denied by a raised violation; raises when that ends the call."""
    if call.tracer is not None:
        call.tracer.end(span, "error")
    if call.owed is not None:
        _put(call.table, call.request_id + step.uuid, context)
    error = denial_in(error) or error
    answered = isinstance(error, PluginViolationError)
    try:
        take_failure(call, step, error, duration_ns)
    finally:
        # Its traceback refers to this frame: a cycle that would keep the call alive.
        del error
    if step.shares and answered:
        call.share_state(context)
