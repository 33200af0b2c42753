"""One handler called by itself, for hosts that address a plugin by name (`invoke_hook_for_plugin`, plugin servers)."""

from __future__ import annotations

from contextvars import copy_context
from typing import Any

from cpex.framework.base import HookRef
from cpex.framework.errors import (
    PluginError,
    PluginTimeoutError,
    PluginViolationError,
    convert_exception_to_error,
    denial_in,
)
from cpex.framework.extensions import Extensions
from cpex.framework.extensions.tiers import filter_extensions
from cpex.framework.memory.views import state_changes
from cpex.framework.models.context import GlobalContext, PluginContext
from cpex.framework.models.mode import OnError, PluginMode
from cpex.framework.models.result import PluginErrorModel, PluginResult, PluginViolation
from cpex.framework.pipeline.answers import foreign_result
from cpex.framework.pipeline.call import RESERVED_INTERNAL_METADATA_KEYS
from cpex.framework.pipeline.disabling import Disabled
from cpex.framework.pipeline.log import manager_logger as logger
from cpex.framework.pipeline.plan import Step, compile_step
from cpex.framework.pipeline.stepping import DeadlineReached, carry_on


async def run_single(
    hook_ref: HookRef,
    payload: Any,
    context: PluginContext,
    *,
    timeout_s: float | None,
    raises: bool,
    global_context: GlobalContext | None,
    metadata: dict[str, Any] | None,
    extensions: Extensions | None,
    disabled: Disabled,
) -> PluginResult[Any]:
    """Call one handler; see `Executor.execute_plugin`.

    Args:
        raises: Whether a denial in a blocking mode is raised.
        global_context: Receives the plugin's writes to shared state, when given.
        metadata: Receives the result's metadata, when given.
    """
    step = compile_step(hook_ref.name, hook_ref)
    limit = step.timeout_s if step.timeout_s is not None else timeout_s
    try:
        result = await call_handler(step, payload, context, filter_extensions(extensions, step.capabilities), limit)
    except PluginViolationError as error:
        result = PluginResult(continue_processing=False, violation=error.violation or _violation_of(error))
        if raises and step.blocks:
            result.violation.plugin_name = step.name  # type: ignore[union-attr]  # set in the line above
            raise
    except DeadlineReached as error:
        text = f"Plugin {step.name} exceeded {limit:g}s timeout"
        if step.on_error is OnError.FAIL:
            failure = PluginErrorModel(message=text, plugin_name=step.name, code="plugin_timeout")
            raise PluginError(failure) from error
        _note_failure(step, text, disabled)
        raise PluginTimeoutError(text) from error
    # Plugin boundary.
    except Exception as error:
        if step.on_error is OnError.FAIL:
            if isinstance(error, PluginError):
                raise
            raise PluginError(convert_exception_to_error(error, step.name)) from error
        _note_failure(step, convert_exception_to_error(error, step.name).message, disabled)
        return PluginResult()
    return _settle(step, result, context, raises, global_context, metadata)


async def call_handler(
    step: Step, payload: Any, context: PluginContext, extensions: Extensions | None, limit: float | None
) -> PluginResult[Any]:
    """Call a handler and hand over what it answered, whatever its mode and `on_error` would make of it.

    Args:
        extensions: What the plugin may see; filtered already.
        limit: Seconds; `None` means no limit.

    Raises:
        DeadlineReached: The time ran out.
        PluginError: The answer is no `PluginResult`.
        Exception: Whatever the handler raises; a denial out of a task group as the denial.
    """
    variables = copy_context()
    coroutine: Any = step.call(payload, context, extensions) if step.takes_extensions else step.call(payload, context)
    try:
        waiting = variables.run(coroutine.send, None)
        result = await carry_on(coroutine, variables, waiting, limit)
    except StopIteration as stop:
        result = stop.value
    except ExceptionGroup as group:
        if (denial := denial_in(group)) is not None:
            raise denial from None
        raise
    if not isinstance(result, PluginResult):
        raise foreign_result(step, result)
    return result


async def answer_of(
    step: Step, payload: Any, context: PluginContext, extensions: Extensions | None, limit: float
) -> PluginResult[Any]:
    """What a plugin's handler says, for another process that decides what it means there.

    Args:
        extensions: All that the asking process showed; the plugin sees of it what its capabilities open.
        limit: Seconds.

    Returns:
        The answer. Raising a denial is the same as returning it, also across processes.

    Raises:
        PluginError: The time ran out, with code `plugin_timeout`, or the answer is no `PluginResult`.
        Exception: Whatever the handler raises.
    """
    visible = filter_extensions(extensions, step.capabilities) if step.takes_extensions else None
    try:
        return await call_handler(step, payload, context, visible, limit)
    except PluginViolationError as error:
        return PluginResult(continue_processing=False, violation=error.violation or _violation_of(error))
    except DeadlineReached as error:
        text = f"Plugin {step.name} exceeded {limit:g}s timeout"
        raise PluginError(PluginErrorModel(message=text, plugin_name=step.name, code="plugin_timeout")) from error


def _settle(
    step: Step,
    result: PluginResult[Any],
    context: PluginContext,
    raises: bool,
    global_context: GlobalContext | None,
    metadata: dict[str, Any] | None,
) -> PluginResult[Any]:
    if global_context is not None and step.shares:
        for change in state_changes(context, global_context):
            change.apply(global_context)
    if metadata is not None and result.metadata:
        metadata.update({k: v for k, v in result.metadata.items() if k not in RESERVED_INTERNAL_METADATA_KEYS})
    if result.violation is not None:
        result.violation.plugin_name = step.name
    if result.continue_processing:
        return result
    if step.blocks:
        logger.warning("Plugin %s denied hook %s", step.name, step.ref.name)
        if raises:
            raise _exception(step, result.violation)
        return PluginResult(
            continue_processing=False,
            violation=result.violation,
            metadata=metadata,
            denial_metadata=result.denial_metadata,
        )
    if step.mode in (PluginMode.TRANSFORM, PluginMode.AUDIT):
        logger.warning("Plugin %s raised violation in %s mode, so the call goes on", step.name, step.mode)
        changed = result.modified_payload if step.rewrites else None
        return PluginResult(modified_payload=changed, metadata=metadata)
    return result


def _violation_of(error: PluginViolationError) -> PluginViolation:
    return PluginViolation(reason=error.message, description=error.message, code="plugin_violation")


def _exception(step: Step, violation: PluginViolation | None) -> PluginViolationError:
    message = f"{step.ref.name} blocked by plugin"
    if violation is not None:
        message += f" {step.name}: {violation.code} - {violation.reason} ({violation.description})"
    return PluginViolationError(message, violation=violation)


def _note_failure(step: Step, text: str, disabled: Disabled) -> None:
    logger.error("Plugin %s failed in hook %s (on_error: %s): %s", step.name, step.ref.name, step.on_error, text)
    if step.on_error is OnError.DISABLE:
        disabled.disable(step.name)
