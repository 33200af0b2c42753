"""What a plugin's failure does to its call: by `on_error` it ends the call, or the call goes on without the plugin."""

from __future__ import annotations

from typing import Any

from cpex.framework.errors import PluginError, PluginViolationError, convert_exception_to_error, tellable
from cpex.framework.models import _truncate_opt
from cpex.framework.models.mode import ControlExecutionStatus, OnError, PluginMode
from cpex.framework.models.result import PluginErrorModel, PluginViolation
from cpex.framework.pipeline.answers import halt, own_violation, would_deny
from cpex.framework.pipeline.call import ExecutionContext
from cpex.framework.pipeline.log import manager_logger as logger
from cpex.framework.pipeline.plan import Step
from cpex.framework.pipeline.stepping import DeadlineReached

_ONLY_WATCHING = (PluginMode.AUDIT, PluginMode.FIRE_AND_FORGET)


def take_failure(call: ExecutionContext, step: Step, error: BaseException, duration_ns: int) -> None:
    """Take in what a handler raised: return if the call goes on (or is halted), raise if it fails.

    Raises:
        PluginError: The failure ends the call.
        BaseException: A cancellation, or another signal that is not the plugin's to give.
    """
    if isinstance(error, PluginViolationError):
        _violated(call, step, error, duration_ns)
        return
    if not isinstance(error, Exception):
        call.trail.append(step.cancelled(duration_ns))
        try:
            raise error
        finally:
            # Its traceback refers to this frame: a cycle that would keep the call alive.
            del error
    late = isinstance(error, DeadlineReached)
    if late and call.past_deadline():
        raise out_of_time(call, step, duration_ns) from error
    failure = _failure_of(call, step, error)
    fatal = step.on_error is OnError.FAIL and step.mode not in _ONLY_WATCHING
    call.trail.append(
        step.record(
            duration_ns,
            status=ControlExecutionStatus.TIMEOUT if late else ControlExecutionStatus.ERROR,
            requested_allow=None,
            effective_allow=not fatal,
            matched=None,
            applied=fatal or (late and step.mode is PluginMode.SEQUENTIAL),
            reason=_truncate_opt(failure.message),
            error_code="plugin_timeout" if late else "plugin_error",
        )
    )
    logger.error(
        "Plugin %s failed in hook %s (on_error: %s): %s",
        step.name,
        call.plan.hook,
        step.on_error,
        failure.message,
        exc_info=None if fatal or late else tellable(error),
    )
    if fatal:
        raise _plugin_error(call, failure, error)
    if step.on_error is OnError.DISABLE:
        call.engine.disabled.disable(step.name)
        call.watched = call.special = True


def _failure_of(call: ExecutionContext, step: Step, error: Exception) -> PluginErrorModel:
    """What is told of a failure; a plugin that raises a `PluginError` has worded it itself."""
    if isinstance(error, DeadlineReached):
        text, details = timeout_text(call, step), {"hook": call.plan.hook}
        return PluginErrorModel(message=text, plugin_name=step.name, code="plugin_timeout", details=details)
    return error.error if isinstance(error, PluginError) else convert_exception_to_error(error, step.name)


def _violated(call: ExecutionContext, step: Step, error: PluginViolationError, duration_ns: int) -> None:
    """A raised violation is the same as that denial returned."""
    given: Any = error.violation
    if given is None:
        given = PluginViolation(reason=error.message, description=error.message, code="plugin_violation")
    violation = error.violation = own_violation(given, step.name)
    if call.engine.disabled:
        call.engine.disabled.passed(step)
    if step.blocks:
        halt(call, step, violation, None, duration_ns, raised=error)
    else:
        call.trail.append(step.record(duration_ns, **would_deny(call, step, violation)))


def timeout_text(call: ExecutionContext, step: Step) -> str:
    """The message of a plugin's timeout."""
    return f"Plugin {step.name} exceeded {call.limit_of(step):g}s timeout"


def out_of_time(call: ExecutionContext, step: Step, duration_ns: int) -> PluginError:
    """The failure of a call whose own time is over, blamed on the plugin whose turn it is."""
    text = f"Hook {call.plan.hook} exceeded its time while plugin {step.name} was running"
    call.trail.append(
        step.record(
            duration_ns,
            status=ControlExecutionStatus.TIMEOUT,
            requested_allow=None,
            effective_allow=False,
            matched=None,
            applied=True,
            reason=_truncate_opt(text),
            error_code="hook_timeout",
        )
    )
    return _plugin_error(call, PluginErrorModel(message=text, plugin_name=step.name, code="hook_timeout"), None)


def _plugin_error(call: ExecutionContext, failure: PluginErrorModel, cause: BaseException | None) -> PluginError:
    error = cause if isinstance(cause, PluginError) else PluginError(failure)
    error.executions = call.records()
    if cause is not None and cause is not error and not isinstance(cause, DeadlineReached):
        error.__cause__ = cause
    return error
