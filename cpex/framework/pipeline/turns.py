"""What every mode asks about a turn: whether it is one's turn, how a handler is called, whether its answer is plain."""

from __future__ import annotations

from typing import Any

from cpex.framework.errors import convert_exception_to_error
from cpex.framework.models.context import PluginContext
from cpex.framework.models.lazy import raw_dict
from cpex.framework.models.mode import ControlExecutionStatus
from cpex.framework.models.result import PluginResult
from cpex.framework.pipeline.call import ExecutionContext
from cpex.framework.pipeline.failures import out_of_time, take_failure
from cpex.framework.pipeline.plan import Matcher, Step

PLAIN_ALLOWS = (
    raw_dict(PluginResult(continue_processing=True)).copy(),
    raw_dict(PluginResult()).copy(),
)
"""The instance dictionaries of the two commonest answers."""


class UnknownWhetherItApplies(ValueError):
    """The conditions of a plugin cannot be judged; its failure, as if its handler had raised it."""


def is_ready(call: ExecutionContext, step: Step) -> bool:
    """Whether a step takes its turn.

    Raises:
        PluginError: The time of the whole call is over, or whether the plugin applies cannot be told and its `on_error`
            is `fail`.
    """
    if call.past_deadline():
        raise out_of_time(call, step, 0)
    return admitted(call, step)


def admitted(call: ExecutionContext, step: Step) -> bool:
    """Whether a step takes its turn; one that is disabled at run time leaves a record, one that does not apply none."""
    # Conditions first: a call that does not concern the plugin must not use up its trial.
    if step.matches is not None and not _applies(call, step, step.matches):
        return False
    disabled = call.engine.disabled
    if disabled and not disabled.admits(step):
        call.skipped += 1
        call.trail.append(step.record(status=ControlExecutionStatus.DISABLED, requested_allow=None, matched=None))
        return False
    return True


def _applies(call: ExecutionContext, step: Step, matches: Matcher) -> bool:
    try:
        applies = matches(call.payload, call.global_context)
    # What is compared is the host's, may be of any type, and runs its own code. Not to know is not to be let past.
    except Exception as error:
        unknown = UnknownWhetherItApplies(
            f"its conditions cannot be judged: {convert_exception_to_error(error, '').message}"
        )
        unknown.__cause__ = error
        take_failure(call, step, unknown, 0)
        return False
    if not applies:
        call.skipped += 1
    return applies


def is_plain_allow(result: Any) -> bool:
    """Whether an answer is one, allows, and carries nothing else."""
    if not isinstance(result, PluginResult):
        return False
    values = raw_dict(result)
    # What is not there yet would be filled with its default.
    value = values.get
    return (
        values["continue_processing"] is True
        and value("modified_payload") is None
        and value("modified_extensions") is None
        and value("violation") is None
        and not value("metadata")
        and not value("retry_delay_ms")
        and not value("http_headers")
    )


def opened(call: ExecutionContext, step: Step, view: Any, context: PluginContext) -> Any:
    """The coroutine of one handler call, not begun.

    Raises:
        ValueError: The payload is larger than the plugin takes.
    """
    if step.max_bytes < call.engine.max_payload_bytes:
        call.check_size(step)
    return step.call(view, context, call.extensions_for(step)) if step.takes_extensions else step.call(view, context)
