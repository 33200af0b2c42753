"""Decisions about time, tasks and shared state."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest
from support import allow, call, denial, manager_of, never, other_tasks, plugin, record_of

from cpex.framework import GlobalContext, PluginError, PluginResult

VARIABLE: ContextVar[str] = ContextVar("VARIABLE", default="unset")


@pytest.mark.conformance("D18")
async def test_a_plugins_own_limit_comes_before_the_managers() -> None:
    result, _ = await call(manager_of(plugin(never, timeout_s=0.02, on_error="ignore"), timeout=None))
    assert record_of(result.executions).reason == "Plugin p exceeded 0.02s timeout"
    with pytest.raises(PluginError, match=r"^Plugin p exceeded 0\.02s timeout$"):
        await call(manager_of(plugin(never), timeout=0.02))


@pytest.mark.conformance("D18")
@pytest.mark.parametrize("mode", ["sequential", "concurrent"])
async def test_a_call_that_takes_too_long_fails_whatever_on_error_says(mode: str) -> None:
    running = plugin(never, "slow", mode=mode, on_error="ignore")
    manager = manager_of(plugin(allow, "first"), running, hook_timeout_s=0.05)
    with pytest.raises(PluginError) as caught:
        await call(manager)
    error = caught.value
    assert (error.error.code, error.error.plugin_name) == ("hook_timeout", "slow")
    assert [each.status for each in error.executions] == ["completed", "timeout"]


@pytest.mark.conformance("D18")
async def test_a_timeout_error_of_the_plugins_own_is_its_error() -> None:
    async def raises(payload: Any, context: Any) -> PluginResult[Any]:
        raise TimeoutError("the database")

    result, _ = await call(manager_of(plugin(raises, on_error="ignore")))
    record = record_of(result.executions)
    assert (record.status, record.error_code) == ("error", "plugin_error")


@pytest.mark.conformance("D18a")
@pytest.mark.parametrize("suspends", [False, True])
@pytest.mark.parametrize("mode", ["sequential", "concurrent"])
async def test_context_variables_flow_in_and_never_out(mode: str, suspends: bool) -> None:
    seen = []

    async def sets(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(VARIABLE.get())
        VARIABLE.set("of a plugin")
        if suspends:
            await asyncio.sleep(0)
        seen.append(VARIABLE.get())
        return PluginResult()

    VARIABLE.set("of the host")
    await call(manager_of(plugin(sets, "a", mode=mode)))
    await call(manager_of(plugin(sets, "b", mode=mode)))
    assert seen == ["of the host", "of a plugin"] * 2
    assert VARIABLE.get() == "of the host"


@pytest.mark.conformance("D19")
@pytest.mark.parametrize("ends", ["fails", "denies", "cancelled"])
async def test_no_concurrent_sibling_outlives_the_call(ends: str) -> None:
    waiting, cleaned = asyncio.Event(), []

    async def slow(payload: Any, context: Any) -> PluginResult[Any]:
        waiting.set()
        try:
            return await never(payload, context)
        finally:
            # Its clean-up takes a turn of the loop; the call waits for it.
            await asyncio.sleep(0)
            cleaned.append(1)

    async def first(payload: Any, context: Any) -> PluginResult[Any]:
        await waiting.wait()
        if ends == "fails":
            raise RuntimeError("broken")
        return denial() if ends == "denies" else await never(payload, context)

    manager = manager_of(plugin(first, "first", mode="concurrent"), plugin(slow, "slow", mode="concurrent"))
    host = asyncio.create_task(call(manager))
    await waiting.wait()
    if ends == "cancelled":
        host.cancel()
        with pytest.raises(asyncio.CancelledError):
            await host
    elif ends == "fails":
        with pytest.raises(PluginError) as caught:
            await host
        assert record_of(caught.value.executions, "slow").status == "cancelled"
    else:
        await host
    assert (cleaned, other_tasks()) == ([1], set())


@pytest.mark.conformance("D19")
async def test_concurrent_state_merges_by_key_and_priority() -> None:
    second_is_done = asyncio.Event()

    async def first(payload: Any, context: Any) -> PluginResult[Any]:
        await second_is_done.wait()
        context.global_context.state["both"] = "first"
        context.global_context.state["nested"]["a"] = 1
        return PluginResult()

    async def second(payload: Any, context: Any) -> PluginResult[Any]:
        context.global_context.state["both"] = "second"
        del context.global_context.state["gone"]
        second_is_done.set()
        return PluginResult()

    request = GlobalContext(request_id="r", state={"nested": {}, "gone": 1, "untouched": 1})
    manager = manager_of(
        plugin(first, "first", mode="concurrent", priority=1), plugin(second, "second", mode="concurrent", priority=2)
    )
    await call(manager, context=request)
    # The later in priority has the last word, although it ended first; what nobody wrote is not written back.
    assert request.state == {"nested": {"a": 1}, "untouched": 1, "both": "second"}


@pytest.mark.conformance("D19")
@pytest.mark.parametrize("mode", ["sequential", "transform"])
async def test_deletions_reach_the_host(mode: str) -> None:
    async def deletes(payload: Any, context: Any) -> PluginResult[Any]:
        del context.global_context.state["gone"]
        context.global_context.metadata.clear()
        return PluginResult()

    request = GlobalContext(request_id="r", state={"gone": 1, "kept": 1}, metadata={"m": 1})
    await call(manager_of(plugin(deletes, mode=mode)), context=request)
    assert (request.state, request.metadata) == ({"kept": 1}, {})
