"""The framework's tracing port on OpenTelemetry: live spans of hook calls and of each plugin's turn in them.

The tracer plugin makes its spans when a call is decided, from what the framework noted; a provider is told of each
start and end as it happens. Which of both a host wants is its choice, and both may be used at once.

Source: docs/plugins/request_tracer.md, "Live spans".
"""

from __future__ import annotations

import re
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpex.builtins.observability._span import same_trace, time_ns, traceparent_context
from cpex.builtins.observability._tracing import TracerSource, present, set_error

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, TracerProvider

__all__ = ["OpenTelemetryProvider"]

MAX_OPEN = 100_000
"""Spans that may be open at once. The framework closes every span; a host that starts its own may not."""

_TRACE_ID = re.compile(r"[0-9a-fA-F]{32}")


@dataclass(frozen=True, slots=True)
class _Open:
    span: Span
    trace_id: str
    around: _Open | None
    """The span that was the parent of new ones before this one was."""


_chain: ContextVar[_Open | None] = ContextVar("cpex_otel_chain", default=None)
"""The hook call that this context is in. Plugins that run side by side have a context each."""


def in_live_call() -> bool:
    """Whether a provider is making spans of the hook call that this context belongs to."""
    return _chain.get() is not None


class OpenTelemetryProvider:
    """An `ObservabilityProvider`: `PluginManager(…, observability=OpenTelemetryProvider())`.

    The host names the trace of a request in `cpex.framework.observability.current_trace_id`: the request's
    `traceparent` header as it is, or a trace id of 32 hexadecimal digits. Spans become children of the host's current
    span where that belongs to the trace.
    """

    def __init__(self, *, tracer_provider: TracerProvider | None = None, name: str = "observability") -> None:
        """Prepare.

        Args:
            tracer_provider: Where spans go, instead of the process's OpenTelemetry provider.
            name: Who this is in the log.
        """
        self._tracer = TracerSource(name, tracer_provider)
        self._open: dict[str, _Open] = {}

    def start_span(
        self,
        trace_id: str,
        name: str,
        kind: str = "internal",
        resource_type: str | None = None,
        resource_name: str | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> str | None:
        """Open a span and return its id; `None` when too many are open."""
        if len(self._open) >= MAX_OPEN:
            return None
        around = _chain.get()
        if around is not None and around.trace_id != trace_id:
            around = None
        given = present(
            {"cpex.resource.type": resource_type, "cpex.resource.name": resource_name, **(attributes or {})}
        )
        span = self._tracer.get().start_span(
            name, context=_parent(trace_id, around), attributes=given, start_time=time_ns()
        )
        opened = _Open(span, trace_id, _chain.get())
        span_id = f"{span.get_span_context().span_id:016x}" if span.get_span_context().is_valid else f"{id(span):x}"
        self._open[span_id] = opened
        # A plugin's turn holds no spans of ours: what it starts itself goes under the host's current span.
        if resource_type != "plugin":
            _chain.set(opened)
        return span_id

    def end_span(self, span_id: str | None, status: str = "ok", attributes: dict[str, Any] | None = None) -> None:
        """Close a span with status `ok` or `error`; one that is not open is left alone."""
        opened = self._open.pop(span_id, None) if span_id is not None else None
        if opened is None:
            return
        if _chain.get() is opened:
            _chain.set(opened.around)
        if attributes:
            opened.span.set_attributes(present(attributes))
        if status != "ok":
            set_error(opened.span, status)
        opened.span.end(end_time=time_ns())


def _parent(trace_id: str, around: _Open | None) -> Context | None:
    """The OpenTelemetry context of a new span; `None` is the current one."""
    from opentelemetry import trace

    if around is not None:
        return trace.set_span_in_context(around.span)
    named = traceparent_context(trace_id)
    if named is None and _TRACE_ID.fullmatch(trace_id) and int(trace_id, 16):
        # There is no parent span to name, and OpenTelemetry joins a trace through one only; half of the trace's own id
        # stands for it.
        parent = int(trace_id[16:], 16) or 1
        flags = trace.TraceFlags(trace.TraceFlags.SAMPLED)
        context = trace.SpanContext(int(trace_id, 16), parent, is_remote=True, trace_flags=flags)
        named = trace.set_span_in_context(trace.NonRecordingSpan(context))
    return None if named is None or same_trace(named) else named
