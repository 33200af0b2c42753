"""Spans of one hook call. A failing provider is the provider's problem, never the caller's."""

from __future__ import annotations

import logging
from typing import Any

from cpex.framework.models.result import PluginResult
from cpex.framework.observability import ObservabilityProvider, current_trace_id
from cpex.framework.pipeline.plan import HookPlan, Step

logger = logging.getLogger(__name__)


class Tracer:
    """Opens and closes the spans of one hook call, every one exactly once."""

    __slots__ = ("_chain", "_provider", "_trace_id")

    def __init__(self, provider: ObservabilityProvider, trace_id: str, plan: HookPlan) -> None:
        self._provider = provider
        self._trace_id = trace_id
        self._chain = self._start(
            name="plugin.hook.invoke",
            attributes={"plugin.hook.type": plan.hook, "plugin.chain.length": plan.chain_length},
        )

    def start(self, step: Step, timeout_s: float | None) -> str | None:
        """Open the span of one plugin's turn."""
        return self._start(
            name=f"plugin.execute.{step.name}",
            resource_type="plugin",
            resource_name=step.name,
            attributes={
                "plugin.name": step.name,
                "plugin.uuid": step.uuid,
                "plugin.mode": str(step.mode),
                "plugin.priority": step.priority,
                "plugin.timeout": timeout_s,
            },
        )

    def end(self, span: str | None, status: str = "ok", **attributes: Any) -> None:
        """Close a span; in the names of attributes, double underscores stand for dots."""
        if span is None:
            return
        named = {name.replace("__", "."): value for name, value in attributes.items()}
        try:
            if named:
                self._provider.end_span(span_id=span, status=status, attributes=named)
            else:
                self._provider.end_span(span_id=span, status=status)
        # Provider boundary.
        except Exception:
            logger.debug("Observability provider failed to end a span", exc_info=True)

    def end_plugin(self, span: str | None, result: PluginResult[Any]) -> None:
        """Close the span of a turn that ended with an answer."""
        self.end(
            span,
            plugin__had_violation=result.violation is not None,
            plugin__modified_payload=result.modified_payload is not None,
        )

    def end_chain(self, status: str, *, executed: int, skipped: int, stopped_by: str | None) -> None:
        """Close the span of the whole call."""
        self.end(
            self._chain,
            status,
            plugin__executed_count=executed,
            plugin__skipped_count=skipped,
            plugin__chain__stopped=stopped_by is not None,
            plugin__chain__stopped_by=stopped_by or "",
        )
        self._chain = None

    def _start(self, **span: Any) -> str | None:
        try:
            # A provider of a host's own may have no default for the kind.
            return self._provider.start_span(trace_id=self._trace_id, kind="internal", **span)
        # Provider boundary.
        except Exception:
            logger.debug("Observability provider failed to start a span", exc_info=True)
            return None


def tracer_for(provider: ObservabilityProvider, plan: HookPlan) -> Tracer | None:
    """A tracer when the host has named a trace, else `None`."""
    trace_id = current_trace_id.get()
    return Tracer(provider, trace_id, plan) if trace_id else None
