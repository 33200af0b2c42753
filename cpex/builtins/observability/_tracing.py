"""Where spans come from, and what the tracer plugin and the tracing provider say of plugins in the same words."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Span, Tracer, TracerProvider

SCOPE = "cpex"
"""Name of the instrumentation scope."""
CHAIN_SPAN = "plugin.hook.invoke"
"""Name of the span of one hook call, as the framework itself names it to a tracing provider."""
PLUGIN_SPAN = "plugin.execute"
"""What the name of the span of one plugin's turn starts with; its own name follows a dot."""

logger = logging.getLogger("cpex.builtins.observability.request_tracer")


class TracerSource:
    """The tracer of one plugin or provider, asked for at the first span: a host may set its SDK up after that."""

    def __init__(self, owner: str, provider: TracerProvider | None) -> None:
        """Name who asks, for the log; `provider` goes before the process's own."""
        self._owner = owner
        self._provider = provider
        self._tracer: Tracer | None = None

    def get(self) -> Tracer:
        """The tracer; warns once where nothing would be exported."""
        if self._tracer is None:
            from opentelemetry import trace

            provider = self._provider or trace.get_tracer_provider()
            if isinstance(provider, trace.ProxyTracerProvider | trace.NoOpTracerProvider):
                logger.warning(
                    "Plugin '%s': no OpenTelemetry SDK is configured in this process, so spans are made but nothing is "
                    "exported; install `cpex[otel]` and set a tracer provider",
                    self._owner,
                )
            self._tracer = provider.get_tracer(SCOPE)
        return self._tracer


def present(attributes: dict[str, Any]) -> dict[str, Any]:
    """Attributes without those that have no value, which OpenTelemetry does not take."""
    return {name: value for name, value in attributes.items() if value is not None}


def set_error(span: Span, text: str) -> None:
    """Give a span the status ERROR."""
    from opentelemetry.trace import Status, StatusCode

    span.set_status(Status(StatusCode.ERROR, text))
