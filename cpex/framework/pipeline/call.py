"""The state of one hook call, and what each plugin's answer or failure does to it.

`ExecutionContext` lives as long as one call. It hands out views and contexts, takes answers in, keeps the trail of what
happened, and makes the result. The phases decide who runs when; this module decides what it means.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Protocol

from cpex.framework.clock import elapsed_ns
from cpex.framework.errors import (
    PluginError,
    PluginViolationError,
    attach_denial_outcome,
    convert_exception_to_error,
)
from cpex.framework.extensions import Extensions
from cpex.framework.extensions.tiers import filter_extensions, merge_extensions
from cpex.framework.hooks.policies import DefaultHookPolicy, HookPayloadPolicy
from cpex.framework.memory.size import content_bytes
from cpex.framework.memory.table import ContextTable
from cpex.framework.memory.views import ContextSource, state_changes
from cpex.framework.models import _truncate_opt
from cpex.framework.models.context import GlobalContext, PluginContext
from cpex.framework.models.copying import copy_tree
from cpex.framework.models.mode import ControlExecutionStatus, OnError, PluginMode
from cpex.framework.models.outcome import HookOutcome
from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginErrorModel, PluginResult, PluginViolation
from cpex.framework.pipeline.acceptance import Accepted, Rules, accept
from cpex.framework.pipeline.disabling import Disabled
from cpex.framework.pipeline.plan import HookPlan, Step
from cpex.framework.pipeline.stepping import DeadlineReached, Stepper
from cpex.framework.pipeline.tracing import Tracer
from cpex.framework.pipeline.trail import Trail, result_of

if TYPE_CHECKING:
    # At run time it brings the identity hooks along.
    from cpex.framework.pipeline.identity import ReplyEffects

logger = logging.getLogger("cpex.framework.manager")

DECISION_PLUGIN_METADATA_KEY = "_decision_plugin"
RESERVED_INTERNAL_METADATA_KEYS = frozenset({DECISION_PLUGIN_METADATA_KEY})
HTTP_AUTH_CHECK_PERMISSION_HOOK = "http_auth_check_permission"


class Engine(Protocol):
    """What a call needs of the executor that runs it."""

    timeout: float | None
    """Seconds for each plugin that has no limit of its own; `None` means no limit."""
    hook_timeout_s: float | None
    """Seconds for the whole call; `None` means no limit."""
    max_payload_bytes: int
    hook_policies: dict[str, HookPayloadPolicy]
    default_hook_policy: DefaultHookPolicy
    disabled: Disabled
    idle_steppers: list[Stepper]


class ForeignResult(TypeError):
    """A handler returned something that is not a `PluginResult`."""


class PhaseState:
    """What a call has gathered from the plugins that ran so far.

    The class attributes are the state of a call that nobody has touched: an instance only holds what differs.
    """

    payload_modified = False
    reply: Any = None
    extensions_modified = False
    metadata: dict[str, Any] | None = None
    http_headers: dict[str, str] | None = None
    denial_metadata: dict[str, Any] | None = None
    retry_delay_ms = 0
    decider: str | None = None
    halted_by: Step | None = None
    violation: PluginViolation | None = None
    violation_error: PluginViolationError | None = None
    skipped = 0
    decided_ns = 0
    """When the decision was made, on the clock of `elapsed_ns`."""
    eventful = False
    """Whether any plugin said more than a plain allow."""
    transformed = False
    """Whether the transform phase is through."""
    redaction: Any = None
    """What background work may see of the payload; belongs to `aftermath.py`."""

    def __init__(self, payload: Any, extensions: Extensions | None) -> None:
        self.payload = payload
        self.extensions = extensions
        self.trail = Trail()


class ExecutionContext(PhaseState):
    """One hook call."""

    deadline_ns: int | None = None
    """When the whole call's time is over, on the clock of `elapsed_ns`."""

    def __init__(
        self,
        engine: Engine,
        plan: HookPlan,
        payload: Any,
        global_context: GlobalContext,
        incoming: dict[str, PluginContext] | None,
        extensions: Extensions | None,
        tracer: Tracer | None,
    ) -> None:
        self.payload = payload
        self.extensions = extensions
        self.trail = Trail()
        self.engine = engine
        self.plan = plan
        self.global_context = global_context
        self.request_id = global_context.request_id
        self.source = source = ContextSource(global_context)
        self.table: dict[str, PluginContext]
        self.owed: list[str] | None
        if incoming:
            # Entries of plugins that take no part in this hook travel on to the request's next one.
            self.table, self.owed = dict(incoming), None
        else:
            self.table = table = ContextTable(self.request_id, source)
            self.owed = table.owed
        self.tracer = tracer
        self.started_ns = elapsed_ns()
        # Whether a plugin's turn needs a look at more than its conditions; disabling may begin within this very call.
        self.watched = bool(engine.disabled)
        if engine.hook_timeout_s is not None:
            self.deadline_ns = self.started_ns + int(engine.hook_timeout_s * 1_000_000_000)
            self.watched = True
        # Whether a turn is more than calling the handler with a view and a context.
        self.special = (
            plan.special or self.watched or tracer is not None or plan.smallest_limit < engine.max_payload_bytes
        )

    # What a plugin is handed.

    def context_for(self, step: Step) -> PluginContext:
        """The plugin's context: its own from an earlier hook of the request, or a new one; entered in the table."""
        key = self.request_id + step.uuid
        # Past the table's own bookkeeping: entries that nobody has touched need not be made for this one.
        context = self.source.held(dict.get(self.table, key), self)
        dict.__setitem__(self.table, key, context)
        return context

    def extensions_for(self, step: Step) -> Extensions | None:
        """The slots that the plugin's capabilities open."""
        return filter_extensions(self.extensions, step.capabilities)

    def check_size(self, step: Step) -> None:
        """Hold the plugin's own limit on the payload's content.

        Raises:
            ValueError: The content is over the limit; it counts as the plugin's failure.
        """
        size = content_bytes(_content(self.payload), stop_after=step.max_bytes)
        if size > step.max_bytes:
            raise ValueError(f"Payload size exceeds limit of {step.max_bytes} bytes for plugin {step.name}")

    def limit_of(self, step: Step) -> float | None:
        """Seconds that the plugin may take: its own limit, else the manager's."""
        return step.timeout_s if step.timeout_s is not None else self.engine.timeout

    def seconds_for(self, step: Step, started_ns: int) -> float | None:
        """Seconds that the plugin has left, by its own deadline and the call's."""
        limit = self.limit_of(step)
        now = elapsed_ns()
        left = None if limit is None else limit - (now - started_ns) / 1e9
        if self.deadline_ns is None:
            return left
        of_call = (self.deadline_ns - now) / 1e9
        return of_call if left is None else min(left, of_call)

    def past_deadline(self) -> bool:
        """Whether the whole call's time is over."""
        return self.deadline_ns is not None and elapsed_ns() >= self.deadline_ns

    # What a plugin answered.

    def share_state(self, context: PluginContext) -> None:
        """Carry the plugin's writes to shared state into the host's context."""
        try:
            changes = state_changes(context, self.global_context)
        # Containers of the plugin's own run their code here. Its answer has been taken, and stands.
        except Exception:
            logger.warning(
                "What a plugin of hook %s wrote to shared state cannot be read", self.plan.hook, exc_info=True
            )
            return
        for change in changes:
            change.apply(self.global_context)

    def gather(self, step: Step, result: PluginResult[Any]) -> None:
        """Take over what every answer may carry, whatever the mode: metadata, headers, retry delay."""
        # Nothing counts before all of it has proved usable: assigned fields of a result are not validated.
        metadata, headers = self.metadata, self.http_headers
        if result.metadata:
            told = {key: value for key, value in result.metadata.items() if key not in RESERVED_INTERNAL_METADATA_KEYS}
            metadata = {**(metadata or {}), **told}
        if result.http_headers:
            headers = {**(headers or {}), **result.http_headers}
        delay = max(self.retry_delay_ms, result.retry_delay_ms or 0)
        self.metadata, self.http_headers, self.retry_delay_ms = metadata, headers, delay

    def answered(self, step: Step, view: Any, result: Any, duration_ns: int) -> None:
        """Take in an answer that is not a plain allow.

        Raises:
            ForeignResult: It is no answer at all.
            TierViolationError, ForeignPayload, pydantic.ValidationError: It carries a change that cannot be.
        """
        if not isinstance(result, PluginResult):
            raise foreign_result(step, result)
        self.eventful = True
        effects = self.plan.effects
        refusal = effects.refusal(result, step.name) if effects is not None else None
        denied = refusal is not None or not result.continue_processing
        violation = own_violation(result.violation if refusal is None else refusal, step.name) if denied else None
        if denied and step.blocks:
            self._gather_beside_denial(step, view, result, refused=refusal is not None)
            self.halt(step, violation, result.denial_metadata, duration_ns)
            return
        extensions = self._judge_extensions(step, result) if step.rewrites else None
        accepted = self._judge_payload(step, view, result) if step.rewrites else None
        if effects is not None and accepted is not None and accepted.is_reply:
            extensions = self._judge_effects(effects, step, extensions, accepted.reply)
        self.gather(step, result)
        if extensions is not None:
            self.extensions, self.extensions_modified = extensions, True
        if accepted is not None:
            self._take_payload(step, accepted)
        changed = accepted is not None or extensions is not None
        changes: dict[str, Any] = {
            "matched": changed,
            "applied": changed,
            "payload_modified": accepted is not None,
            "extensions_modified": extensions is not None,
        }
        if denied:
            changes |= self._would_deny(step, violation)
        self.trail.append(step.record(duration_ns, **changes))

    def rules(self) -> Rules:
        """What may be written in this hook."""
        return Rules(self.engine.hook_policies.get(self.plan.hook), self.engine.default_hook_policy)

    def _judge_payload(self, step: Step, view: Any, result: PluginResult[Any]) -> Accepted | None:
        returned = result.modified_payload
        if returned is None:
            return None
        return accept(
            self.plan, self.rules(), step.name, current=self.payload, shown=view, returned=returned, reply=self.reply
        )

    def _take_payload(self, step: Step, accepted: Accepted) -> None:
        if accepted.is_reply:
            self.reply = accepted.reply
        else:
            self.payload = accepted.payload
        self.payload_modified = True
        self.decider = step.name

    def _judge_extensions(self, step: Step, result: PluginResult[Any]) -> Extensions | None:
        """The container that this answer makes, or `None` when it changes nothing."""
        returned = result.modified_extensions
        if returned is None:
            return None
        before = self.extensions if self.extensions is not None else Extensions()
        merged = merge_extensions(before, returned, step.capabilities, step.name, scope_mapping=step.scope_mapping)
        return None if merged is before else merged

    def _judge_effects(
        self, effects: ReplyEffects, step: Step, extensions: Extensions | None, reply: Any
    ) -> Extensions | None:
        """The same, with what the reply does to extensions, which the answer itself may have changed."""
        before = extensions if extensions is not None else self.extensions
        before = before if before is not None else Extensions()
        after = effects.extensions(before, reply, step.name, step.scope_mapping)
        return extensions if after is before else after

    def _gather_beside_denial(self, step: Step, view: Any, result: PluginResult[Any], *, refused: bool) -> None:
        try:
            if refused and step.rewrites:
                # The reply of a refusal goes out beside the violation, for hosts that look for it there.
                accepted = self._judge_payload(step, view, result)
                if accepted is not None:
                    self._take_payload(step, accepted)
            self.gather(step, result)
        # SECURITY: a denial stands. If unusable metadata made it a failure, `on_error: ignore` would let the call pass.
        except Exception:
            logger.warning("Plugin %s: what it said beside its denial cannot be used", step.name, exc_info=True)

    def _would_deny(self, step: Step, violation: PluginViolation | None) -> dict[str, Any]:
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
            logger.warning(
                "Plugin %s denied in %s mode with no violation given; the call goes on", step.name, step.mode
            )
        return {
            "requested_allow": False,
            "matched": True,
            "reason": _truncate_opt(reason),
            "error_code": _truncate_opt(violation.code if violation is not None else None),
        }

    def halt(
        self,
        step: Step,
        violation: PluginViolation | None,
        denial_metadata: dict[str, Any] | None,
        duration_ns: int,
        raised: PluginViolationError | None = None,
    ) -> None:
        """End the call with this plugin's denial."""
        self.eventful = True
        self.halted_by = step
        self.violation = violation
        self.denial_metadata = denial_metadata
        self.violation_error = raised
        logger.warning(
            "Plugin %s denied hook %s of request %s: %s",
            step.name,
            self.plan.hook,
            self.request_id,
            f"{violation.reason} ({violation.code}): {violation.description}" if violation else "no violation given",
        )
        self.trail.append(
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

    # How a plugin failed.

    def failed(self, step: Step, error: BaseException, duration_ns: int) -> None:
        """Take in what a handler raised: return if the call goes on (or is halted), raise if it fails.

        Raises:
            PluginError: The failure ends the call.
            BaseException: A cancellation, or another signal that is not the plugin's to give.
        """
        if isinstance(error, PluginViolationError):
            self._violated(step, error, duration_ns)
            return
        if not isinstance(error, Exception):
            self.trail.append(step.cancelled(duration_ns))
            try:
                raise error
            finally:
                # Its traceback refers to this frame: a cycle that would keep the call alive.
                del error
        if isinstance(error, DeadlineReached):
            if self.past_deadline():
                raise self.out_of_time(step, duration_ns) from error
            status, code = ControlExecutionStatus.TIMEOUT, "plugin_timeout"
            failure = PluginErrorModel(
                message=self.timeout_text(step), plugin_name=step.name, code=code, details={"hook": self.plan.hook}
            )
        else:
            status, code = ControlExecutionStatus.ERROR, "plugin_error"
            failure = error.error if isinstance(error, PluginError) else convert_exception_to_error(error, step.name)
        fatal = step.on_error is OnError.FAIL and step.mode is not PluginMode.AUDIT
        self.trail.append(
            step.record(
                duration_ns,
                status=status,
                requested_allow=None,
                effective_allow=not fatal,
                matched=None,
                applied=fatal or (status is ControlExecutionStatus.TIMEOUT and step.mode is PluginMode.SEQUENTIAL),
                reason=_truncate_opt(failure.message),
                error_code=code,
            )
        )
        logger.error(
            "Plugin %s failed in hook %s (on_error: %s): %s",
            step.name,
            self.plan.hook,
            step.on_error,
            failure.message,
            exc_info=None if fatal or status is ControlExecutionStatus.TIMEOUT else error,
        )
        if fatal:
            raise self._plugin_error(failure, error)
        if step.on_error is OnError.DISABLE:
            self.engine.disabled.disable(step.name)
            self.watched = self.special = True

    def _violated(self, step: Step, error: PluginViolationError, duration_ns: int) -> None:
        """A raised violation is the same as that denial returned."""
        given: Any = error.violation
        if given is None:
            given = PluginViolation(reason=error.message, description=error.message, code="plugin_violation")
        violation = error.violation = own_violation(given, step.name)
        if self.engine.disabled:
            self.engine.disabled.passed(step)
        if step.blocks:
            self.halt(step, violation, None, duration_ns, raised=error)
        else:
            self.trail.append(step.record(duration_ns, **self._would_deny(step, violation)))

    def timeout_text(self, step: Step) -> str:
        """The message of a plugin's timeout."""
        return f"Plugin {step.name} exceeded {self.limit_of(step):g}s timeout"

    def out_of_time(self, step: Step, duration_ns: int) -> PluginError:
        """The failure of a call whose own time is over, blamed on the plugin whose turn it is."""
        text = f"Hook {self.plan.hook} exceeded its time while plugin {step.name} was running"
        self.trail.append(
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
        return self._plugin_error(PluginErrorModel(message=text, plugin_name=step.name, code="hook_timeout"), None)

    def _plugin_error(self, failure: PluginErrorModel, cause: BaseException | None) -> PluginError:
        error = cause if isinstance(cause, PluginError) else PluginError(failure)
        error.executions = self.records()
        if cause is not None and cause is not error and not isinstance(cause, DeadlineReached):
            error.__cause__ = cause
        return error

    # What the host gets.

    def records(self) -> list[ControlExecutionRecord]:
        """The trail in full. Every call returns the same record objects in a list of its own."""
        return self.trail.records()

    def result(self, background_tasks: list[asyncio.Task[Any]] | None) -> PluginResult[Any]:
        """The merged result of the call."""
        if self.decider is not None and self.plan.hook == HTTP_AUTH_CHECK_PERMISSION_HOOK:
            self.metadata = {**(self.metadata or {}), DECISION_PLUGIN_METADATA_KEY: self.decider}
        if not self.eventful:
            return result_of(self.trail, self.metadata, background_tasks)
        changes = {
            "continue_processing": self.halted_by is None,
            "modified_payload": self.final_change() if self.payload_modified else None,
            "modified_extensions": self.extensions if self.extensions_modified else None,
            "violation": self.violation,
            "denial_metadata": self.denial_metadata,
            "http_headers": self.http_headers,
            "retry_delay_ms": self.retry_delay_ms,
        }
        return result_of(self.trail, self.metadata, background_tasks, changes)

    def final_change(self) -> Any:
        """The reply if there is one, else the chain's payload."""
        return self.reply if self.reply is not None else self.payload

    def violation_exception(self) -> PluginViolationError:
        """The denial as an exception, with records and outcome."""
        step, violation = self.halted_by, self.violation
        assert step is not None  # only asked for after a halt
        error = self.violation_error
        if error is None:
            message = f"{self.plan.hook} blocked by plugin"
            if violation is not None:
                message += f" {step.name}: {violation.code} - {violation.reason} ({violation.description})"
            error = PluginViolationError(message, violation=violation)
        error.executions = self.records()
        # Not simply the last one: siblings that were cancelled come behind it.
        denials = [each for each in error.executions if each.plugin_id == step.uuid and each.requested_allow is False]
        if violation is None:
            # The exception's text is all there is to say about a denial without a violation.
            denials[-1].reason, denials[-1].error_code = _truncate_opt(error.message), "plugin_violation"
        attach_denial_outcome(error, denials[-1], self.denial_metadata)
        return error

    def outcome(self, error: BaseException | None) -> HookOutcome:
        """What observers are told, but for the payload."""
        context = self.global_context
        return HookOutcome(
            hook=self.plan.hook,
            request_id=self.request_id,
            allowed=error is None and self.halted_by is None,
            violation=self.violation,
            payload=None,
            executions=self.records(),
            duration_ns=self.decided_ns - self.started_ns,
            decided_ns=self.decided_ns,
            session=session_of(context, self.extensions),
            user=copy_tree(context.user),
            tenant_id=context.tenant_id,
            error_code=_error_code(error),
        )


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
    # Whatever a malformed violation does when it is looked at, it is a denial.
    except Exception:
        logger.warning("Plugin %s gave a malformed violation", plugin, exc_info=True)
        text = "the plugin gave a malformed violation"
        own = PluginViolation(reason=text, description=text, code="plugin_violation")
    own.plugin_name = plugin
    return own


def session_of(context: GlobalContext, extensions: Extensions | None) -> str | None:
    """The conversation: the agent extension's session, else the one in the request's metadata."""
    if extensions is not None and extensions.agent is not None and extensions.agent.session_id:
        return extensions.agent.session_id
    session = context.metadata.get("session_id")
    return session if isinstance(session, str) else None


def foreign_result(step: Step, result: Any) -> ForeignResult:
    """The failure of a handler that returned no `PluginResult`."""
    if asyncio.iscoroutine(result):
        result.close()
        return ForeignResult(f"plugin {step.name} returned a coroutine that was never awaited; expected a PluginResult")
    return ForeignResult(f"plugin {step.name} returned {type(result).__name__}; expected a PluginResult")


def _error_code(error: BaseException | None) -> str | None:
    if error is None:
        return None
    if isinstance(error, PluginError):
        return error.error.code or "plugin_error"
    return "cancelled" if isinstance(error, asyncio.CancelledError) else type(error).__name__


def _content(payload: Any) -> Any:
    values = getattr(payload, "__dict__", None)
    return list(values.values()) if isinstance(values, dict) else payload
