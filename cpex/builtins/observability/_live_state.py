"""What is read at the moment of a scrape rather than counted in calls: the engines' load, stores that failed, sinks.

All of it belongs to the process, whichever manager the metrics plugin is in.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client.registry import Collector

from cpex.builtins.observability._delivery import sink_counts, sink_queues
from cpex.builtins.store.failures import store_failures
from cpex.framework.observability import engine_load

if TYPE_CHECKING:
    from prometheus_client.core import Metric


class LiveState(Collector):
    """Gauges and totals of the process. Collected in the scrape's own thread."""

    def __init__(self, namespace: str) -> None:
        """Name the metrics `<namespace>_…`."""
        self._namespace = namespace

    def describe(self) -> Iterable[Metric]:
        """The metrics by name, so that a registry can refuse a second set."""
        return self.collect()

    def collect(self) -> Iterable[Metric]:
        """The metrics at this moment."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        load = engine_load()

        def gauge(name: str, text: str, value: float) -> Metric:
            return GaugeMetricFamily(f"{self._namespace}_{name}", text, value)

        def total(name: str, text: str, value: float) -> Metric:
            return CounterMetricFamily(f"{self._namespace}_{name}", text, value)

        yield gauge("background_tasks", "Background tasks that have not ended, of all managers.", load.background)
        yield total("background_refused", "Background turns refused because the limit was reached.", load.refused)
        yield total("background_skipped", "Background turns skipped for want of a redacted payload.", load.skipped)
        for name, text, plugins in (
            ("plugin_disabled", "1 for each plugin that is switched off because it failed.", load.disabled),
            ("plugin_not_started", "1 for each plugin that a manager started without.", load.not_started),
        ):
            family = GaugeMetricFamily(f"{self._namespace}_{name}", text, labels=("plugin",))
            for plugin in sorted(plugins):
                family.add_metric((plugin,), 1)
            yield family
        failures = CounterMetricFamily(
            f"{self._namespace}_store_failures",
            "Calls and refunds that went without their store.",
            labels=("plugin", "store", "policy"),
        )
        for failure, count in store_failures().items():
            failures.add_metric(failure, count)
        yield failures
        queues = GaugeMetricFamily(
            f"{self._namespace}_sink_queue", "Records of sinks that wait or are on their way.", labels=("plugin",)
        )
        for plugin, waiting in sink_queues().items():
            queues.add_metric((plugin,), waiting)
        yield queues
        records = CounterMetricFamily(
            f"{self._namespace}_sink_records", "Records of sinks: delivered, dropped.", labels=("plugin", "outcome")
        )
        for what, count in sink_counts().items():
            records.add_metric(what, count)
        yield records
