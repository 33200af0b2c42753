"""The latency tracker, seen through a manager, its registry and its log."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from pydantic import ValidationError

from cpex.builtins.observability.latency_tracker import LatencyTrackerPlugin
from cpex.framework import (
    GlobalContext,
    PluginConfig,
    PluginError,
    TenantPluginManager,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
    clock,
)

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
METRIC = "cpex_operation_duration_seconds"
MODES = ["fire_and_forget", "audit", "sequential", "concurrent"]


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> CollectorRegistry:
    """A registry of the test's own, in the place of the process's."""
    own = CollectorRegistry()
    monkeypatch.setattr("prometheus_client.REGISTRY", own)
    return own


def tracker(mode: str = "fire_and_forget", **settings: Any) -> dict[str, Any]:
    return {
        "name": "latency",
        "kind": "observability.LatencyTrackerPlugin",
        "mode": mode,
        "hooks": ["tool_pre_invoke", "tool_post_invoke"],
        "config": settings or None,
    }


async def operate(
    manager: TenantPluginManager, tool: str, seconds: float, now: clock.FixedClock, result: Any = "ok"
) -> dict[str, Any]:
    """What a host does for one tool call that takes some seconds; returns what its contexts hold."""
    context = GlobalContext(request_id="r1")
    first, table = await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name=tool), context)
    await manager.executor.drain()
    if not first.continue_processing:
        return {}
    now.advance(seconds)
    payload = ToolPostInvokePayload(name=tool, result=result)
    _, table = await manager.invoke_hook("tool_post_invoke", payload, context, local_contexts=table)
    await manager.executor.drain()
    return {key: value for each in (table or {}).values() for key, value in each.state.items()}


def observed(registry: CollectorRegistry, tool: str, outcome: str = "completed") -> tuple[float | None, float | None]:
    labels = {"operation": "tool", "name": tool, "outcome": outcome}
    return (
        registry.get_sample_value(f"{METRIC}_count", labels),
        registry.get_sample_value(f"{METRIC}_sum", labels),
    )


@pytest.mark.parametrize("mode", MODES)
async def test_an_operation_is_measured_from_its_decision_to_its_post_hook(
    running: Any, registry: CollectorRegistry, mode: str
) -> None:
    with clock.use_clock(clock.FixedClock(NOON)) as now:
        async with running(tracker(mode)) as manager:
            await operate(manager, "search", 200.0, now)
            await operate(manager, "search", 300.0, now)
    count, total = observed(registry, "search")
    assert count == 2
    # The fixed clock stands still while the hooks run, which the stopwatch does not.
    assert total == pytest.approx(500.0, abs=120)


async def test_where_the_caller_waits_the_latency_is_in_the_plugins_context(
    running: Any, registry: CollectorRegistry
) -> None:
    with clock.use_clock(clock.FixedClock(NOON)) as now:
        async with running(tracker("audit")) as manager:
            state = await operate(manager, "search", 2.0, now)
    assert state["tool_latency_ms"] == pytest.approx(2000)


async def test_an_operation_whose_result_is_an_error_is_told_apart(running: Any, registry: CollectorRegistry) -> None:
    with clock.use_clock(clock.FixedClock(NOON)) as now:
        async with running(tracker()) as manager:
            await operate(manager, "search", 1.0, now, result={"isError": True})
    assert observed(registry, "search", "errored")[0] == 1
    assert observed(registry, "search")[0] is None


async def test_operations_of_message_hooks_are_measured_by_their_tool(
    running: Any, registry: CollectorRegistry
) -> None:
    from cpex.framework.cmf.message import (
        Message,
        Role,
        ToolCall,
        ToolCallContentPart,
        ToolResult,
        ToolResultContentPart,
    )
    from cpex.framework.hooks.message import MessagePayload

    asked = ToolCallContentPart(content=ToolCall(tool_call_id="1", name="search", arguments={}))
    done = ToolResultContentPart(content=ToolResult(tool_call_id="1", tool_name="search", content="x"))
    pre, post = "cmf.tool_pre_invoke", "cmf.tool_post_invoke"
    with clock.use_clock(clock.FixedClock(NOON)) as now:
        async with running(tracker() | {"hooks": [pre, post]}) as manager:
            for hook, role, part in ((pre, Role.ASSISTANT, asked), (post, Role.TOOL, done)):
                message = MessagePayload(message=Message(schema_version="2.0", role=role, content=[part]))
                await manager.invoke_hook(hook, message, GlobalContext(request_id="r1"))
                await manager.executor.drain()
                now.advance(200)
    assert observed(registry, "search")[1] == pytest.approx(200.0, abs=60)


async def test_a_denied_call_is_no_operation(
    running: Any, registry: CollectorRegistry, allow_list: dict[str, Any]
) -> None:
    with clock.use_clock(clock.FixedClock(NOON)) as now:
        async with running(tracker(), allow_list) as manager:
            await operate(manager, "delete", 1.0, now)
            plugin = manager.get_plugin("latency")
    assert isinstance(plugin, LatencyTrackerPlugin)
    assert (observed(registry, "delete")[0], plugin.last, plugin.forgotten) == (None, None, 0)


async def test_names_beyond_the_bound_are_one(running: Any, registry: CollectorRegistry) -> None:
    with clock.use_clock(clock.FixedClock(NOON)) as now:
        async with running(tracker(max_names=2)) as manager:
            for tool in ("a", "b", "c", "d", "a"):
                await operate(manager, tool, 1.0, now)
    assert [observed(registry, name)[0] for name in ("a", "b", "c", "other")] == [2, 1, None, 2]


async def test_a_slow_operation_is_warned_about_once_a_minute(
    running: Any, registry: CollectorRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    with clock.use_clock(clock.FixedClock(NOON)) as now:
        async with running(tracker(slow_s=10)) as manager:
            for seconds in (1.0, 20.0, 25.0, 70.0):
                await operate(manager, "search", seconds, now)
    told = [each.getMessage() for each in caplog.records if each.name.endswith("latency_tracker")]
    assert len(told) == 2
    # What the framework itself took is measured by a real stopwatch, so the figure is not to the millisecond.
    figure = re.search(r"took \d+\.\d{3} s", told[0])
    assert figure is not None
    assert told[0].replace(figure[0], "took 20 s") == (
        "Plugin 'latency': tool `search` took 20 s (completed); slow is from 10 s on; logged at most once a minute"
    )


async def test_operations_that_never_end_are_forgotten(running: Any, registry: CollectorRegistry) -> None:
    async with running(tracker(max_open=2)) as manager:
        plugin = manager.get_plugin("latency")
        for number in range(5):
            context = GlobalContext(request_id=str(number))
            await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="search"), context)
    assert isinstance(plugin, LatencyTrackerPlugin)
    assert plugin.forgotten == 5


async def test_trackers_of_several_managers_share_one_histogram(running: Any, registry: CollectorRegistry) -> None:
    with clock.use_clock(clock.FixedClock(NOON)) as now:
        async with running(tracker()) as one, running(tracker()) as other:
            await operate(one, "search", 1.0, now)
            await operate(other, "search", 1.0, now)
    assert observed(registry, "search")[0] == 2


async def test_a_registry_with_another_histogram_of_that_name_stops_the_start(registry: CollectorRegistry) -> None:
    one = LatencyTrackerPlugin(PluginConfig(name="a", kind="k"))
    other = LatencyTrackerPlugin(PluginConfig(name="b", kind="k", config={"buckets": [1.0]}))
    await one.initialize()
    await one.initialize()
    with pytest.raises(PluginError, match="exist in this registry with other buckets or labels") as failure:
        await other.initialize()
    assert failure.value.error.code == "metrics_unavailable"
    await one.shutdown()
    await one.shutdown()


@pytest.mark.parametrize("settings", [{"buckets": [2.0, 1.0]}, {"slow_s": 0}, {"slow_ms": 1}])
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        LatencyTrackerPlugin(PluginConfig(name="m", kind="k", config=settings))
