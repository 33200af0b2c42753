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
from dataclasses import replace
from typing import Any

from cpex.framework.clock import elapsed_ns
from cpex.framework.errors import PluginViolationError, convert_exception_to_error
from cpex.framework.memory.copying import copy_tree
from cpex.framework.memory.views import snapshot_context, view_global_context, views_of
from cpex.framework.models.context import PluginContext
from cpex.framework.models.lazy import complete
from cpex.framework.models.mode import ControlExecutionStatus, OnError
from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginErrorModel
from cpex.framework.pipeline.background import Background
from cpex.framework.pipeline.call import ExecutionContext
from cpex.framework.pipeline.phases import admitted, invoke, run_serial
from cpex.framework.pipeline.plan import Observer, Step
from cpex.framework.pipeline.stepping import DeadlineReached

logger = logging.getLogger("cpex.framework.manager")


class Redaction:
    """The payload that background work may see: ready at once, or after the transform phase has run on it."""

    def __init__(self, call: ExecutionContext, background: Background) -> None:
        self._payload = copy_tree(call.payload)
        self._task: asyncio.Task[Any] | None = None
        self.possible = True
        if call.plan.transforms and not call.transformed:
            self._task = background.spawn(lambda: _redact(call, self._payload, background), "redaction")
            self.possible = self._task is not None

    async def view(self) -> Any:
        """A view of the payload for one background plugin.

        Raises:
            RedactionFailed: The payload must not be shown.
        """
        if self._task is not None:
            # Shielded: one background plugin's end must not take the redaction from the others.
            self._payload = await asyncio.shield(self._task)
        if not self.possible or self._payload is _FAILED:
            raise RedactionFailed
        return views_of(self._payload).view()


class RedactionFailed(Exception):
    """The payload of a call that ended early could not be brought into the form that telemetry may see."""


_FAILED: Any = object()


async def _redact(call: ExecutionContext, payload: Any, background: Background) -> Any:
    """Run the transform phase on a snapshot; nothing of it reaches the caller."""
    host = view_global_context(call.global_context)
    complete(host)
    plan = replace(call.plan, serial=call.plan.transforms, concurrent=(), background=(), observers=())
    contexts = {
        call.request_id + step.uuid: snapshot_context(call.table.get(call.request_id + step.uuid), host)
        for step in plan.serial
    }
    inner = ExecutionContext(call.engine, plan, payload, host, contexts, call.extensions, None)
    try:
        await run_serial(inner)
    # Whatever a transform raised has been logged where it was handled; here it only means "do not show".
    except Exception:
        return _FAILED
    bad = {ControlExecutionStatus.ERROR, ControlExecutionStatus.TIMEOUT, ControlExecutionStatus.DISABLED}
    if any(record.status in bad for record in inner.records()):
        return _FAILED
    return inner.final_change() if inner.reply is None else inner.payload


def start_background(call: ExecutionContext, background: Background) -> list[asyncio.Task[Any]]:
    """Start the fire-and-forget plugins of a call that was decided."""
    steps = [step for step in call.plan.background if admitted(call, step)]
    if not steps:
        return []
    redaction = Redaction(call, background)
    tasks = [_start(call, step, redaction, background) for step in steps]
    return [task for task in tasks if task is not None]


def _start(
    call: ExecutionContext, step: Step, redaction: Redaction, background: Background
) -> asyncio.Task[Any] | None:
    key = call.request_id + step.uuid
    context = call.table[key] = snapshot_context(call.table.get(key), call.global_context)
    record = step.record(requested_allow=None, matched=None, pending=True)
    task = background.spawn(lambda: _run(call, step, context, redaction, record, background), step.name)
    if task is None:
        record.status, record.pending = ControlExecutionStatus.SKIPPED, False
        record.error_code = "background_limit"
    call.trail.append(record)
    return task


async def _run(
    call: ExecutionContext,
    step: Step,
    context: PluginContext,
    redaction: Redaction,
    record: ControlExecutionRecord,
    background: Background,
) -> PluginErrorModel | None:
    """One background plugin, from snapshot to true record. Never raises but for cancellation."""
    started = elapsed_ns()
    try:
        view = await redaction.view()
        started = elapsed_ns()
        span = call.tracer.start(step, call.limit_of(step)) if call.tracer is not None else None
        status = "error"
        try:
            result = await invoke(call, step, view, context, started)
            status = "ok"
        finally:
            if call.tracer is not None:
                call.tracer.end(span, status)
        del result
        return None
    except RedactionFailed:
        background.skipped += 1
        record.status, record.error_code = ControlExecutionStatus.SKIPPED, "redaction_failed"
        logger.error("Background plugin %s was skipped: the payload could not be redacted for it", step.name)
        return None
    except asyncio.CancelledError:
        record.status = ControlExecutionStatus.CANCELLED
        raise
    # Its answer is ignored, a denial like any other.
    except PluginViolationError:
        return None
    # Plugin boundary.
    except Exception as error:
        return _failed(call, step, error, record)
    finally:
        record.duration_ns = elapsed_ns() - started
        record.pending = False


def _failed(call: ExecutionContext, step: Step, error: Exception, record: ControlExecutionRecord) -> PluginErrorModel:
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
    redaction = Redaction(call, background)
    for observer in observers:
        start = functools.partial(_tell, call, observer, redaction, background, error)
        background.spawn(start, f"outcome:{observer.name}")


async def _tell(
    call: ExecutionContext,
    observer: Observer,
    redaction: Redaction,
    background: Background,
    error: BaseException | None,
) -> None:
    try:
        payload = await redaction.view()
    except RedactionFailed:
        # The outcome is still told (refunds depend on it), without what may not be shown.
        payload = None
        background.skipped += 1
    try:
        await observer.call(call.outcome(payload, error))
    # Plugin boundary.
    except Exception:
        logger.exception("Plugin %s failed in hook_completed", observer.name)
