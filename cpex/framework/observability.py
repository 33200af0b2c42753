"""The tracing port: what the framework needs of a tracer, and one that does nothing.

The framework opens spans only when the host has set a provider and named a trace. Which spans there are, and when they
close, is the pipeline's business; what becomes of them is the provider's.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Protocol, runtime_checkable

__all__ = ["NullObservability", "ObservabilityProvider", "current_trace_id"]

current_trace_id: ContextVar[str | None] = ContextVar("current_trace_id", default=None)
"""The trace that hook calls of this context belong to. The host sets it; unset or empty means no spans."""


@runtime_checkable
class ObservabilityProvider(Protocol):
    """Receives spans. It is not told of parents: spans of one trace nest by the order of their start and end.

    Both methods are called with keyword arguments only, from the event loop, so they must not block. What they raise is
    logged and never reaches the caller.
    """

    def start_span(
        self,
        trace_id: str,
        name: str,
        kind: str = "internal",
        resource_type: str | None = None,
        resource_name: str | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> str | None:
        """Open a span and return its id; with `None` the span is not closed either."""

    def end_span(self, span_id: str | None, status: str = "ok", attributes: dict[str, Any] | None = None) -> None:
        """Close a span with status `ok` or `error`."""


class NullObservability:
    """A provider that records nothing."""

    def start_span(
        self,
        trace_id: str,
        name: str,
        kind: str = "internal",
        resource_type: str | None = None,
        resource_name: str | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> str | None:
        """Open nothing."""
        return None

    def end_span(self, span_id: str | None, status: str = "ok", attributes: dict[str, Any] | None = None) -> None:
        """Close nothing."""
