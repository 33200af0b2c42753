"""Metrics in their registry, and the endpoint that serves them."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry, Counter

from cpex.builtins.observability._endpoint import close_endpoint, open_endpoint
from cpex.builtins.observability._metric_set import OTHER, Shape, metric_set
from cpex.framework import ControlExecutionRecord, ControlExecutionStatus, PluginMode

SHAPE = Shape(namespace="cpex", buckets=(0.001, 1.0), tool_label=True, max_tools=2)
LABELS = {"plugin": "p", "hook": "tool_pre_invoke"}


def record(**changes: object) -> ControlExecutionRecord:
    values = {
        "plugin_id": "0" * 32,
        "plugin_name": "p",
        "plugin_kind": "k",
        "hook_name": "tool_pre_invoke",
        "mode": PluginMode.SEQUENTIAL,
        "status": ControlExecutionStatus.COMPLETED,
    }
    return ControlExecutionRecord.model_validate(values | changes)


@pytest.mark.conformance("D7a", "D22")
@pytest.mark.parametrize(
    ("changes", "counted"),
    [
        ({}, {"calls"}),
        ({"requested_allow": False, "effective_allow": False}, {"calls", "denials"}),
        ({"requested_allow": False, "effective_allow": True}, {"calls", "would_be_denials"}),
        ({"payload_modified": True}, {"calls", "changes"}),
        ({"extensions_modified": True}, {"calls", "changes"}),
        ({"status": "error"}, {"calls", "errors"}),
        ({"status": "timeout"}, {"calls", "timeouts"}),
        ({"status": "disabled"}, {"turns_missed"}),
        ({"status": "cancelled"}, {"turns_missed"}),
    ],
)
def test_a_turn_counts_as_what_became_of_it(changes: dict[str, object], counted: set[str]) -> None:
    registry = CollectorRegistry()
    metric_set(SHAPE, registry).count_turn(record(**changes))
    names = {
        sample.name for metric in registry.collect() for sample in metric.samples if sample.name.endswith("_total")
    }
    # Those are of the process, and there whatever is counted.
    names = {name for name in names if name.startswith("cpex_plugin_")}
    assert names == {f"cpex_plugin_{name}_total" for name in counted}


def test_durations_are_in_seconds() -> None:
    registry = CollectorRegistry()
    metric_set(SHAPE, registry).count_turn(record(duration_ns=2_000_000))
    assert registry.get_sample_value("cpex_plugin_duration_seconds_sum", LABELS) == 0.002
    assert registry.get_sample_value("cpex_plugin_duration_seconds_bucket", LABELS | {"le": "0.001"}) == 0


def test_the_number_of_tool_labels_is_bounded() -> None:
    registry = CollectorRegistry()
    metrics = metric_set(SHAPE, registry)
    for tool in ("a", "b", "c", "d", "a"):
        metrics.count_event("tool_pre_invoke", tool)
    found = {
        tool: registry.get_sample_value("cpex_hook_events_total", {"hook": "tool_pre_invoke", "tool": tool})
        for tool in ("a", "b", "c", OTHER)
    }
    assert found == {"a": 2, "b": 1, "c": None, OTHER: 2}


def test_one_registry_has_one_set_per_namespace() -> None:
    registry = CollectorRegistry()
    assert metric_set(SHAPE, registry) is metric_set(SHAPE, registry)
    other = Shape("other", SHAPE.buckets, SHAPE.tool_label, SHAPE.max_tools)
    assert metric_set(other, registry) is not metric_set(SHAPE, registry)


def test_two_shapes_of_one_namespace_are_an_error() -> None:
    registry = CollectorRegistry()
    metric_set(SHAPE, registry)
    with pytest.raises(ValueError, match="metrics `cpex` exist in this registry with other buckets"):
        metric_set(Shape("cpex", (1.0,), False, 2), registry)


def test_foreign_metrics_of_the_same_name_are_an_error() -> None:
    registry = CollectorRegistry()
    Counter("cpex_plugin_calls", "Not ours.", registry=registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        metric_set(SHAPE, registry)


def test_metrics_die_with_their_registry() -> None:
    registry = CollectorRegistry()
    gone = weakref.ref(metric_set(SHAPE, registry))
    del registry
    gc.collect()
    assert gone() is None


def test_an_endpoint_serves_until_its_last_user_closes_it() -> None:
    registry = CollectorRegistry()
    metric_set(SHAPE, registry).count_event("tool_pre_invoke", "a")
    first = open_endpoint("127.0.0.1", 0, registry)
    second = open_endpoint("127.0.0.1", first.port, registry)
    assert second is first
    close_endpoint(first)
    with urlopen(f"http://127.0.0.1:{second.port}/metrics", timeout=90) as answer:
        assert 'cpex_hook_events_total{hook="tool_pre_invoke",tool="a"} 1.0' in answer.read().decode()
    with pytest.raises(ValueError, match="serves another registry"):
        open_endpoint("127.0.0.1", second.port, CollectorRegistry())
    close_endpoint(second)
    with pytest.raises(OSError, match="refused"):
        urlopen(f"http://127.0.0.1:{second.port}/metrics", timeout=90)


FORKING = """
import os
from urllib.request import urlopen
from prometheus_client import CollectorRegistry
from cpex.builtins.observability._endpoint import close_endpoint, open_endpoint

endpoint = open_endpoint("127.0.0.1", 0, CollectorRegistry())
child = os.fork()
if child == 0:
    try:
        close_endpoint(endpoint)
        print("closed", flush=True)
    finally:
        os._exit(0)
os.waitpid(child, 0)
with urlopen(f"http://127.0.0.1:{endpoint.port}/metrics", timeout=60) as answer:
    print(answer.status)
close_endpoint(endpoint)
"""


def test_a_forked_child_lets_go_of_the_endpoint_and_its_parent_goes_on_listening() -> None:
    run = subprocess.run([sys.executable, "-c", FORKING], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "closed\n200\n", run.stderr
