"""OpenTelemetry spans of what goes through the hooks: of a tool call, of the hooks around it, and of each plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from cpex.builtins.observability._events import outcome_of
from cpex.builtins.observability._facts import entity_of, requester_of, session_of
from cpex.builtins.observability._observer import HookCall, HookObserver
from cpex.builtins.observability._operation_span import HookSpans, OperationSpan
from cpex.builtins.observability._operations import Half, Key, Operation, Operations, family_of, is_over
from cpex.builtins.observability._span import (
    content_attributes,
    parent_context,
    request_attributes,
    span_name,
    time_ns,
)
from cpex.builtins.observability._tracing import TracerSource, set_error
from cpex.builtins.observability.otel_provider import OpenTelemetryProvider, in_live_call
from cpex.framework import ControlExecutionStatus, PluginConfig, clock
from cpex.framework.models import HookOutcome

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["RequestTracerPlugin", "RequestTracerSettings"]

_HAD_TURN = frozenset({ControlExecutionStatus.COMPLETED})


class RequestTracerSettings(BaseModel, extra="forbid", frozen=True):
    """Settings of the tracer."""

    record_arguments: bool = False
    """Puts arguments and results of tool calls into attributes; values under secret keys are masked."""
    max_attribute_bytes: int = Field(default=8_192, gt=0)
    """Arguments or a result beyond this size are replaced by a note."""
    record_user: bool = False
    """Puts the user's id into the attribute `user.id`."""
    plugin_spans: bool = True
    """Makes spans of hook calls and of the plugins in them, below that of the operation."""
    max_open: int = Field(default=10_000, ge=1)
    """How many operations may be between their pre and post hook; beyond it the oldest span is ended as incomplete."""
    max_age_s: float = Field(default=3_600.0, gt=0)
    """Seconds after which a span whose post hook never came is ended as incomplete."""


class RequestTracerPlugin(HookObserver):
    """Makes one span of an operation, from its pre hook to its post hook; below it, one of each hook call and plugin.

    A hook without a partner, or whose partner is not configured, gets a span of its own. A span is a child of what the
    request or the host names as its parent. Failures of OpenTelemetry reach no call.

    It is an `ObservabilityProvider` as well: a host that sets `manager.observability = manager.get_plugin(name)` gets
    the spans of hook calls and plugins live.

    Source: docs/plugins/request_tracer.md.
    """

    settings_model = RequestTracerSettings

    def __init__(self, config: PluginConfig, *, tracer_provider: TracerProvider | None = None) -> None:
        """Validate the settings.

        Args:
            tracer_provider: Where spans go, instead of the process's OpenTelemetry provider.

        Raises:
            pydantic.ValidationError: A setting is unknown or has a value that is not allowed.
        """
        super().__init__(config)
        self._settings = RequestTracerSettings.model_validate(config.config or {})
        self._source = TracerSource(config.name, tracer_provider)
        self._live = OpenTelemetryProvider(tracer_provider=tracer_provider, name=config.name)
        self._hook_spans = HookSpans(self._source, config.name)
        self._operations: Operations[OperationSpan] = Operations(
            limit=self._settings.max_open, max_age_s=self._settings.max_age_s, forget=self._end_incomplete
        )

    async def shutdown(self) -> None:
        """End every open span, marked as incomplete. Exporting them is up to the SDK, which is the host's."""
        self._hook_spans.settle(final=True)
        self._operations.give_up_all()
        self.failures.tell_rest()

    def start_span(
        self,
        trace_id: str,
        name: str,
        kind: str = "internal",
        resource_type: str | None = None,
        resource_name: str | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> str | None:
        """Open a live span; see `OpenTelemetryProvider`."""
        return self._live.start_span(trace_id, name, kind, resource_type, resource_name, attributes)

    def end_span(self, span_id: str | None, status: str = "ok", attributes: dict[str, Any] | None = None) -> None:
        """Close a live span; see `OpenTelemetryProvider`."""
        self._live.end_span(span_id, status, attributes)

    async def on_call(self, call: HookCall) -> None:
        """Note the plugin's turn in its operation."""
        request_id = call.context.global_context.request_id
        key = _key(call.hook, call.payload, request_id)
        operation = self._operations.find(key, call.hook, "turn")
        session = session_of(call.context, call.extensions)
        attributes = request_attributes(call.hook, call.payload, request_id=request_id, session=session)
        if self._settings.record_user and (user := requester_of(call.context.global_context)):
            attributes["user.id"] = user
        if self._settings.record_arguments:
            attributes |= content_attributes(call.payload, self._settings.max_attribute_bytes)
        if operation is None:
            operation = self._open(key, call, attributes, parent_context(call.payload, call.extensions))
        operation.value.set_attributes(attributes)
        operation.value.add_event(call.hook, {})
        self._close_if_over(operation, call.hook, "turn")

    async def on_outcome(self, outcome: HookOutcome) -> None:
        """Note a decision in its operation, and make the spans that are known by it."""
        from opentelemetry.context import get_current

        # Both by the framework's clock; this is told a little after the decision.
        decided_ns = time_ns() - (clock.elapsed_ns() - outcome.decided_ns)
        began_ns = decided_ns - outcome.duration_ns
        key = _key(outcome.hook, outcome.payload, outcome.request_id)
        operation = self._operations.find(key, outcome.hook, "decision")
        if operation is None:
            attributes = request_attributes(
                outcome.hook, outcome.payload, request_id=outcome.request_id, session=outcome.session
            )
            operation = self._open(key, outcome, attributes, get_current())
        span = operation.value.made(self._source, began_ns)
        _note_decision(operation.value, span, outcome)
        self._hook_spans.settle()
        # What is not sampled, or goes nowhere, needs no spans below it.
        if self._settings.plugin_spans and span.is_recording() and not in_live_call():
            self._hook_spans.add(span, outcome, began_ns, decided_ns)
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
        self, key: Key, half: HookCall | HookOutcome, attributes: dict[str, Any], parent: Context
    ) -> Operation[OperationSpan]:
        name = span_name(half.hook, entity_of(half.hook, half.payload))
        return self._operations.open(key, OperationSpan(name, parent, time_ns(), dict(attributes)))

    def _close_if_over(self, operation: Operation[OperationSpan], hook: str, half: Half) -> None:
        operation.seen.add((hook, half))
        if is_over(operation, self.hooks):
            self._operations.close(operation)
            operation.value.made(self._source).end(end_time=time_ns())

    def _end_incomplete(self, operation: OperationSpan) -> None:
        try:
            span = operation.made(self._source)
            span.set_attribute("cpex.incomplete", True)
            span.end(end_time=time_ns())
        # Given up in the middle of another operation's turn, or at shutdown: neither may suffer.
        except Exception as error:
            self.failures.report("an operation was not traced", error)


def _key(hook: str, payload: Any, request_id: str) -> Key:
    entity = entity_of(hook, payload)
    return Key(request_id, family_of(hook), entity.name if entity else None)


def _note_decision(operation: OperationSpan, span: Span, outcome: HookOutcome) -> None:
    attributes: dict[str, Any] = {
        "cpex.hook": outcome.hook,
        "cpex.allowed": outcome.allowed,
        "cpex.outcome": outcome_of(outcome),
        "cpex.duration_us": outcome.duration_ns // 1000,
        "cpex.plugins": [f"{each.plugin_name}:{each.status}" for each in outcome.executions if not each.pending],
        "cpex.plugins.would_deny": [
            each.plugin_name for each in outcome.executions if each.requested_allow is False and each.effective_allow
        ],
    }
    violation = outcome.violation
    if violation is not None:
        attributes |= {"cpex.violation.code": violation.code, "cpex.violation.plugin": violation.plugin_name}
    operation.add_event("cpex.decision", attributes)
    if not outcome.allowed:
        code = violation.code if violation is not None else outcome.error_code or "denied"
        span.set_attribute("error.type", code)
        set_error(span, f"{outcome.hook}: {code}")
