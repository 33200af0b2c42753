"""The metrics plugin, seen through a manager and its registry."""

from __future__ import annotations

import logging
import socket
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from cpex.builtins.observability.metrics import MetricsPlugin
from cpex.framework import GlobalContext, PluginConfig, PluginError, ToolPostInvokePayload, ToolPreInvokePayload

PRE = {"hook": "tool_pre_invoke"}


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """A registry of the test's own, in the place of the process's."""
    own = CollectorRegistry()
    monkeypatch.setattr("prometheus_client.REGISTRY", own)
    return own


def metrics(mode: str = "fire_and_forget", **settings: Any) -> dict[str, Any]:
    return {
        "name": "metrics",
        "kind": "cpex.builtins.observability.metrics.MetricsPlugin",
        "mode": mode,
        "hooks": ["tool_pre_invoke", "tool_post_invoke"],
        "config": settings or None,
    }


def context(request_id: str = "r1") -> GlobalContext:
    return GlobalContext(request_id=request_id)


def scrape(port: int) -> str:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=90) as answer:
        found: str = answer.read().decode()
        return found


def call(tool: str) -> ToolPreInvokePayload:
    return ToolPreInvokePayload(name=tool, args={"q": "mail ann@example.com"})


@pytest.mark.parametrize("mode", ["fire_and_forget", "audit", "sequential", "concurrent"])
async def test_every_plugin_and_decision_is_counted_whatever_the_mode(
    running: Any, allow_list: dict[str, Any], redactor: dict[str, Any], registry: CollectorRegistry, mode: str
) -> None:
    async with running(metrics(mode), allow_list, redactor) as manager:
        for tool in ("search", "search", "delete"):
            await manager.invoke_hook("tool_pre_invoke", call(tool), context())
        await manager.invoke_hook("tool_post_invoke", ToolPostInvokePayload(name="search", result="ok"), context())
    value = registry.get_sample_value
    assert value("cpex_hook_calls_total", PRE | {"decision": "allowed"}) == 2
    assert value("cpex_hook_calls_total", PRE | {"decision": "denied"}) == 1
    assert value("cpex_hook_duration_seconds_count", PRE) == 3
    assert value("cpex_plugin_calls_total", PRE | {"plugin": "allow"}) == 3
    assert value("cpex_plugin_denials_total", PRE | {"plugin": "allow"}) == 1
    assert value("cpex_plugin_duration_seconds_count", PRE | {"plugin": "allow"}) == 3
    assert value("cpex_plugin_changes_total", PRE | {"plugin": "redactor"}) == 2
    assert value("cpex_plugin_calls_total", {"hook": "tool_post_invoke", "plugin": "redactor"}) == 1


async def test_a_would_be_denial_is_told_from_a_denial(
    running: Any, allow_list: dict[str, Any], registry: CollectorRegistry
) -> None:
    async with running(metrics(), allow_list | {"mode": "audit"}) as manager:
        await manager.invoke_hook("tool_pre_invoke", call("delete"), context())
    labels = PRE | {"plugin": "allow"}
    assert registry.get_sample_value("cpex_plugin_would_be_denials_total", labels) == 1
    assert registry.get_sample_value("cpex_plugin_denials_total", labels) is None
    assert registry.get_sample_value("cpex_hook_calls_total", PRE | {"decision": "allowed"}) == 1


async def test_background_plugins_are_counted_when_they_have_ended(running: Any, registry: CollectorRegistry) -> None:
    other = metrics(namespace="other") | {"name": "other"}
    async with running(metrics(), other) as manager:
        await manager.invoke_hook("tool_pre_invoke", call("search"), context())
    for plugin in ("metrics", "other"):
        assert registry.get_sample_value("cpex_plugin_calls_total", PRE | {"plugin": plugin}) == 1


async def test_hooks_that_are_not_listed_are_not_counted(running: Any, registry: CollectorRegistry) -> None:
    post_only, other = metrics() | {"hooks": ["tool_post_invoke"]}, metrics(namespace="other") | {"name": "other"}
    async with running(post_only, other) as manager:
        await manager.invoke_hook("tool_pre_invoke", call("search"), context())
    assert registry.get_sample_value("cpex_hook_calls_total", PRE | {"decision": "allowed"}) is None
    assert registry.get_sample_value("other_hook_calls_total", PRE | {"decision": "allowed"}) == 1


async def test_tool_names_are_labels_only_on_request(running: Any, registry: CollectorRegistry) -> None:
    async with running(metrics(tool_label=True)) as manager:
        await manager.invoke_hook("tool_pre_invoke", call("search"), context())
    labels = PRE | {"decision": "allowed", "tool": "search"}
    assert registry.get_sample_value("cpex_hook_calls_total", labels) == 1
    assert registry.get_sample_value("cpex_hook_events_total", PRE | {"tool": "search"}) == 1


async def test_managers_of_one_process_add_to_the_same_metrics(running: Any, registry: CollectorRegistry) -> None:
    async with running(metrics()) as first, running(metrics()) as second:
        await first.invoke_hook("tool_pre_invoke", call("search"), context())
        await second.invoke_hook("tool_pre_invoke", call("search"), context())
    assert registry.get_sample_value("cpex_hook_calls_total", PRE | {"decision": "allowed"}) == 2


async def test_counters_outlive_a_restart_of_the_manager(running: Any, registry: CollectorRegistry) -> None:
    for _ in range(2):
        async with running(metrics()) as manager:
            await manager.invoke_hook("tool_pre_invoke", call("search"), context())
    assert registry.get_sample_value("cpex_hook_calls_total", PRE | {"decision": "allowed"}) == 2


async def test_one_setting_opens_a_scrape_endpoint_that_shutdown_closes(
    running: Any, registry: CollectorRegistry
) -> None:
    async with running(metrics(port=0)) as manager:
        await manager.invoke_hook("tool_pre_invoke", call("search"), context())
        plugin = manager.get_plugin("metrics")
        assert isinstance(plugin, MetricsPlugin)
        port = plugin.port
        assert port
        assert "cpex_hook_calls_total" in scrape(port)
    assert plugin.port is None
    with pytest.raises(OSError, match="refused"):
        scrape(port)


async def test_a_port_that_is_taken_stops_the_start_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        plugin = MetricsPlugin(PluginConfig(name="m", kind="k", config={"port": port}), registry=CollectorRegistry())
        with pytest.raises(PluginError) as failure:
            await plugin.initialize()
    assert failure.value.error.message.startswith(f"metrics on 127.0.0.1:{port} are not available: ")
    assert failure.value.error.code == "metrics_unavailable"


async def test_a_worker_takes_the_next_port_when_another_one_has_the_first() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = taken.getsockname()[1]
        config = {"port": min(first, 65_000), "ports": 50}
        one, other = (
            MetricsPlugin(PluginConfig(name=name, kind="k", config=config), registry=CollectorRegistry())
            for name in ("one", "other")
        )
        await one.initialize()
        assert one.port is not None
        assert first < one.port < first + 50
        # Another registry of the same process is as foreign as another process.
        await other.initialize()
        assert other.port is not None
        assert first < other.port < first + 50
        assert other.port != one.port
        assert "cpex_hook_calls" in scrape(one.port)
        assert "cpex_hook_calls" in scrape(other.port)
        await one.shutdown()
        await other.shutdown()


async def test_initialize_and_shutdown_may_be_called_twice() -> None:
    plugin = MetricsPlugin(PluginConfig(name="m", kind="k", config={"port": 0}), registry=CollectorRegistry())
    for _ in range(2):
        await plugin.shutdown()
        await plugin.initialize()
        await plugin.initialize()
        await plugin.shutdown()
        await plugin.shutdown()


async def test_a_registry_may_be_named_by_its_place(registry: CollectorRegistry) -> None:
    setting = {"registry": "prometheus_client:REGISTRY"}
    plugin = MetricsPlugin(PluginConfig(name="m", kind="k", config=setting))
    await plugin.initialize()
    await plugin.shutdown()
    assert "cpex_hook_calls" in {metric.name for metric in registry.collect()}


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("os:sep", "`os:sep` is str, expected a CollectorRegistry"),
        ("no_such_module:x", "No module named 'no_such_module'"),
    ],
)
async def test_a_registry_that_is_none_stops_the_start(place: str, message: str) -> None:
    plugin = MetricsPlugin(PluginConfig(name="m", kind="k", config={"registry": place}))
    with pytest.raises(PluginError) as failure:
        await plugin.initialize()
    assert failure.value.error.message == f"metrics are not available: {message}"


async def test_a_plugin_that_was_not_initialised_counts_its_failures_and_logs_one(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugin = MetricsPlugin(PluginConfig(name="m", kind="k", hooks=["tool_pre_invoke"]))
    for _ in range(3):
        result = await plugin.tool_pre_invoke(call("search"), None, None)  # type: ignore[attr-defined]  # bound by name
        assert result.continue_processing
    assert plugin.failures.count == 3
    assert [each.levelno for each in caplog.records] == [logging.ERROR]


@pytest.mark.parametrize(
    "settings", [{"buckets": [2.0, 1.0]}, {"buckets": []}, {"namespace": "a-b"}, {"port": 70_000}, {"prot": 1}]
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        MetricsPlugin(PluginConfig(name="m", kind="k", config=settings))
