"""The Prometheus metrics of hook calls: names, labels, and what counts as what.

When something is counted is the plugin's business.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cpex.builtins.observability._registries import made_once
from cpex.framework import ControlExecutionRecord, ControlExecutionStatus

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

OTHER = "other"
"""Label of all tools beyond the first `max_tools`."""

_NOT_RUN = frozenset(
    {ControlExecutionStatus.SKIPPED, ControlExecutionStatus.CANCELLED, ControlExecutionStatus.DISABLED}
)
_S_PER_NS = 1e-9


@dataclass(frozen=True, slots=True)
class Shape:
    """What two users of one set must agree on."""

    namespace: str
    buckets: tuple[float, ...]
    """Upper bounds in seconds, growing."""
    tool_label: bool
    max_tools: int


class MetricSet:
    """The metrics of one namespace in one registry. Safe to use from any thread."""

    def __init__(self, shape: Shape, registry: CollectorRegistry) -> None:
        """Register the metrics.

        Raises:
            ValueError: The registry holds foreign metrics of these names.
        """
        from prometheus_client import Counter, Histogram

        from cpex.builtins.observability._live_state import LiveState

        self.shape = shape
        self._tools: set[str] = set()
        tool = ("tool",) if shape.tool_label else ()
        per_plugin = ("plugin", "hook")

        def counter(name: str, text: str, labels: tuple[str, ...]) -> Counter:
            return Counter(name, text, labels, namespace=shape.namespace, registry=registry)

        def seconds(name: str, text: str, labels: tuple[str, ...]) -> Histogram:
            return Histogram(name, text, labels, namespace=shape.namespace, registry=registry, buckets=shape.buckets)

        self._events = counter("hook_events", "Hook calls in which the metrics plugin had its turn.", ("hook", *tool))
        self._hooks = counter(
            "hook_calls", "Hook calls by decision: allowed, denied, failed.", ("hook", "decision", *tool)
        )
        self._hook_seconds = seconds("hook_duration_seconds", "From a hook call to its decision.", ("hook",))
        self._calls = counter("plugin_calls", "Turns that plugins took.", per_plugin)
        self._denials = counter("plugin_denials", "Denials that stopped a call.", per_plugin)
        self._would_deny = counter(
            "plugin_would_be_denials", "Denials by plugins whose mode does not let them deny.", per_plugin
        )
        self._changes = counter("plugin_changes", "Accepted changes of payload or extensions.", per_plugin)
        self._errors = counter("plugin_errors", "Turns that ended in an error of the plugin.", per_plugin)
        self._timeouts = counter("plugin_timeouts", "Turns that ran out of time.", per_plugin)
        self._not_run = counter(
            "plugin_turns_missed",
            "Turns not taken or cut short: skipped, cancelled, disabled.",
            (*per_plugin, "status"),
        )
        self._plugin_seconds = seconds("plugin_duration_seconds", "Duration of a plugin's turn.", per_plugin)
        registry.register(LiveState(shape.namespace))

    def count_event(self, hook: str, tool: str | None) -> None:
        """Count a turn of the metrics plugin itself."""
        self._events.labels(hook, *self._tool(tool)).inc()

    def count_decision(self, hook: str, tool: str | None, *, decision: str, duration_ns: int) -> None:
        """Count a decided hook call."""
        self._hooks.labels(hook, decision, *self._tool(tool)).inc()
        self._hook_seconds.labels(hook).observe(duration_ns * _S_PER_NS)

    def count_turn(self, record: ControlExecutionRecord) -> None:
        """Count what became of one plugin's turn; its record must not be pending."""
        labels = (record.plugin_name, record.hook_name)
        if record.status in _NOT_RUN:
            self._not_run.labels(*labels, str(record.status)).inc()
            return
        self._calls.labels(*labels).inc()
        self._plugin_seconds.labels(*labels).observe(record.duration_ns * _S_PER_NS)
        if record.status is ControlExecutionStatus.ERROR:
            self._errors.labels(*labels).inc()
        elif record.status is ControlExecutionStatus.TIMEOUT:
            self._timeouts.labels(*labels).inc()
        if record.requested_allow is False:
            (self._would_deny if record.effective_allow else self._denials).labels(*labels).inc()
        if record.payload_modified or record.extensions_modified:
            self._changes.labels(*labels).inc()

    def _tool(self, name: str | None) -> tuple[str, ...]:
        """The tool label, if there is one. SECURITY: callers choose tool names, so their number is bounded."""
        if not self.shape.tool_label:
            return ()
        if name is None:
            return ("",)
        if name not in self._tools:
            if len(self._tools) >= self.shape.max_tools:
                return (OTHER,)
            self._tools.add(name)
        return (name,)


def metric_set(shape: Shape, registry: CollectorRegistry) -> MetricSet:
    """The set of a registry and namespace, made at the first request.

    Raises:
        ValueError: The registry holds such a set in another shape, or foreign metrics of the same names.
    """
    return made_once(registry, shape.namespace, shape, lambda: MetricSet(shape, registry))
