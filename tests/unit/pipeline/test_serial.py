"""Sequential, transform and audit plugins: their order, what they hand on, and what a halt leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support import BEGUN_BY_THEN_S, allow, call, denial, deny, manager_of, never, plugin, record_of, tool_payload

from cpex.framework.errors import PluginError, PluginViolationError
from cpex.framework.extensions import Extensions
from cpex.framework.hooks.tools import ToolPreInvokePayload, ToolPreInvokeResult
from cpex.framework.models.config import PluginCondition
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.result import PluginResult, PluginViolation

MODES = ("sequential", "transform", "audit", "concurrent", "fire_and_forget")
SERIAL = MODES[:3]


def noting(order: list[str], name: str) -> Callable[..., Any]:
    """A handler that notes its name."""

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        order.append(name)
        return PluginResult()

    return handler


def setting(**args: Any) -> Callable[..., Any]:
    """A handler that adds arguments to the call."""

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=payload.model_copy(update={"args": {**payload.args, **args}}))

    return handler


async def test_phases_run_in_the_order_of_modes_and_not_of_priorities() -> None:
    order: list[str] = []
    plugins = [plugin(noting(order, mode), mode, mode=mode, priority=10 - n) for n, mode in enumerate(MODES)]
    result, _ = await call(manager_of(*reversed(plugins)))
    await result.wait_for_background_tasks()
    assert order == list(MODES)
    assert [record.plugin_name for record in result.executions] == list(MODES)


@pytest.mark.parametrize("mode", SERIAL)
async def test_within_a_phase_the_lower_priority_runs_first_and_registration_breaks_ties(mode: str) -> None:
    order: list[str] = []
    priorities = {"a": 20, "b": 10, "c": 20, "d": 10}
    plugins = [plugin(noting(order, name), name, mode=mode, priority=n) for name, n in priorities.items()]
    await call(manager_of(*plugins))
    assert order == ["b", "d", "a", "c"]


async def test_a_hook_that_is_listed_twice_runs_twice() -> None:
    order: list[str] = []
    await call(manager_of(plugin(noting(order, "p"), hooks=["tool_pre_invoke", "tool_pre_invoke"])))
    assert order == ["p", "p"]


async def test_each_plugin_sees_what_the_ones_before_it_have_changed() -> None:
    seen = []

    async def looks(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(dict(payload.args))
        return PluginResult()

    manager = manager_of(
        plugin(setting(a=1), "first", priority=1),
        plugin(looks, "second", priority=2),
        plugin(setting(b=2), "third", mode="transform"),
        plugin(looks, "fourth", mode="audit"),
        plugin(looks, "fifth", mode="concurrent"),
    )
    payload = tool_payload(x=0)
    result, _ = await call(manager, payload)
    assert seen == [{"x": 0, "a": 1}, {"x": 0, "a": 1, "b": 2}, {"x": 0, "a": 1, "b": 2}]
    assert result.modified_payload.args == {"x": 0, "a": 1, "b": 2}
    assert payload.args == {"x": 0}


async def test_nothing_runs_after_a_sequential_denial_and_earlier_changes_stay() -> None:
    order: list[str] = []
    manager = manager_of(
        plugin(setting(a=1), "changes", priority=1),
        plugin(deny, "denies", priority=2),
        plugin(noting(order, "sequential"), "later", priority=3),
        *(plugin(noting(order, mode), mode, mode=mode) for mode in ("audit", "concurrent")),
    )
    result, table = await call(manager, tool_payload(x=0))
    assert order == []
    assert not result.continue_processing
    assert result.violation is not None
    assert (result.violation.code, result.violation.plugin_name) == ("NO", "denies")
    assert result.modified_payload.args == {"x": 0, "a": 1}
    assert [record.plugin_name for record in result.executions] == ["changes", "denies"]
    assert table is not None
    assert len(table) == 2


async def test_the_change_of_the_plugin_that_denies_is_dropped() -> None:
    async def both(payload: Any, context: Any) -> PluginResult[Any]:
        return denial(modified_payload=payload.model_copy(update={"args": {}}))

    result, _ = await call(manager_of(plugin(both)))
    assert result.modified_payload is None


async def test_a_halt_keeps_what_was_gathered_so_far() -> None:
    async def gathers(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(metadata={"m": 1, "both": 1}, retry_delay_ms=5, http_headers={"A": "1"})

    async def halts(payload: Any, context: Any) -> PluginResult[Any]:
        return denial(
            metadata={"n": 2, "both": 2}, retry_delay_ms=3, http_headers={"B": "2"}, denial_metadata={"spent": 7}
        )

    result, _ = await call(manager_of(plugin(gathers, "a", priority=1), plugin(halts, "b", priority=2)))
    assert result.metadata == {"m": 1, "n": 2, "both": 2}
    assert result.retry_delay_ms == 5
    assert result.http_headers == {"A": "1", "B": "2"}
    assert result.denial_metadata == {"spent": 7}


async def test_the_largest_retry_delay_of_all_modes_that_are_waited_for_counts() -> None:
    def delaying(delay: int) -> Callable[..., Any]:
        async def handler(payload: Any, context: Any) -> PluginResult[Any]:
            return PluginResult(retry_delay_ms=delay)

        return handler

    plugins = (plugin(delaying(n), mode, mode=mode) for n, mode in enumerate(MODES, start=1))
    result, _ = await call(manager_of(*plugins))
    assert result.retry_delay_ms == 4
    await result.wait_for_background_tasks()


async def test_a_denial_is_raised_when_the_host_wants_it_so_with_records_and_outcome() -> None:
    async def halts(payload: Any, context: Any) -> PluginResult[Any]:
        violation = PluginViolation(reason="because", description="it is so", code="NO", http_status_code=403)
        return PluginResult(continue_processing=False, violation=violation, denial_metadata={"spent": 7})

    background = []

    async def watches(payload: Any, context: Any) -> PluginResult[Any]:
        background.append(True)
        return PluginResult()

    manager = manager_of(
        plugin(setting(a=1), "changes", priority=1),
        plugin(halts, "denies", priority=2),
        plugin(watches, "watches", mode="fire_and_forget"),
    )
    with pytest.raises(PluginViolationError) as caught:
        await call(manager, violations_as_exceptions=True)
    await manager.shutdown()
    error = caught.value
    assert str(error) == "tool_pre_invoke blocked by plugin denies: NO - because (it is so)"
    assert error.executions is not None
    assert [record.plugin_name for record in error.executions] == ["changes", "denies"]
    assert error.denial_outcome is not None
    assert (error.denial_outcome.violation_code, error.denial_outcome.http_status_code) == ("NO", 403)
    assert dict(error.denial_outcome.metadata) == {"spent": 7}
    assert background == []


async def test_a_raised_violation_reaches_the_host_as_it_was_only_when_the_host_wants_exceptions() -> None:
    raised = PluginViolationError("shown to the user", PluginViolation(reason="r", description="d", code="C"))

    async def violates(payload: Any, context: Any) -> PluginResult[Any]:
        raise raised

    manager = manager_of(plugin(violates, on_error="ignore"))
    with pytest.raises(PluginViolationError) as caught:
        await call(manager, violations_as_exceptions=True)
    assert caught.value is raised
    assert raised.executions is not None
    assert record_of(raised.executions).error_code == "C"
    result, _ = await call(manager)
    assert result.violation is raised.violation
    assert result.violation is not None
    assert result.violation.plugin_name == "p"


async def test_a_raised_violation_without_details_still_says_why() -> None:
    async def violates(payload: Any, context: Any) -> PluginResult[Any]:
        raise PluginViolationError("not today")

    result, _ = await call(manager_of(plugin(violates)))
    assert result.violation is not None
    assert (result.violation.reason, result.violation.code) == ("not today", "plugin_violation")


@pytest.mark.parametrize("mode", ["transform", "audit"])
async def test_a_denial_that_does_not_count_is_warned_about_and_never_raised(
    mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    result, _ = await call(manager_of(plugin(deny, mode=mode)), violations_as_exceptions=True)
    assert result.continue_processing
    assert result.violation is None
    assert f"Plugin p raised violation in {mode} mode, so the call goes on: because (NO)" in caplog.text


async def test_a_transform_that_denies_may_still_change() -> None:
    async def both(payload: Any, context: Any) -> PluginResult[Any]:
        return denial(modified_payload=payload.model_copy(update={"args": {"a": 1}}), retry_delay_ms=4)

    result, _ = await call(manager_of(plugin(both, mode="transform")))
    record = record_of(result.executions)
    assert result.modified_payload.args == {"a": 1}
    assert result.retry_delay_ms == 4
    assert (record.requested_allow, record.effective_allow, record.applied) == (False, True, True)


async def test_a_violation_beside_an_allow_is_dropped() -> None:
    async def warns(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(violation=PluginViolation(reason="r", description="d", code="C"))

    result, _ = await call(manager_of(plugin(warns)))
    assert result.violation is None
    assert result.continue_processing


async def test_the_error_of_a_failed_call_says_what_happened_so_far() -> None:
    cause = ValueError("broken")

    async def breaks(payload: Any, context: Any) -> PluginResult[Any]:
        raise cause

    with pytest.raises(PluginError) as caught:
        await call(manager_of(plugin(allow, "first", priority=1), plugin(breaks, "breaks", priority=2)))
    error = caught.value
    assert (str(error), error.error.plugin_name, error.__cause__) == ("ValueError('broken')", "breaks", cause)
    assert error.executions is not None
    assert [(record.plugin_name, record.status) for record in error.executions] == [
        ("first", "completed"),
        ("breaks", "error"),
    ]


async def test_an_error_of_the_framework_s_own_kind_is_passed_on_as_it_is() -> None:
    from cpex.framework.models.result import PluginErrorModel

    raised = PluginError(PluginErrorModel(message="m", plugin_name="other", code="mine", mcp_error_code=-32000))

    async def breaks(payload: Any, context: Any) -> PluginResult[Any]:
        raise raised

    with pytest.raises(PluginError) as caught:
        await call(manager_of(plugin(breaks)))
    assert caught.value is raised


async def test_conditions_are_judged_on_the_payload_as_it_stands_at_the_plugin_s_turn() -> None:
    async def renames(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=payload.model_copy(update={"name": "renamed"}))

    order: list[str] = []

    def only(*tools: str) -> list[PluginCondition]:
        return [PluginCondition(tools=set(tools))]

    result, _ = await call(
        manager_of(
            plugin(renames, "renames", priority=1),
            plugin(noting(order, "old"), "old", priority=2, conditions=only("t")),
            plugin(noting(order, "new"), "new", priority=2, conditions=only("renamed")),
        )
    )
    assert order == ["new"]
    assert [record.plugin_name for record in result.executions] == ["renames", "new"]


async def test_when_every_plugin_is_skipped_the_result_is_empty_and_so_is_the_table() -> None:
    manager = manager_of(plugin(deny, conditions=[PluginCondition(tools={"other"})]))
    result, table = await call(manager)
    assert result == PluginResult()
    assert table == {}


async def test_a_typed_result_is_as_good_as_a_plain_one() -> None:
    async def typed(payload: Any, context: Any) -> ToolPreInvokeResult:
        return ToolPreInvokeResult(modified_payload=ToolPreInvokePayload(name="u", args={}))

    result, _ = await call(manager_of(plugin(typed)))
    assert type(result) is PluginResult
    assert result.modified_payload == ToolPreInvokePayload(name="u", args={})


async def test_a_coroutine_that_was_never_awaited_is_an_error_and_leaves_no_warning() -> None:
    async def forgets(payload: Any, context: Any) -> Any:
        return allow(payload, context)

    with pytest.raises(PluginError) as caught:
        await call(manager_of(plugin(forgets)))
    assert "returned a coroutine that was never awaited" in str(caught.value)


async def test_a_payload_of_a_foreign_class_is_the_error_of_the_plugin_that_returned_it() -> None:
    async def foreign(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=PluginViolation(reason="r", description="d", code="c"))

    result, _ = await call(manager_of(plugin(foreign, on_error="ignore")))
    assert record_of(result.executions).status == "error"
    assert result.modified_payload is None


async def test_nothing_of_an_answer_counts_when_a_part_of_it_is_an_error() -> None:
    async def half(payload: Any, context: Any) -> PluginResult[Any]:
        extensions = Extensions(custom={"a": 1})
        return PluginResult(modified_extensions=extensions, modified_payload=3, metadata={"m": 1}, retry_delay_ms=9)

    result, _ = await call(manager_of(plugin(half, on_error="ignore")), extensions=Extensions())
    assert record_of(result.executions).status == "error"
    assert (result.modified_extensions, result.metadata, result.retry_delay_ms) == (None, {}, 0)


async def test_metadata_merges_by_key_without_the_framework_s_own() -> None:
    def adding(**metadata: Any) -> Callable[..., Any]:
        async def handler(payload: Any, context: Any) -> PluginResult[Any]:
            return PluginResult(metadata=metadata)

        return handler

    result, _ = await call(
        manager_of(
            plugin(adding(a=1, b=1), "a"),
            plugin(adding(b=2, _decision_plugin="me"), "b", mode="audit"),
            plugin(adding(c=3), "c", mode="concurrent"),
        )
    )
    assert result.metadata == {"a": 1, "b": 2, "c": 3}


async def test_a_whole_call_that_runs_out_of_time_blames_the_running_plugin_and_its_rule_does_not_count() -> None:
    ended = []

    async def waits(payload: Any, context: Any) -> PluginResult[Any]:
        try:
            return await never(payload, context)
        finally:
            ended.append(True)

    manager = manager_of(
        plugin(allow, "first", priority=1),
        plugin(waits, "slow", priority=2, on_error="ignore"),
        plugin(deny, "never", priority=3),
        hook_timeout_s=BEGUN_BY_THEN_S,
    )
    with pytest.raises(PluginError) as caught:
        await call(manager)
    error = caught.value
    assert (error.error.code, error.error.plugin_name, ended) == ("hook_timeout", "slow", [True])
    assert error.executions is not None
    assert [(record.plugin_name, record.error_code) for record in error.executions] == [
        ("first", None),
        ("slow", "hook_timeout"),
    ]


async def test_a_plugin_whose_own_time_is_shorter_than_the_call_s_is_timed_out_by_it() -> None:
    manager = manager_of(plugin(never, on_error="ignore", timeout_s=0.02), plugin(allow, "after"), hook_timeout_s=30)
    result, _ = await call(manager)
    assert [record.error_code for record in result.executions] == ["plugin_timeout", None]


async def test_calls_at_the_same_time_do_not_mix() -> None:
    turn = asyncio.Event()

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        await turn.wait()
        return PluginResult(metadata={payload.args["key"]: 1}, retry_delay_ms=payload.args["n"])

    manager = manager_of(plugin(handler))
    calls = [
        asyncio.create_task(call(manager, tool_payload(key=f"k{n}", n=n), GlobalContext(request_id=str(n))))
        for n in range(20)
    ]
    await asyncio.sleep(0)
    turn.set()
    for n, (result, table) in enumerate(await asyncio.gather(*calls)):
        assert (result.metadata, result.retry_delay_ms, len(result.executions)) == ({f"k{n}": 1}, n, 1)
        assert table is not None
        assert [key.startswith(str(n)) for key in table] == [True]
