"""OpenTelemetry spans of what goes through the hooks: one for a tool call, with what was decided about it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from cpex.builtins.observability._facts import entity_of, requester_of, session_of
from cpex.builtins.observability._observer import HookCall, HookObserver
from cpex.builtins.observability._operations import Half, Key, Operation, Operations, family_of, is_over
from cpex.builtins.observability._span import (
    content_attributes,
    parent_context,
    request_attributes,
    span_name,
    time_ns,
)
from cpex.framework import ControlExecutionStatus, PluginConfig
from cpex.framework.models import HookOutcome

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, Tracer, TracerProvider

__all__ = ["RequestTracerPlugin", "RequestTracerSettings"]

logger = logging.getLogger(__name__)

SCOPE = "cpex"
"""Name of the instrumentation scope."""

_HAD_TURN = frozenset({ControlExecutionStatus.COMPLETED})


class RequestTracerSettings(BaseModel, extra="forbid", frozen=True):
    """Settings of the tracer."""

    record_arguments: bool = False
    """Puts arguments and results of tool calls into attributes; values under secret keys are masked."""
    max_attribute_bytes: int = Field(default=8_192, gt=0)
    """Arguments or a result beyond this size are replaced by a note."""
    record_user: bool = False
    """Puts the user's id into the attribute `user.id`."""
    max_open: int = Field(default=10_000, ge=1)
    """How many operations may be between their pre and post hook; beyond it the oldest span is ended as incomplete."""
    max_age_s: float = Field(default=3_600.0, gt=0)
    """Seconds after which a span whose post hook never came is ended as incomplete."""


class RequestTracerPlugin(HookObserver):
    """Makes one span of an operation: from its pre hook to its post hook, with an event for each turn and decision.

    A hook without a partner, or whose partner is not configured, gets a span of its own. A span is a child of what the
    request or the host names as its parent. Failures of OpenTelemetry reach no call.

    Source: docs/plugins/request_tracer.md.
    """

    def __init__(self, config: PluginConfig, *, tracer_provider: TracerProvider | None = None) -> None:
        """Validate the settings.

        Args:
            tracer_provider: Where spans go, instead of the process's OpenTelemetry provider.

        Raises:
            pydantic.ValidationError: A setting is unknown or has a value that is not allowed.
        """
        super().__init__(config)
        self._settings = RequestTracerSettings.model_validate(config.config or {})
        self._provider = tracer_provider
        self._tracer: Tracer | None = None
        self._operations: Operations[Span] = Operations(
            limit=self._settings.max_open, max_age_s=self._settings.max_age_s, forget=_end_incomplete
        )

    async def shutdown(self) -> None:
        """End every open span, marked as incomplete. Exporting them is up to the SDK, which is the host's."""
        self._operations.give_up_all()
        self.failures.tell_rest()

    async def on_call(self, call: HookCall) -> None:
        """Note the plugin's turn in the operation's span, making it if this is its first half."""
        request_id = call.context.global_context.request_id
        key = _key(call.hook, call.payload, request_id)
        operation = self._operations.find(key, call.hook, "turn")
        session = session_of(call.context, call.extensions)
        attributes = request_attributes(call.hook, call.payload, request_id=request_id, session=session)
        if operation is None:
            operation = self._open(key, call, attributes, parent_context(call.payload, call.extensions))
        span = operation.value
        span.set_attributes(attributes)
        if self._settings.record_user and (user := requester_of(call.context.global_context)):
            span.set_attribute("user.id", user)
        if self._settings.record_arguments:
            span.set_attributes(content_attributes(call.payload, self._settings.max_attribute_bytes))
        span.add_event(call.hook, timestamp=time_ns())
        self._close_if_over(operation, call.hook, "turn")

    async def on_outcome(self, outcome: HookOutcome) -> None:
        """Note a decision in the operation's span, making it if this is its first half."""
        key = _key(outcome.hook, outcome.payload, outcome.request_id)
        operation = self._operations.find(key, outcome.hook, "decision")
        if operation is None:
            attributes = request_attributes(
                outcome.hook, outcome.payload, request_id=outcome.request_id, session=outcome.session
            )
            operation = self._open(key, outcome, attributes, None, started_ns=time_ns() - outcome.duration_ns)
        _note_decision(operation.value, outcome)
        if not self._turn_is_coming(outcome):
            operation.seen.add((outcome.hook, "turn"))
        if not outcome.allowed:
            operation.ended_by.add(outcome.hook)
        self._close_if_over(operation, outcome.hook, "decision")

    def _turn_is_coming(self, outcome: HookOutcome) -> bool:
        """Whether the plugin had or will have its turn in this call, so that both halves are worth waiting for."""
        record = self.own_record(outcome)
        if record is None or outcome.payload is None:
            return False
        return record.pending or record.status in _HAD_TURN

    def _open(
        self,
        key: Key,
        half: HookCall | HookOutcome,
        attributes: dict[str, Any],
        parent: Context | None,
        started_ns: int | None = None,
    ) -> Operation[Span]:
        span = self._get_tracer().start_span(
            span_name(half.hook, entity_of(half.hook, half.payload)),
            context=parent,
            attributes=attributes,
            start_time=started_ns if started_ns is not None else time_ns(),
        )
        return self._operations.open(key, span)

    def _close_if_over(self, operation: Operation[Span], hook: str, half: Half) -> None:
        operation.seen.add((hook, half))
        if is_over(operation, self.hooks):
            self._operations.close(operation)
            operation.value.end(end_time=time_ns())

    def _get_tracer(self) -> Tracer:
        """The tracer, asked for at the first span: a host may set its SDK up after its plugins."""
        if self._tracer is None:
            from opentelemetry import trace

            provider = self._provider or trace.get_tracer_provider()
            if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
                logger.warning(
                    "Plugin '%s': no OpenTelemetry SDK is configured in this process, so spans are made but nothing is "
                    "exported; install `cpex[otel]` and set a tracer provider",
                    self.name,
                )
            self._tracer = provider.get_tracer(SCOPE)
        return self._tracer


def _key(hook: str, payload: Any, request_id: str) -> Key:
    entity = entity_of(hook, payload)
    return Key(request_id, family_of(hook), entity.name if entity else None)


def _note_decision(span: Span, outcome: HookOutcome) -> None:
    from opentelemetry.trace import Status, StatusCode

    attributes: dict[str, Any] = {
        "cpex.hook": outcome.hook,
        "cpex.allowed": outcome.allowed,
        "cpex.duration_us": outcome.duration_ns // 1000,
        "cpex.plugins": [f"{each.plugin_name}:{each.status}" for each in outcome.executions if not each.pending],
        "cpex.plugins.would_deny": [
            each.plugin_name for each in outcome.executions if each.requested_allow is False and each.effective_allow
        ],
    }
    violation = outcome.violation
    if violation is not None:
        attributes |= {"cpex.violation.code": violation.code, "cpex.violation.plugin": violation.plugin_name}
    span.add_event("cpex.decision", attributes, timestamp=time_ns())
    if not outcome.allowed:
        code = violation.code if violation is not None else outcome.error_code or "denied"
        span.set_attribute("error.type", code)
        span.set_status(Status(StatusCode.ERROR, f"{outcome.hook}: {code}"))


def _end_incomplete(span: Span) -> None:
    span.set_attribute("cpex.incomplete", True)
    span.end(end_time=time_ns())
