"""What no call, however it ends, and no manager leaves behind."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from support import (
    FunctionPlugin,
    SpanLog,
    Watching,
    allow,
    call,
    manager_of,
    never,
    other_tasks,
    plugin,
)

from cpex.framework.errors import PluginError
from cpex.framework.models.result import PluginResult
from cpex.framework.observability import current_trace_id

SERIAL = ("sequential", "transform", "audit")
MODES = (*SERIAL, "concurrent", "fire_and_forget")


async def fails(payload: Any, context: Any) -> PluginResult[Any]:
    """Fails after a while."""
    await asyncio.sleep(0)
    raise ValueError("broken")


async def test_a_shutdown_also_waits_for_background_work_that_background_work_has_started() -> None:
    calls = 0

    async def calls_again(payload: Any, context: Any) -> PluginResult[Any]:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)
        if calls < 4:
            await call(manager)
        return PluginResult()

    manager = manager_of(plugin(calls_again, mode="fire_and_forget"))
    await call(manager)
    await manager.shutdown()
    assert (calls, other_tasks()) == (4, set())


async def test_shutdowns_at_the_same_time_shut_each_plugin_down_once() -> None:
    shut_down = 0

    class Counts(FunctionPlugin):
        async def shutdown(self) -> None:
            nonlocal shut_down
            shut_down += 1
            await asyncio.sleep(0)

    manager = manager_of(Counts(plugin(allow).config, allow))
    await asyncio.gather(manager.shutdown(), manager.shutdown())
    assert shut_down == 1


def test_a_manager_can_be_started_and_stopped_by_several_at_once_in_one_loop_after_another() -> None:
    class Slow(FunctionPlugin):
        async def shutdown(self) -> None:
            await asyncio.sleep(0)

    async def use() -> None:
        await asyncio.gather(manager.shutdown(), manager.shutdown(), manager.initialize(), manager.initialize())
        await asyncio.gather(manager.shutdown(), manager.shutdown())

    manager = manager_of(Slow(plugin(allow).config, allow))
    for _ in range(2):
        asyncio.run(use())
    assert manager.initialized is False


async def _quietly(running: asyncio.Task[Any]) -> None:
    try:
        await running
    except (asyncio.CancelledError, PluginError):
        pass


@pytest.mark.parametrize("mode", [*SERIAL, "concurrent"])
@pytest.mark.parametrize("how", ["is cancelled", "times out", "fails"])
async def test_a_call_that_ends_early_leaves_nothing_to_the_garbage_collector(mode: str, how: str) -> None:
    handler = fails if how == "fails" else never
    manager = manager_of(
        plugin(handler, "a", mode=mode, on_error="ignore"),
        plugin(handler, "b", mode=mode, on_error="ignore"),
        timeout=None if how == "is cancelled" else 0.001,
    )

    async def use(times: int) -> None:
        for _ in range(times):
            running = asyncio.create_task(call(manager))
            for _ in range(3):
                await asyncio.sleep(0)
            if how == "is cancelled":
                running.cancel()
            await _quietly(running)

    await use(3)
    gc.collect()
    gc.disable()
    try:
        await use(20)
        found = gc.collect()
    finally:
        gc.enable()
    # The last call's exception may still be looked at; twenty calls' worth would be hundreds of objects.
    assert found < 100


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("turns", range(10))
async def test_whenever_a_call_is_cancelled_it_leaves_no_task_no_open_span_and_one_true_outcome(
    mode: str, turns: int
) -> None:
    async def waits(payload: Any, context: Any) -> PluginResult[Any]:
        try:
            await asyncio.sleep(0)
        finally:
            await asyncio.sleep(0)
        return PluginResult()

    spans, watching = SpanLog(), Watching(waits, mode=mode)
    current_trace_id.set("trace")
    manager = manager_of(
        watching,
        plugin(waits, "other", mode=mode),
        plugin(waits, "telemetry", mode="fire_and_forget"),
        observability=spans,
    )
    running = asyncio.create_task(call(manager))
    for _ in range(turns):
        await asyncio.sleep(0)
    running.cancel()
    await _quietly(running)
    assert not [task for task in other_tasks() if task.get_name() == "cpex:concurrent"]
    await manager.shutdown()
    assert (other_tasks(), spans.open()) == (set(), [])
    # A call that was cancelled before its first turn never began.
    assert len(watching.outcomes) == min(1, len(spans.started))
    for outcome in watching.outcomes:
        assert outcome.allowed is not running.cancelled()
        names = [record.plugin_name for record in outcome.executions]
        assert len(names) == len(set(names))
        assert not any(record.pending for record in outcome.executions)
