"""`on_error: disable`: a plugin that failed is switched off where everybody can see it, and comes back."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest
from support import FunctionPlugin, call, manager_of, never, plugin, record_of

from cpex.framework.clock import FixedClock, use_clock
from cpex.framework.errors import PluginError
from cpex.framework.models.result import PluginResult

MODES = ("sequential", "transform", "audit", "concurrent", "fire_and_forget")


class Flaky:
    """A handler that fails while `broken` is set, and counts."""

    def __init__(self) -> None:
        self.broken = True
        self.calls = 0

    async def handler(self, payload: Any, context: Any) -> PluginResult[Any]:
        self.calls += 1
        if self.broken:
            raise ValueError("broken")
        return PluginResult()

    def plugin(self, **config: Any) -> FunctionPlugin:
        return plugin(self.handler, **{"on_error": "disable", **config})


async def settled_call(manager: Any, **options: Any) -> PluginResult[Any]:
    """A call, background plugins included."""
    result, _ = await call(manager, **options)
    await result.wait_for_background_tasks()
    return result


@pytest.mark.parametrize("mode", MODES)
async def test_a_plugin_that_failed_is_not_called_again_and_its_record_says_why(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    flaky = Flaky()
    manager = manager_of(flaky.plugin(mode=mode))
    await settled_call(manager)
    assert manager.disabled_plugins == {"p"}
    assert "Plugin p is disabled after a failure (on_error: disable)" in caplog.text
    record = record_of((await settled_call(manager)).executions)
    assert (record.status, record.requested_allow, record.effective_allow) == ("disabled", None, True)
    assert (record.pending, flaky.calls) == (False, 1)


@pytest.mark.parametrize("mode", MODES)
async def test_a_timeout_switches_off_as_well(mode: str) -> None:
    manager = manager_of(plugin(never, on_error="disable", timeout_s=0.02, mode=mode))
    await settled_call(manager)
    assert manager.disabled_plugins == {"p"}


async def test_it_is_off_in_all_of_its_hooks() -> None:
    flaky = Flaky()
    manager = manager_of(flaky.plugin(hooks=["tool_pre_invoke", "prompt_pre_fetch"]))
    await settled_call(manager)
    result = await settled_call(manager, hook="prompt_pre_fetch")
    assert (record_of(result.executions).status, flaky.calls) == ("disabled", 1)


async def test_it_is_off_for_the_rest_of_the_very_call_in_which_it_failed() -> None:
    flaky = Flaky()
    manager = manager_of(flaky.plugin(hooks=["tool_pre_invoke", "tool_pre_invoke"]))
    result = await settled_call(manager)
    assert [record.status for record in result.executions] == ["error", "disabled"]


async def test_a_reset_switches_it_on_again() -> None:
    flaky = Flaky()
    manager = manager_of(flaky.plugin())
    await settled_call(manager)
    await manager.reset_runtime_disabled()
    flaky.broken = False
    assert manager.disabled_plugins == frozenset()
    assert record_of((await settled_call(manager)).executions).status == "completed"


async def test_without_a_cool_down_it_stays_off() -> None:
    flaky = Flaky()
    with use_clock(FixedClock(datetime(2030, 1, 1, tzinfo=UTC))) as clock:
        manager = manager_of(flaky.plugin())
        await settled_call(manager)
        clock.advance(1e6)
        await settled_call(manager)
    assert flaky.calls == 1


@pytest.mark.parametrize("mode", MODES)
async def test_after_the_cool_down_one_trial_that_succeeds_switches_it_on(mode: str) -> None:
    flaky, clock = Flaky(), FixedClock(datetime(2030, 1, 1, tzinfo=UTC))
    with use_clock(clock):
        manager = manager_of(flaky.plugin(mode=mode, disable_cooldown_s=60))
        await settled_call(manager)
        clock.advance(59)
        assert record_of((await settled_call(manager)).executions).status == "disabled"
        flaky.broken = False
        clock.advance(1)
        assert record_of((await settled_call(manager)).executions).status == "completed"
        assert manager.disabled_plugins == frozenset()
        assert record_of((await settled_call(manager)).executions).status == "completed"


@pytest.mark.parametrize("mode", MODES)
async def test_a_trial_that_fails_starts_the_cool_down_anew(mode: str) -> None:
    flaky, clock = Flaky(), FixedClock(datetime(2030, 1, 1, tzinfo=UTC))
    with use_clock(clock):
        manager = manager_of(flaky.plugin(mode=mode, disable_cooldown_s=60))
        await settled_call(manager)
        clock.advance(60)
        await settled_call(manager)
        assert manager.disabled_plugins == {"p"}
        clock.advance(59)
        await settled_call(manager)
        assert flaky.calls == 2
        clock.advance(1)
        await settled_call(manager)
        assert flaky.calls == 3


async def test_while_a_trial_runs_other_calls_do_without_the_plugin() -> None:
    trial_runs, may_end = asyncio.Event(), asyncio.Event()
    calls = 0

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("broken")
        trial_runs.set()
        await may_end.wait()
        return PluginResult()

    clock = FixedClock(datetime(2030, 1, 1, tzinfo=UTC))
    with use_clock(clock):
        manager = manager_of(plugin(handler, on_error="disable", disable_cooldown_s=60))
        await settled_call(manager)
        clock.advance(60)
        trial = asyncio.create_task(settled_call(manager))
        await trial_runs.wait()
        assert record_of((await settled_call(manager)).executions).status == "disabled"
        may_end.set()
        assert record_of((await trial).executions).status == "completed"
    assert (calls, manager.disabled_plugins) == (2, frozenset())


async def test_a_turn_that_began_before_the_plugin_was_switched_off_does_not_switch_it_on() -> None:
    running, may_end = asyncio.Event(), asyncio.Event()

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        if not running.is_set():
            running.set()
            await may_end.wait()
            return PluginResult()
        raise ValueError("broken")

    manager = manager_of(plugin(handler, on_error="disable"))
    # Something else that is off, so that the call looks at what is off at all.
    manager.executor.disabled.disable("other")
    slow = asyncio.create_task(settled_call(manager))
    await running.wait()
    await settled_call(manager)
    may_end.set()
    await slow
    assert manager.disabled_plugins == {"p", "other"}


async def test_managers_do_not_share_what_is_switched_off() -> None:
    flaky = Flaky()
    first, second = manager_of(flaky.plugin()), manager_of(flaky.plugin())
    await settled_call(first)
    assert (first.disabled_plugins, second.disabled_plugins) == ({"p"}, frozenset())


async def test_a_plugin_that_fails_the_call_is_not_switched_off() -> None:
    flaky = Flaky()
    manager = manager_of(flaky.plugin(on_error="fail"))
    for _ in range(2):
        with pytest.raises(PluginError):
            await call(manager)
    assert (flaky.calls, manager.disabled_plugins) == (2, frozenset())
