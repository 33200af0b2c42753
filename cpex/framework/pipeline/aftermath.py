"""What follows a decision, off the caller's path: fire-and-forget plugins, and plugins that want to know the outcome.

Both see the final payload, in a snapshot taken before the caller goes on. When the call ended before its transform
phase was through, that phase first runs here, on the snapshot, so that what a transform would have redacted reaches
nobody's log. If a transform fails at that, the background plugins of the call are skipped and counted: an unredacted
payload is worse than a missing line.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

from cpex.framework.clock import elapsed_ns
from cpex.framework.errors import PluginViolationError, convert_exception_to_error
from cpex.framework.memory.copying import copy_tree
from cpex.framework.memory.views import ContextSource, Views, snapshot_context, view_global_context
from cpex.framework.models.lazy import complete, raw_dict
from cpex.framework.models.mode import ControlExecutionStatus, OnError, PluginMode
from cpex.framework.models.outcome import HookOutcome
from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginErrorModel
from cpex.framework.pipeline.background import Background, is_interrupt
from cpex.framework.pipeline.call import ExecutionContext
from cpex.framework.pipeline.phases import go_on, walk
from cpex.framework.pipeline.plan import Observer, Step
from cpex.framework.pipeline.relay import relay
from cpex.framework.pipeline.stepping import DeadlineReached
from cpex.framework.pipeline.turns import admitted, invoke

logger = logging.getLogger("cpex.framework.manager")


class Redaction:
    """The payload that background work may see: ready at once, or after the transform phase has run on it."""

    def __init__(self, call: ExecutionContext, background: Background) -> None:
        self._payload = copy_tree(call.payload)
        self._task: asyncio.Task[Any] | None = None
        self.possible = True
        if call.plan.transforms and not _is_transformed(call):
            self._task = background.spawn(functools.partial(_redact, _redacting(call, self._payload)), "redaction")
            self.possible = self._task is not None

    @classmethod
    def of(cls, call: ExecutionContext, background: Background) -> Redaction:
        """The one redaction of a call, for all that runs after its decision."""
        if call.redaction is None:
            call.redaction = cls(call, background)
        shared: Redaction = call.redaction
        return shared

    async def payload(self) -> Any:
        """The payload that may be shown; everyone who looks at it needs a view of their own.

        Raises:
            RedactionFailed: The payload must not be shown.
        """
        if self._task is not None:
            # Shielded: one background task's end must not take the redaction from the others.
            self._payload = await asyncio.shield(self._task)
        if not self.possible or self._payload is _FAILED:
            raise RedactionFailed
        return self._payload


def _is_transformed(call: ExecutionContext) -> bool:
    """Whether the transform phase is through: the whole serial part is, or a plugin of the next phase had its turn."""
    return call.transformed or any(record.mode is PluginMode.AUDIT for record in call.records())


class RedactionFailed(Exception):
    """The payload of a call that ended early could not be brought into the form that telemetry may see."""


_FAILED: Any = object()


def _redacting(call: ExecutionContext, payload: Any) -> ExecutionContext:
    """A call of the transform phase alone, on snapshots taken now; nothing of it reaches the caller."""
    host = view_global_context(call.global_context)
    complete(host)
    plan = replace(call.plan, serial=call.plan.transforms, concurrent=(), background=(), observers=())
    contexts = {
        call.request_id + step.uuid: snapshot_context(call.table.get(call.request_id + step.uuid), host)
        for step in plan.serial
    }
    return ExecutionContext(call.engine, plan, payload, host, contexts, call.extensions, None)


async def _redact(inner: ExecutionContext) -> Any:
    try:
        steps = iter(inner.plan.serial)
        await go_on(inner, steps, walk(inner, steps, elapsed_ns()))
    # Whatever a transform raised has been logged where it was handled; here it only means "do not show".
    except BaseException as error:
        if is_interrupt(error):
            raise
        return _FAILED
    bad = {ControlExecutionStatus.ERROR, ControlExecutionStatus.TIMEOUT, ControlExecutionStatus.DISABLED}
    if any(record.status in bad for record in inner.records()):
        return _FAILED
    return inner.payload


class _BackgroundTurn:
    """One fire-and-forget plugin's turn: what it is handed, and its record, completed in place."""

    __slots__ = ("context", "failure", "record", "step")

    def __init__(self, call: ExecutionContext, step: Step, host: ContextSource) -> None:
        self.step = step
        self.failure: PluginErrorModel | None = None
        key = call.request_id + step.uuid
        # Past the table's own bookkeeping: entries that nobody has touched need not be made for this one.
        self.context = host.continued(dict.get(call.table, key))
        dict.__setitem__(call.table, key, self.context)
        self.record = step.record(requested_allow=None, matched=None, pending=True)
        call.trail.append(self.record)


def start_background(call: ExecutionContext, background: Background) -> list[asyncio.Task[Any]]:
    """Start the fire-and-forget plugins of a call that was decided.

    Returns:
        The task that ends when all of them have. Its result is the error of a single plugin (`None` without one), or a
        list of the errors of several.
    """
    steps = [step for step in call.plan.background if admitted(call, step)]
    if not steps:
        return []
    # The limit was on the caller's waiting, and that is over.
    call.deadline_ns = None
    # Taken now, once for all of them: afterwards the host's objects are the host's again.
    host = view_global_context(call.global_context)
    complete(host)
    source = ContextSource(host)
    turns = [_BackgroundTurn(call, step, source) for step in steps]
    redaction = Redaction.of(call, background)
    what = turns[0].step.name
    task = background.spawn(functools.partial(_run_all, call, turns, redaction, background), what)
    if task is not None:
        return [task]
    background.count_refused(len(turns) - 1)
    for turn in turns:
        _skip(turn.record, "background_limit")
    return []


async def _run_all(
    call: ExecutionContext, turns: list[_BackgroundTurn], redaction: Redaction, background: Background
) -> PluginErrorModel | list[PluginErrorModel] | None:
    followers: list[asyncio.Task[Any]] = []

    def spawn(begin: Callable[[], Coroutine[Any, Any, None]]) -> asyncio.Task[Any] | None:
        task = background.spawn(begin, turns[0].step.name) if len(background) < background.limit else None
        if task is not None:
            followers.append(task)
        return task

    try:
        views = Views(await redaction.payload())
        await relay(iter(turns), lambda turn: _run(call, turn, views.view()), spawn)
        for task in followers:
            await task
    except RedactionFailed:
        background.count_skipped(len(turns))
        for turn in turns:
            _skip(turn.record, "redaction_failed")
        logger.error("Background plugins were skipped: the payload of hook %s could not be redacted", call.plan.hook)
    # Cancelled or interrupted.
    except BaseException:
        for task in followers:
            task.cancel()
        for turn in turns:
            if turn.record.pending:
                turn.record.status, turn.record.pending = ControlExecutionStatus.CANCELLED, False
        raise
    failures = [turn.failure for turn in turns if turn.failure is not None]
    return failures if len(turns) > 1 else next(iter(failures), None)


def _skip(record: ControlExecutionRecord, code: str) -> None:
    record.status, record.error_code, record.pending = ControlExecutionStatus.SKIPPED, code, False


async def _run(call: ExecutionContext, turn: _BackgroundTurn, view: Any) -> None:
    """One background plugin, from snapshot to true record. Never raises but for cancellation."""
    step, record, tracer = turn.step, turn.record, call.tracer
    started = elapsed_ns()
    span = tracer.start(step, call.limit_of(step)) if tracer is not None else None
    status = "error"
    try:
        await invoke(call, step, view, turn.context, started)
        status = "ok"
        if call.engine.disabled:
            call.engine.disabled.passed(step)
    # Its answer is ignored, a denial like any other.
    except PluginViolationError:
        if call.engine.disabled:
            call.engine.disabled.passed(step)
    # Plugin boundary; nobody else is there to whom a failure of any kind could go.
    except BaseException as error:
        if is_interrupt(error):
            record.status = ControlExecutionStatus.CANCELLED
            raise
        turn.failure = _failed(call, step, error, record)
    finally:
        # Straight into the record's dictionary: two assignments through pydantic would cost as much as the turn.
        raw_dict(record).update(duration_ns=elapsed_ns() - started, pending=False)
        if tracer is not None:
            tracer.end(span, status)


def _failed(
    call: ExecutionContext, step: Step, error: BaseException, record: ControlExecutionRecord
) -> PluginErrorModel:
    late = isinstance(error, DeadlineReached)
    failure = (
        PluginErrorModel(message=call.timeout_text(step), plugin_name=step.name, code="plugin_timeout")
        if late
        else convert_exception_to_error(error, step.name)
    )
    record.status = ControlExecutionStatus.TIMEOUT if late else ControlExecutionStatus.ERROR
    record.reason = step.record(reason=failure.message).reason
    record.error_code = "plugin_timeout" if late else "plugin_error"
    logger.error("Background plugin %s failed: %s", step.name, failure.message, exc_info=None if late else error)
    if step.on_error is OnError.DISABLE:
        call.engine.disabled.disable(step.name)
    return failure


def tell_observers(call: ExecutionContext, background: Background, error: BaseException | None) -> None:
    """Tell the plugins that want to know what was finally decided."""
    ran = {record.plugin_name for record in call.records() if record.status is not ControlExecutionStatus.DISABLED}
    observers = [each for each in call.plan.observers if each.observes_all or each.name in ran]
    if not observers:
        return
    redaction = Redaction.of(call, background)
    outcome = call.outcome(error)
    for observer in observers:
        start = functools.partial(_tell, outcome, observer, redaction, background)
        background.spawn(start, f"outcome:{observer.name}")


async def _tell(outcome: HookOutcome, observer: Observer, redaction: Redaction, background: Background) -> None:
    try:
        payload = Views(await redaction.payload()).view()
    except RedactionFailed:
        # The outcome is still told (refunds depend on it), without what may not be shown.
        payload = None
        background.count_skipped(1)
    try:
        # An outcome of its own, as far as it can be changed.
        own = replace(
            outcome,
            payload=payload,
            violation=copy_tree(outcome.violation),
            user=copy_tree(outcome.user),
            executions=list(outcome.executions),
        )
        await observer.call(own)
    # Plugin boundary; nobody else is there to whom a failure of any kind could go.
    except BaseException as error:
        if is_interrupt(error):
            raise
        logger.exception("Plugin %s failed in hook_completed", observer.name)
