"""How a decided call is told: to the host as a result or an exception, to observers as an outcome."""

from __future__ import annotations

import asyncio
from typing import Any

from cpex.framework.errors import PluginError, PluginViolationError, attach_denial_outcome
from cpex.framework.extensions import Extensions
from cpex.framework.models import _truncate_opt
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.copying import copy_tree
from cpex.framework.models.outcome import HookOutcome
from cpex.framework.models.result import PluginResult
from cpex.framework.pipeline.call import (
    DECISION_PLUGIN_METADATA_KEY,
    HTTP_AUTH_CHECK_PERMISSION_HOOK,
    ExecutionContext,
)
from cpex.framework.pipeline.trail import result_of


def merged_result(call: ExecutionContext, background_tasks: list[asyncio.Task[Any]] | None) -> PluginResult[Any]:
    """The merged result of the call."""
    if call.decider is not None and call.plan.hook == HTTP_AUTH_CHECK_PERMISSION_HOOK:
        call.metadata = {**(call.metadata or {}), DECISION_PLUGIN_METADATA_KEY: call.decider}
    if not call.eventful:
        return result_of(call.trail, call.metadata, background_tasks)
    changes = {
        "continue_processing": call.halted_by is None,
        "modified_payload": _final_change(call) if call.payload_modified else None,
        "modified_extensions": call.extensions if call.extensions_modified else None,
        "violation": call.violation,
        "denial_metadata": call.denial_metadata,
        "http_headers": call.http_headers,
        "retry_delay_ms": call.retry_delay_ms,
    }
    return result_of(call.trail, call.metadata, background_tasks, changes)


def _final_change(call: ExecutionContext) -> Any:
    """The reply if there is one, else the chain's payload."""
    return call.reply if call.reply is not None else call.payload


def violation_exception(call: ExecutionContext) -> PluginViolationError:
    """The denial as an exception, with records and outcome."""
    step, violation = call.halted_by, call.violation
    assert step is not None  # only asked for after a halt
    error = call.violation_error
    if error is None:
        message = f"{call.plan.hook} blocked by plugin"
        if violation is not None:
            message += f" {step.name}: {violation.code} - {violation.reason} ({violation.description})"
        error = PluginViolationError(message, violation=violation)
    error.executions = call.records()
    # Not simply the last one: siblings that were cancelled come behind it.
    denials = [each for each in error.executions if each.plugin_id == step.uuid and each.requested_allow is False]
    if violation is None:
        # The exception's text is all there is to say about a denial without a violation.
        denials[-1].reason, denials[-1].error_code = _truncate_opt(error.message), "plugin_violation"
    attach_denial_outcome(error, denials[-1], call.denial_metadata)
    return error


def outcome_of(call: ExecutionContext, error: BaseException | None) -> HookOutcome:
    """What observers are told, but for the payload."""
    context = call.global_context
    return HookOutcome(
        hook=call.plan.hook,
        request_id=call.request_id,
        allowed=error is None and call.halted_by is None,
        violation=call.violation,
        payload=None,
        executions=call.records(),
        duration_ns=call.decided_ns - call.started_ns,
        decided_ns=call.decided_ns,
        session=_session_of(context, call.extensions),
        user=copy_tree(context.user),
        tenant_id=context.tenant_id,
        error_code=_error_code(error),
    )


def _session_of(context: GlobalContext, extensions: Extensions | None) -> str | None:
    """The conversation: the agent extension's session, else the one in the request's metadata."""
    if extensions is not None and extensions.agent is not None and extensions.agent.session_id:
        return extensions.agent.session_id
    session = context.metadata.get("session_id")
    return session if isinstance(session, str) else None


def _error_code(error: BaseException | None) -> str | None:
    if error is None:
        return None
    if isinstance(error, PluginError):
        return error.error.code or "plugin_error"
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__
