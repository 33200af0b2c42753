"""What a span says: its name, its attributes, and whose child it is."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cpex.builtins.observability._facts import Entity, entity_of
from cpex.builtins.observability._values import TooLarge, plain
from cpex.framework import clock

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import SpanContext

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TRACE_ID = re.compile(r"[0-9a-fA-F]{32}\Z")
_SPAN_ID = re.compile(r"[0-9a-fA-F]{16}\Z")

# OpenTelemetry semantic conventions: "Generative AI" (execute_tool, invoke_agent) and "MCP" (methods). Their Python
# constants are in a package of pre-release versions, which is not worth a dependency.
_OPERATIONS = {"tool": "execute_tool", "agent": "invoke_agent"}
_MCP_METHODS = {"tool": "tools/call", "prompt": "prompts/get", "resource": "resources/read"}
_ENTITY_ATTRIBUTES = {
    "tool": "gen_ai.tool.name",
    "agent": "gen_ai.agent.id",
    "prompt": "gen_ai.prompt.name",
    "resource": "mcp.resource.uri",
    "http": "url.path",
}
_FIELD_ATTRIBUTES = {
    "model": "gen_ai.request.model",
    "method": "http.request.method",
    "client_host": "client.address",
    "client_port": "client.port",
    "status_code": "http.response.status_code",
}


def time_ns() -> int:
    """Nanoseconds since the epoch by the framework's clock, to the microsecond."""
    return (clock.now() - _EPOCH) // timedelta(microseconds=1) * 1000


def span_name(hook: str, entity: Entity | None) -> str:
    """What is done to what, of few different values: URIs and paths are attributes only."""
    if entity is None or entity.kind == "message":
        return hook
    action = _OPERATIONS.get(entity.kind) or _MCP_METHODS.get(entity.kind)
    if action is None:
        return hook
    return f"{action} {entity.name}" if entity.name and entity.kind != "resource" else action


def request_attributes(hook: str, payload: Any, *, request_id: str, session: str | None) -> dict[str, Any]:
    """Attributes that a hook call has from its start; none of them is an argument or a result."""
    entity = entity_of(hook, payload)
    attributes: dict[str, Any] = {"cpex.request_id": request_id}
    if session:
        attributes["gen_ai.conversation.id"] = session
    if entity is not None:
        attributes |= _entity_attributes(entity)
    for field, attribute in _FIELD_ATTRIBUTES.items():
        if isinstance(value := getattr(payload, field, None), str | int):
            attributes[attribute] = value
    return attributes


def _entity_attributes(entity: Entity) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if entity.name is not None:
        found[_ENTITY_ATTRIBUTES.get(entity.kind, f"cpex.{entity.kind}")] = entity.name
    if (operation := _OPERATIONS.get(entity.kind)) is not None:
        found["gen_ai.operation.name"] = operation
    if (method := _MCP_METHODS.get(entity.kind)) is not None:
        found["mcp.method.name"] = method
    return found


def content_attributes(payload: Any, max_bytes: int) -> dict[str, str]:
    """Arguments and result of a tool call as JSON text; one that is too large is replaced by a note."""
    found = {}
    for field, attribute in (("args", "gen_ai.tool.call.arguments"), ("result", "gen_ai.tool.call.result")):
        if (value := getattr(payload, field, None)) is not None:
            found[attribute] = _json(value, max_bytes)
    return found


def _json(value: Any, max_bytes: int) -> str:
    try:
        return json.dumps(plain(value, max_bytes=max_bytes))
    except TooLarge:
        return f"<more than {max_bytes} bytes>"


def parent_context(payload: Any, extensions: Any) -> Context:
    """The OpenTelemetry context that a span is made in.

    The request names its trace in the W3C header `traceparent` (the http extension's headers, else the payload's), or
    in `trace_id` and `span_id` of the request extension. The host's own current span goes before these when it is part
    of the same trace: it is the nearer parent.

    Source: W3C Trace Context, section 3.2.
    """
    from opentelemetry import context

    named = _named_context(payload, extensions)
    return context.get_current() if named is None or same_trace(named) else named


def same_trace(named: Context) -> bool:
    """Whether the current span belongs to the trace that a context names, or the context names none."""
    from opentelemetry import trace

    parent = trace.get_current_span(named).get_span_context()
    current = trace.get_current_span().get_span_context()
    return not parent.is_valid or (current.is_valid and current.trace_id == parent.trace_id)


def traceparent_context(text: str) -> Context | None:
    """The context that the text of a `traceparent` header names; `None` when it is none."""
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    named = TraceContextTextMapPropagator().extract({"traceparent": text})
    return named if trace.get_current_span(named).get_span_context().is_remote else None


def _named_context(payload: Any, extensions: Any) -> Context | None:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    headers = _headers(getattr(getattr(extensions, "http", None), "headers", None))
    headers = headers if "traceparent" in headers else _headers(getattr(payload, "headers", None))
    if "traceparent" in headers:
        return TraceContextTextMapPropagator().extract(headers)
    context = _request_context(getattr(extensions, "request", None))
    return trace.set_span_in_context(trace.NonRecordingSpan(context)) if context is not None else None


def _headers(headers: Any) -> dict[str, str]:
    """Headers with lower-case names, from a dict or a header payload."""
    plain_headers = getattr(headers, "root", headers)
    if not isinstance(plain_headers, dict):
        return {}
    return {str(name).lower(): str(value) for name, value in plain_headers.items()}


def _request_context(request: Any) -> SpanContext | None:
    from opentelemetry.trace import SpanContext, TraceFlags

    trace_id, span_id = getattr(request, "trace_id", None), getattr(request, "span_id", None)
    if not (isinstance(trace_id, str) and isinstance(span_id, str)):
        return None
    if not (_TRACE_ID.match(trace_id) and _SPAN_ID.match(span_id)):
        return None
    # The extension has no flags. Whoever passes identifiers on wants to find the span under them.
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED))


__all__ = [
    "content_attributes",
    "parent_context",
    "request_attributes",
    "same_trace",
    "span_name",
    "time_ns",
    "traceparent_context",
]
