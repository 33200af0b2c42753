"""What a plugin's answer does to its call: changes are judged and taken over, a denial halts it or is only noted.

The phases decide who runs when; this module decides what an answer means.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from cpex.framework.errors import PluginViolationError, tellable
from cpex.framework.extensions import Extensions
from cpex.framework.extensions.tiers import merge_extensions
from cpex.framework.models import _truncate_opt
from cpex.framework.models.copying import copy_tree
from cpex.framework.models.result import PluginResult, PluginViolation
from cpex.framework.pipeline.acceptance import Accepted, Rules, accept
from cpex.framework.pipeline.call import RESERVED_INTERNAL_METADATA_KEYS, ExecutionContext
from cpex.framework.pipeline.log import manager_logger as logger
from cpex.framework.pipeline.plan import Step

if TYPE_CHECKING:
    # At run time it brings the identity hooks along.
    from cpex.framework.pipeline.identity import ReplyEffects


class ForeignResult(TypeError):
    """A handler returned something that is not a `PluginResult`."""


def take_answer(call: ExecutionContext, step: Step, view: Any, result: Any, duration_ns: int) -> None:
    """Take in an answer that is not a plain allow.

    Raises:
        ForeignResult: It is no answer at all.
        TierViolationError, ForeignPayload, pydantic.ValidationError: It carries a change that cannot be.
    """
    if not isinstance(result, PluginResult):
        raise foreign_result(step, result)
    call.eventful = True
    effects = call.plan.effects
    refusal = effects.refusal(result, step.name) if effects is not None else None
    denied = refusal is not None or not result.continue_processing
    violation = own_violation(result.violation if refusal is None else refusal, step.name) if denied else None
    if denied and step.blocks:
        _gather_beside_denial(call, step, view, result, refused=refusal is not None)
        halt(call, step, violation, result.denial_metadata, duration_ns)
        return
    extensions = _judge_extensions(call, step, result) if step.rewrites else None
    accepted = _judge_payload(call, step, view, result) if step.rewrites else None
    if effects is not None and accepted is not None and accepted.is_reply:
        extensions = _judge_effects(call, effects, step, extensions, accepted.reply)
    _gather(call, step, result)
    if extensions is not None:
        call.extensions, call.extensions_modified = extensions, True
    if accepted is not None:
        _take_payload(call, step, accepted)
    changed = accepted is not None or extensions is not None
    changes: dict[str, Any] = {
        "matched": changed,
        "applied": changed,
        "payload_modified": accepted is not None,
        "extensions_modified": extensions is not None,
    }
    if denied:
        changes |= would_deny(call, step, violation)
    call.trail.append(step.record(duration_ns, **changes))


def _judge_payload(call: ExecutionContext, step: Step, view: Any, result: PluginResult[Any]) -> Accepted | None:
    returned = result.modified_payload
    if returned is None:
        return None
    rules = Rules(call.engine.hook_policies.get(call.plan.hook), call.engine.default_hook_policy)
    return accept(call.plan, rules, step.name, current=call.payload, shown=view, returned=returned, reply=call.reply)


def _take_payload(call: ExecutionContext, step: Step, accepted: Accepted) -> None:
    if accepted.is_reply:
        call.reply = accepted.reply
    else:
        call.payload = accepted.payload
    call.payload_modified = True
    call.decider = step.name


def _judge_extensions(call: ExecutionContext, step: Step, result: PluginResult[Any]) -> Extensions | None:
    """The container that this answer makes, or `None` when it changes nothing."""
    returned = result.modified_extensions
    if returned is None:
        return None
    before = call.extensions if call.extensions is not None else Extensions()
    merged = merge_extensions(before, returned, step.capabilities, step.name, scope_mapping=step.scope_mapping)
    return None if merged is before else merged


def _judge_effects(
    call: ExecutionContext, effects: ReplyEffects, step: Step, extensions: Extensions | None, reply: Any
) -> Extensions | None:
    """The same, with what the reply does to extensions, which the answer itself may have changed."""
    before = extensions if extensions is not None else call.extensions
    before = before if before is not None else Extensions()
    after = effects.extensions(before, reply, step.name, step.scope_mapping)
    return extensions if after is before else after


def _gather_beside_denial(
    call: ExecutionContext, step: Step, view: Any, result: PluginResult[Any], *, refused: bool
) -> None:
    try:
        if refused and step.rewrites:
            # The reply of a refusal goes out beside the violation, for hosts that look for it there.
            accepted = _judge_payload(call, step, view, result)
            if accepted is not None:
                _take_payload(call, step, accepted)
        _gather(call, step, result)
    # SECURITY: a denial stands. If unusable metadata made it a failure, `on_error: ignore` would let the call pass.
    except Exception as error:
        text = "Plugin %s: what it said beside its denial cannot be used"
        logger.warning(text, step.name, exc_info=tellable(error))


def would_deny(call: ExecutionContext, step: Step, violation: PluginViolation | None) -> dict[str, Any]:
    """Note a denial that the plugin's mode does not let through."""
    reason = violation.reason if violation is not None else None
    if violation is not None:
        logger.warning(
            "Plugin %s raised violation in %s mode, so the call goes on: %s (%s)",
            step.name,
            step.mode,
            violation.reason,
            violation.code,
        )
    else:
        logger.warning("Plugin %s denied in %s mode with no violation given; the call goes on", step.name, step.mode)
    return {
        "requested_allow": False,
        "matched": True,
        "reason": _truncate_opt(reason),
        "error_code": _truncate_opt(violation.code if violation is not None else None),
    }


def halt(
    call: ExecutionContext,
    step: Step,
    violation: PluginViolation | None,
    denial_metadata: dict[str, Any] | None,
    duration_ns: int,
    raised: PluginViolationError | None = None,
) -> None:
    """End the call with this plugin's denial."""
    call.eventful = True
    call.halted_by = step
    call.violation = violation
    call.denial_metadata = copy_tree(denial_metadata)
    call.violation_error = raised
    logger.warning(
        "Plugin %s denied hook %s of request %s: %s",
        step.name,
        call.plan.hook,
        call.request_id,
        f"{violation.reason} ({violation.code}): {violation.description}" if violation else "no violation given",
    )
    call.trail.append(
        step.record(
            duration_ns,
            requested_allow=False,
            effective_allow=False,
            matched=True,
            applied=True,
            reason=_truncate_opt(violation.reason if violation else None),
            error_code=_truncate_opt(violation.code if violation else None),
        )
    )


def _gather(call: ExecutionContext, step: Step, result: PluginResult[Any]) -> None:
    """Take over what every answer may carry, whatever the mode: metadata, headers, retry delay."""
    # Nothing counts before all of it has proved usable: assigned fields of a result are not validated.
    metadata, headers = call.metadata, call.http_headers
    if result.metadata:
        # Copies: a plugin that tells of a dictionary it goes on writing to must not write into what the host keeps.
        told = {
            key: copy_tree(value)
            for key, value in result.metadata.items()
            if key not in RESERVED_INTERNAL_METADATA_KEYS
        }
        metadata = {**(metadata or {}), **told}
    if result.http_headers:
        headers = {**(headers or {}), **result.http_headers}
    delay = max(call.retry_delay_ms, result.retry_delay_ms or 0)
    call.metadata, call.http_headers, call.retry_delay_ms = metadata, headers, delay


def own_violation(given: Any, plugin: str) -> PluginViolation | None:
    """A plugin's violation as the host gets it: an object of its own, with texts where there must be texts.

    Values that were assigned or came past validation may be anything; a malformed violation is replaced by one that
    says so.
    """
    if given is None:
        return None
    try:
        own: PluginViolation = (
            copy_tree(given) if isinstance(given, PluginViolation) else PluginViolation.model_validate(given)
        )
        if not all(isinstance(text, str) for text in (own.reason, own.description, own.code)):
            own = PluginViolation.model_validate(own.model_dump(warnings=False))
        own._plugin_name = plugin
    # Whatever a malformed violation does when it is looked at, it is a denial.
    except Exception as error:
        logger.warning("Plugin %s gave a malformed violation", plugin, exc_info=tellable(error))
        text = "the plugin gave a malformed violation"
        own = PluginViolation(reason=text, description=text, code="plugin_violation")
        # Not by the property, which refuses the blank names that only configurations made by hand can have.
        own._plugin_name = plugin
    return own


def foreign_result(step: Step, result: Any) -> ForeignResult:
    """The failure of a handler that returned no `PluginResult`."""
    if asyncio.iscoroutine(result):
        result.close()
        return ForeignResult(f"plugin {step.name} returned a coroutine that was never awaited; expected a PluginResult")
    return ForeignResult(f"plugin {step.name} returned {type(result).__name__}; expected a PluginResult")
