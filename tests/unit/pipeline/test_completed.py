"""`hook_completed`: who is told of a decision, what they are told, and that telling disturbs nobody."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from support import (
    BEGUN_BY_THEN_S,
    FunctionPlugin,
    allow,
    call,
    deny,
    manager_of,
    never,
    other_tasks,
    plugin,
    record_of,
    tool_payload,
)

from cpex.framework.errors import PluginError, PluginViolationError
from cpex.framework.models.config import PluginCondition
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.outcome import HookOutcome
from cpex.framework.models.result import PluginResult

WAITED_FOR = ("sequential", "transform", "audit", "concurrent")


class Observing(FunctionPlugin):
    """A plugin that keeps the outcomes it is told of."""

    def __init__(self, handler: Callable[..., Awaitable[Any]], name: str = "p", **config: Any) -> None:
        made = plugin(handler, name, **config)
        super().__init__(made.config, handler)
        self.outcomes: list[HookOutcome] = []

    async def hook_completed(self, outcome: HookOutcome) -> None:
        self.outcomes.append(outcome)


class ObservingAll(Observing):
    """One that wants to know of every call."""

    observes_all = True


async def redacts(payload: Any, context: Any) -> PluginResult[Any]:
    return PluginResult(modified_payload=payload.model_copy(update={"args": {"card": "[REDACTED]"}}))


async def breaks(payload: Any, context: Any) -> PluginResult[Any]:
    raise ValueError("broken")


@pytest.mark.parametrize("mode", [*WAITED_FOR, "fire_and_forget"])
async def test_a_plugin_that_ran_is_told_once(mode: str) -> None:
    observing = Observing(allow, mode=mode)
    manager = manager_of(observing)
    await call(manager, context=GlobalContext(request_id="r", user="u", tenant_id="t", metadata={"session_id": "s"}))
    await manager.shutdown()
    (outcome,) = observing.outcomes
    assert (outcome.hook, outcome.request_id, outcome.allowed, outcome.violation) == (
        "tool_pre_invoke",
        "r",
        True,
        None,
    )
    assert (outcome.session, outcome.user, outcome.tenant_id, outcome.error_code) == ("s", "u", "t", None)
    assert outcome.payload == tool_payload()
    assert [record.plugin_name for record in outcome.executions] == ["p"]
    assert outcome.duration_ns > 0


async def test_it_is_told_after_the_decision_and_the_caller_does_not_wait() -> None:
    may_end, told = asyncio.Event(), asyncio.Event()

    class Slow(Observing):
        async def hook_completed(self, outcome: HookOutcome) -> None:
            await may_end.wait()
            told.set()

    manager = manager_of(Slow(allow))
    await call(manager)
    assert not told.is_set()
    may_end.set()
    await manager.shutdown()
    assert told.is_set()
    assert other_tasks() == set()


async def test_a_plugin_that_was_skipped_is_not_told_unless_it_observes_all() -> None:
    other_tool = [PluginCondition(tools={"other"})]
    skipped, all_seeing = Observing(allow, "a", conditions=other_tool), ObservingAll(allow, "b", conditions=other_tool)
    manager = manager_of(skipped, all_seeing, plugin(allow, "c"))
    await call(manager)
    await manager.shutdown()
    assert skipped.outcomes == []
    assert [record.plugin_name for record in all_seeing.outcomes[0].executions] == ["c"]


async def test_one_that_observes_all_is_told_of_hooks_that_it_has_no_handler_for() -> None:
    all_seeing = ObservingAll(allow, "a", hooks=[])
    manager = manager_of(all_seeing, plugin(deny, "b", hooks=["prompt_pre_fetch"]))
    await call(manager)
    await call(manager, hook="prompt_pre_fetch")
    await manager.shutdown()
    assert [(outcome.hook, outcome.allowed) for outcome in all_seeing.outcomes] == [
        ("tool_pre_invoke", True),
        ("prompt_pre_fetch", False),
    ]


async def test_a_plugin_behind_a_denial_did_not_run_and_is_not_told() -> None:
    before, behind = Observing(allow, "before", priority=1), Observing(allow, "behind", priority=3)
    manager = manager_of(before, plugin(deny, "denies", priority=2), behind)
    result, _ = await call(manager)
    await manager.shutdown()
    (outcome,) = before.outcomes
    assert (outcome.allowed, outcome.violation) == (False, result.violation)
    assert behind.outcomes == []


async def test_it_is_told_of_a_denial_that_the_host_gets_as_an_exception() -> None:
    observing = Observing(deny)
    manager = manager_of(observing)
    with pytest.raises(PluginViolationError):
        await call(manager, violations_as_exceptions=True)
    await manager.shutdown()
    assert [outcome.allowed for outcome in observing.outcomes] == [False]


@pytest.mark.parametrize("mode", ["sequential", "transform", "concurrent"])
async def test_it_is_told_of_a_failed_call(mode: str) -> None:
    observing = Observing(allow, "before", priority=1)
    manager = manager_of(observing, plugin(breaks, mode=mode, priority=2))
    with pytest.raises(PluginError):
        await call(manager)
    await manager.shutdown()
    (outcome,) = observing.outcomes
    assert (outcome.allowed, outcome.error_code) == (False, "plugin_error")
    assert record_of(outcome.executions).status == "error"


@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_it_is_told_of_a_cancelled_call(mode: str) -> None:
    running = asyncio.Event()

    async def waits(payload: Any, context: Any) -> PluginResult[Any]:
        if running.is_set():
            return PluginResult()
        running.set()
        return await never(payload, context)

    observing = Observing(allow, "before", priority=1, mode=mode)
    manager = manager_of(observing, plugin(waits, mode=mode, priority=2))
    host = asyncio.create_task(call(manager))
    await running.wait()
    host.cancel()
    with pytest.raises(asyncio.CancelledError):
        await host
    await manager.shutdown()
    (outcome,) = observing.outcomes
    assert (outcome.allowed, outcome.error_code) == (False, "cancelled")
    assert record_of(outcome.executions).status == "cancelled"


async def test_it_is_told_when_the_whole_call_ran_out_of_time() -> None:
    observing = Observing(allow, "before", priority=1)
    manager = manager_of(observing, plugin(never, priority=2), hook_timeout_s=BEGUN_BY_THEN_S)
    with pytest.raises(PluginError):
        await call(manager)
    await manager.shutdown()
    assert [outcome.error_code for outcome in observing.outcomes] == ["hook_timeout"]


async def test_it_sees_the_final_payload() -> None:
    observing = Observing(allow)
    manager = manager_of(observing, plugin(redacts, "redacts", mode="transform"))
    await call(manager, tool_payload(card="4111"))
    await manager.shutdown()
    assert observing.outcomes[0].payload.args == {"card": "[REDACTED]"}


async def test_of_a_denied_call_it_sees_the_payload_redacted() -> None:
    observing = Observing(deny)
    manager = manager_of(observing, plugin(redacts, "redacts", mode="transform"))
    await call(manager, tool_payload(card="4111"))
    await manager.shutdown()
    assert observing.outcomes[0].payload.args == {"card": "[REDACTED]"}


async def test_of_a_payload_that_cannot_be_redacted_it_sees_nothing_but_is_told() -> None:
    observing = Observing(deny)
    manager = manager_of(observing, plugin(breaks, "redacts", mode="transform", on_error="ignore"))
    await call(manager, tool_payload(card="4111"))
    await manager.shutdown()
    (outcome,) = observing.outcomes
    assert (outcome.allowed, outcome.payload) == (False, None)


async def test_the_payload_of_a_denied_call_is_redacted_once_for_all_who_see_it() -> None:
    runs = []

    async def counts(payload: Any, context: Any) -> PluginResult[Any]:
        runs.append(True)
        return await redacts(payload, context)

    first, second = Observing(deny, "a"), ObservingAll(allow, "b", mode="fire_and_forget")
    manager = manager_of(first, second, plugin(counts, "redacts", mode="transform"))
    await call(manager)
    await manager.shutdown()
    assert (len(first.outcomes), len(second.outcomes), len(runs)) == (1, 1, 1)


async def test_what_it_does_to_the_outcome_reaches_neither_host_nor_the_next_observer() -> None:
    class Edits(Observing):
        async def hook_completed(self, outcome: HookOutcome) -> None:
            assert outcome.payload.args == {"x": {"y": 1}}
            assert outcome.user == {"email": "e"}
            outcome.payload.args["x"]["y"] = 2
            outcome.user["email"] = "other"
            outcome.executions.clear()
            self.outcomes.append(outcome)

    host, payload = GlobalContext(request_id="r", user={"email": "e"}), tool_payload(x={"y": 1})
    first, second = Edits(allow, "a"), Edits(allow, "b")
    manager = manager_of(first, second)
    result, _ = await call(manager, payload, host)
    await manager.shutdown()
    assert (len(first.outcomes), len(second.outcomes)) == (1, 1)
    assert (payload.args, host.user, len(result.executions)) == ({"x": {"y": 1}}, {"email": "e"}, 2)


async def test_one_that_fails_is_logged_and_the_others_are_told(caplog: pytest.LogCaptureFixture) -> None:
    class Breaks(Observing):
        async def hook_completed(self, outcome: HookOutcome) -> None:
            raise ValueError("broken")

    told = Observing(allow, "told")
    manager = manager_of(Breaks(allow, "breaks"), told)
    result, _ = await call(manager)
    await manager.shutdown()
    assert result.continue_processing
    assert len(told.outcomes) == 1
    assert "Plugin breaks failed in hook_completed" in caplog.text


async def test_a_plugin_that_was_switched_off_did_not_run_and_is_not_told() -> None:
    observing = Observing(allow)
    manager = manager_of(observing)
    manager.executor.disabled.disable("p")
    await call(manager)
    await manager.shutdown()
    assert observing.outcomes == []


async def test_records_of_background_plugins_are_completed_in_what_it_was_told() -> None:
    may_end = asyncio.Event()

    async def slow(payload: Any, context: Any) -> PluginResult[Any]:
        await may_end.wait()
        raise ValueError("broken")

    observing = Observing(allow)
    manager = manager_of(observing, plugin(slow, "slow", mode="fire_and_forget"))
    result, _ = await call(manager)
    may_end.set()
    await result.wait_for_background_tasks()
    await manager.shutdown()
    assert record_of(observing.outcomes[0].executions, "slow").status == "error"


async def test_what_an_observer_does_to_records_reaches_neither_the_host_nor_another_observer() -> None:
    seen: list[tuple[str, str | None, list[str]]] = []

    async def completed(outcome: HookOutcome) -> None:
        record = outcome.executions[0]
        seen.append((str(record.status), record.reason, list(record.config_keys)))
        record.reason = "[REDACTED]"
        record.effective_allow = True
        record.config_keys.append("made up")

    first, second = plugin(deny, "a", config={"key": 1}), plugin(allow, "b")
    for each in (first, second):
        each.hook_completed = completed
        each.observes_all = True
    manager = manager_of(first, second)
    result, _ = await call(manager)
    await manager.shutdown()
    assert seen == [("completed", "because", ["key"])] * 2
    record = result.executions[0]
    assert (record.reason, record.effective_allow, record.config_keys) == ("because", False, ["key"])
