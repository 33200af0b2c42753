"""Prometheus metrics of hook calls: how many, how they were decided, what each plugin did and how long it took."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

from cpex.builtins.observability._endpoint import MAX_PORT, Endpoint, close_endpoint, open_first_endpoint
from cpex.builtins.observability._facts import entity_of
from cpex.builtins.observability._metric_set import MetricSet, Shape, metric_set
from cpex.builtins.observability._observer import HookCall, HookObserver
from cpex.builtins.observability._registries import Buckets, find_registry
from cpex.framework import ControlExecutionRecord, PluginConfig, PluginError, PluginErrorModel
from cpex.framework.models import HookOutcome

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

__all__ = ["MetricsPlugin", "MetricsSettings"]

DEFAULT_BUCKETS_S = (
    *(0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01),
    *(0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
"""From the fastest plugin to the default timeout."""

MAX_PENDING = 10_000
"""How many records of background plugins are watched at once."""


class MetricsSettings(BaseModel, extra="forbid", frozen=True):
    """Settings of the metrics."""

    namespace: str = Field(default="cpex", pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")
    """What every metric's name starts with."""
    buckets: Buckets = DEFAULT_BUCKETS_S
    """Upper bounds of the duration histograms, in seconds, growing."""
    tool_label: bool = False
    """Adds the label `tool` to the counters of hook calls."""
    max_tools: int = Field(default=100, ge=1)
    """How many tools get a label value of their own; later ones are `other`."""
    registry: str | None = Field(default=None, pattern=r"^[\w.]+:[\w.]+$")
    """`module:name` of the registry to use, instead of the Prometheus client's own."""
    port: int | None = Field(default=None, ge=0, le=MAX_PORT)
    """Serve the metrics over HTTP on this port; 0 takes a free one. Without it nothing listens."""
    ports: int = Field(default=1, ge=1, le=1_000)
    """How many ports, from `port` on, are tried in turn: each worker process of a machine takes the next free one."""
    address: str = "127.0.0.1"
    """What to listen on. The endpoint has no authentication."""


class MetricsPlugin(HookObserver):
    """Counts hook calls and what each plugin did in them, and measures both, for Prometheus to scrape.

    Plugins with the same namespace add to the same metrics of a registry, so several managers of one process may each
    have one. Metrics stay in the registry after `shutdown`, as counters must.

    Source: docs/plugins/metrics.md.
    """

    settings_model = MetricsSettings

    def __init__(self, config: PluginConfig, *, registry: CollectorRegistry | None = None) -> None:
        """Validate the settings; nothing is registered yet.

        Args:
            registry: Goes before the setting of that name.

        Raises:
            pydantic.ValidationError: A setting is unknown or has a value that is not allowed.
        """
        super().__init__(config)
        self._settings = MetricsSettings.model_validate(config.config or {})
        self._registry = registry
        self._metrics: MetricSet | None = None
        self._endpoint: Endpoint | None = None
        self._pending: deque[ControlExecutionRecord] = deque()

    @property
    def port(self) -> int | None:
        """The port of the scrape endpoint while there is one."""
        return self._endpoint.port if self._endpoint is not None else None

    async def initialize(self) -> None:
        """Register the metrics and start the scrape endpoint, if one is configured. Does nothing the second time.

        Raises:
            PluginError: The registry, its metrics or the port cannot be had; code `metrics_unavailable`.
        """
        if self._metrics is not None:
            return
        settings = self._settings
        shape = Shape(settings.namespace, settings.buckets, settings.tool_label, settings.max_tools)
        try:
            registry = self._registry or find_registry(settings.registry)
            metrics = metric_set(shape, registry)
            if settings.port is not None:
                last = min(settings.port + settings.ports - 1, MAX_PORT)
                self._endpoint = open_first_endpoint(settings.address, range(settings.port, last + 1), registry)
        except (OSError, ValueError, ImportError, AttributeError) as error:
            raise self._unavailable(error) from error
        self._metrics = metrics

    async def shutdown(self) -> None:
        """Count what is still open, and stop the scrape endpoint. Does nothing the second time."""
        self.failures.tell_rest()
        metrics, self._metrics = self._metrics, None
        if metrics is not None:
            while self._pending:
                metrics.count_turn(self._pending.popleft())
        endpoint, self._endpoint = self._endpoint, None
        if endpoint is not None:
            await asyncio.to_thread(close_endpoint, endpoint)

    async def on_call(self, call: HookCall) -> None:
        """Count the plugin's own turn."""
        self._ready().count_event(call.hook, _tool(call.hook, call.payload))

    async def on_outcome(self, outcome: HookOutcome) -> None:
        """Count a decision, and the turns of all plugins in it."""
        metrics = self._ready()
        self._settle(metrics)
        failed = outcome.error_code is not None and outcome.violation is None
        decision = "allowed" if outcome.allowed else "failed" if failed else "denied"
        tool = _tool(outcome.hook, outcome.payload)
        metrics.count_decision(outcome.hook, tool, decision=decision, duration_ns=outcome.duration_ns)
        for record in outcome.executions:
            if record.pending:
                self._pending.append(record)
            else:
                metrics.count_turn(record)

    def _settle(self, metrics: MetricSet) -> None:
        """Count the background turns that have ended since; the oldest is counted as it stands when there are many."""
        for _ in range(len(self._pending)):
            record = self._pending.popleft()
            if record.pending and len(self._pending) < MAX_PENDING:
                self._pending.append(record)
            else:
                metrics.count_turn(record)

    def _ready(self) -> MetricSet:
        if self._metrics is None:
            raise self._unavailable("initialize the plugin first")
        return self._metrics

    def _unavailable(self, cause: object) -> PluginError:
        where = f"on {self._settings.address}:{self._settings.port} " if isinstance(cause, OSError) else ""
        message = f"metrics {where}are not available: {cause}"
        return PluginError(PluginErrorModel(message=message, plugin_name=self.name, code="metrics_unavailable"))


def _tool(hook: str, payload: Any) -> str | None:
    entity = entity_of(hook, payload)
    return entity.name if entity is not None and entity.kind == "tool" else None
