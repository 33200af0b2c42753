"""What a real scrape tells: of failed turns, and of the process: background work, disabled plugins, stores."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from support import BEGUN_BY_THEN_S

from cpex.builtins.observability.metrics import MetricsPlugin
from cpex.builtins.store.failures import StoreFailure, count_store_failure
from cpex.framework import (
    GlobalContext,
    Plugin,
    PluginConfig,
    PluginError,
    PluginResult,
    TenantPluginManager,
    ToolPreInvokePayload,
)
from cpex.framework.models import Config

PRE = "tool_pre_invoke"


class Waits(Plugin):
    """Ends when the test says so."""

    let_go: asyncio.Event

    async def tool_pre_invoke(self, payload: Any, context: Any) -> PluginResult[Any]:
        await Waits.let_go.wait()
        return PluginResult()


class Breaks(Plugin):
    async def tool_pre_invoke(self, payload: Any, context: Any) -> PluginResult[Any]:
        raise RuntimeError("broken")


class Never(Plugin):
    async def initialize(self) -> None:
        raise RuntimeError("no backend")

    async def tool_pre_invoke(self, payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult()


@pytest.fixture(autouse=True)
def specimens() -> Iterator[None]:
    module = ModuleType("t_live")
    vars(module).update(Waits=Waits, Breaks=Breaks, Never=Never)
    sys.modules["t_live"] = module
    yield
    del sys.modules["t_live"]


@pytest.fixture(autouse=True)
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """A registry of the test's own, in the place of the process's."""
    own = CollectorRegistry()
    monkeypatch.setattr("prometheus_client.REGISTRY", own)
    return own


METRICS = {
    "name": "metrics",
    "kind": "observability.MetricsPlugin",
    "mode": "fire_and_forget",
    "hooks": [PRE],
    "config": {"port": 0},
}


def plugin(name: str, kind: str, mode: str = "sequential", **more: Any) -> dict[str, Any]:
    return {"name": name, "kind": f"t_live.{kind}", "mode": mode, "hooks": [PRE], **more}


async def scrape(manager: TenantPluginManager) -> dict[str, float]:
    """Every sample that the endpoint serves, as `{name{label values by label name}: value}`."""
    metrics = manager.get_plugin("metrics")
    assert isinstance(metrics, MetricsPlugin)

    def get() -> str:
        with urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=90) as answer:
            text: str = answer.read().decode()
            return text

    families = text_string_to_metric_families(await asyncio.to_thread(get))
    samples = (sample for family in families for sample in family.samples)
    return {
        f"{each.name}{{{','.join(value for _, value in sorted(each.labels.items()))}}}": each.value for each in samples
    }


def turns(samples: dict[str, float], plugin: str) -> dict[str, float]:
    """What was counted of a plugin's turns, but for how long they took."""
    ends = {f"cpex_plugin_{what}_total": what for what in ("calls", "errors", "timeouts", "denials")}
    return {what: samples[key] for name, what in ends.items() if (key := f"{name}{{{PRE},{plugin}}}") in samples}


async def call(manager: TenantPluginManager) -> None:
    await manager.invoke_hook(PRE, ToolPreInvokePayload(name="t"), GlobalContext(request_id="r"))


async def test_a_scrape_tells_how_much_background_work_there_is_now(running: Any) -> None:
    Waits.let_go = asyncio.Event()
    async with running(plugin("slow", "Waits", "fire_and_forget"), METRICS) as manager:
        before = (await scrape(manager))["cpex_background_tasks{}"]
        for _ in range(3):
            await call(manager)
        during = (await scrape(manager))["cpex_background_tasks{}"]
        Waits.let_go.set()
        await manager.executor.drain()
        after = (await scrape(manager))["cpex_background_tasks{}"]
    assert (during - before >= 3, after - before) == (True, 0)


async def test_refused_background_work_is_counted(registry: CollectorRegistry) -> None:
    Waits.let_go = asyncio.Event()
    entries = [PluginConfig.model_validate(each) for each in (plugin("slow", "Waits", "fire_and_forget"), METRICS)]
    manager = TenantPluginManager(Config(plugins=entries, background_limit=1))
    await manager.initialize()
    before = (await scrape(manager))["cpex_background_refused_total{}"]
    for _ in range(3):
        await call(manager)
    refused = manager.executor.background.refused
    assert (await scrape(manager))["cpex_background_refused_total{}"] - before == refused > 0
    Waits.let_go.set()
    await manager.shutdown()


@pytest.mark.parametrize("mode", ["sequential", "transform", "audit", "concurrent", "fire_and_forget"])
async def test_a_turn_that_runs_out_of_time_is_counted_as_a_timeout_and_no_error(running: Any, mode: str) -> None:
    Waits.let_go = asyncio.Event()
    stuck = plugin("stuck", "Waits", mode, on_error="ignore", timeout_s=0.01)
    async with running(METRICS) as watcher:
        async with running(stuck, plugin("shaky", "Breaks", mode, on_error="ignore"), METRICS) as manager:
            await call(manager)
        # Now those in the background have been counted, too.
        found = await scrape(watcher)
    assert turns(found, "stuck") == {"calls": 1, "timeouts": 1}
    assert turns(found, "shaky") == {"calls": 1, "errors": 1}
    assert found[f"cpex_hook_calls_total{{allowed,{PRE}}}"] == 1


@pytest.mark.parametrize("limit", ["plugin", "hook"])
async def test_a_call_that_fails_for_want_of_time_is_counted_with_the_plugin_that_used_it_up(limit: str) -> None:
    Waits.let_go = asyncio.Event()
    stuck = plugin("stuck", "Waits", **({"timeout_s": 0.01} if limit == "plugin" else {}))
    entries = [PluginConfig.model_validate(each) for each in (stuck, METRICS)]
    manager = TenantPluginManager(Config(plugins=entries, hook_timeout_s=BEGUN_BY_THEN_S if limit == "hook" else None))
    await manager.initialize()
    with pytest.raises(PluginError) as failure:
        await call(manager)
    await manager.executor.drain()
    found = await scrape(manager)
    await manager.shutdown()
    assert failure.value.error.code == f"{limit}_timeout"
    assert turns(found, "stuck") == {"calls": 1, "timeouts": 1}
    assert found[f"cpex_hook_calls_total{{failed,{PRE}}}"] == 1


async def test_a_store_that_is_away_shows_with_its_plugin_and_policy(running: Any, tmp_path: Path) -> None:
    broken = tmp_path / "limits.db"
    broken.write_bytes(b"no database" * 100)
    config = {"requests_per_minute": 60, "scope": "global", "store": str(broken), "on_store_error": "allow"}
    limit = {"name": "t_live_rate", "kind": "security.RateLimitPlugin", "hooks": [PRE], "config": config}
    async with running(limit, METRICS) as manager:
        await call(manager)
        found = await scrape(manager)
    assert found["cpex_store_failures_total{t_live_rate,allow,sqlite}"] == 1


@pytest.mark.conformance("D22")
async def test_a_disabled_plugin_shows_until_it_is_enabled_again(running: Any) -> None:
    async with running(plugin("shaky", "Breaks", on_error="disable"), METRICS) as manager:
        assert "cpex_plugin_disabled{shaky}" not in await scrape(manager)
        await call(manager)
        assert (await scrape(manager))["cpex_plugin_disabled{shaky}"] == 1
        await manager.reset_runtime_disabled()
        assert "cpex_plugin_disabled{shaky}" not in await scrape(manager)


async def test_a_plugin_that_the_manager_started_without_shows(running: Any) -> None:
    async with running(plugin("absent", "Never", on_error="ignore"), METRICS) as manager:
        assert (await scrape(manager))["cpex_plugin_not_started{absent}"] == 1


async def test_calls_that_went_without_their_store_are_counted(running: Any) -> None:
    sample = "cpex_store_failures_total{t_live_limits,deny,redis}"
    async with running(METRICS) as manager:
        assert sample not in await scrape(manager)
        count_store_failure(StoreFailure("t_live_limits", "redis", "deny"))
        assert (await scrape(manager))[sample] == 1


async def test_the_records_of_sinks_are_counted(running: Any, tmp_path: Path) -> None:
    config = {"path": str(tmp_path / "events.jsonl"), "batch_interval_s": 3600, "drain_s": 60}
    sink = {"name": "t_live_file", "kind": "file", "mode": "fire_and_forget", "hooks": [PRE], "config": config}
    async with running(METRICS) as manager:
        async with running(sink) as other:
            await call(other)
            await other.executor.drain()
            assert (await scrape(manager))["cpex_sink_queue{t_live_file}"] == 1
        found = await scrape(manager)
    assert found["cpex_sink_records_total{delivered,t_live_file}"] == 1
    assert found.get("cpex_sink_queue{t_live_file}", 0) == 0


async def test_calls_of_message_hooks_are_counted_with_their_tool(running: Any, registry: CollectorRegistry) -> None:
    from cpex.framework.cmf.message import ContentType, Message, Role, ToolCall, ToolCallContentPart
    from cpex.framework.hooks.message import MessagePayload

    part = ToolCallContentPart(
        content_type=ContentType.TOOL_CALL, content=ToolCall(tool_call_id="1", name="search", arguments={})
    )
    message = Message(schema_version="2.0", role=Role.ASSISTANT, content=[part])
    hook = "cmf.tool_pre_invoke"
    async with running(METRICS | {"hooks": [hook], "config": {"tool_label": True}}) as manager:
        await manager.invoke_hook(hook, MessagePayload(message=message), GlobalContext(request_id="r"))
    labels = {"hook": hook, "decision": "allowed", "tool": "search"}
    assert registry.get_sample_value("cpex_hook_calls_total", labels) == 1
