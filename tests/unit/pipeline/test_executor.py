"""The executor: compiled plans, the byte budget, lists of handlers, and single handlers."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from support import allow, call, denial, deny, manager_of, never, plugin, record_of, tool_payload

from cpex.framework.base import HookRef, PluginRef
from cpex.framework.errors import PayloadSizeError, PluginError, PluginTimeoutError, PluginViolationError
from cpex.framework.hooks.tools import ToolPostInvokePayload
from cpex.framework.models.config import PluginCondition
from cpex.framework.models.context import GlobalContext, PluginContext
from cpex.framework.models.mode import PluginMode
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult, PluginViolation
from cpex.framework.pipeline.executor import Executor
from cpex.framework.pipeline.plan import compile_plan


def ref_of(handler: Any, **config: Any) -> HookRef:
    """A handler as the registry would hold it."""
    return HookRef("tool_pre_invoke", PluginRef(plugin(handler, **config)))


def context() -> PluginContext:
    return PluginContext(global_context=GlobalContext(request_id="r"))


# Plans.


def test_a_plan_sorts_each_phase_by_priority_stably() -> None:
    priorities = [30, 10, 20, 10, 30]
    refs = [
        ref_of(allow, name=f"{mode}-{n}", mode=mode, priority=priority)
        for mode in reversed(PluginMode)
        if mode is not PluginMode.DISABLED
        for n, priority in enumerate(priorities)
    ]
    plan = compile_plan("tool_pre_invoke", refs)
    in_order = [1, 3, 2, 0, 4]
    modes = ("sequential", "transform", "audit", "concurrent", "fire_and_forget")
    assert [step.name for step in plan.steps] == [f"{mode}-{n}" for mode in modes for n in in_order]
    assert plan.chain_length == 25


def test_a_plugin_in_disabled_mode_counts_in_the_chain_and_takes_no_turn() -> None:
    plan = compile_plan("tool_pre_invoke", [ref_of(allow, mode="disabled")])
    assert (plan.steps, plan.chain_length) == ((), 1)


async def test_only_a_disabled_plugin_leaves_an_empty_result_and_an_empty_table() -> None:
    result, table = await call(manager_of(plugin(deny, mode="disabled")))
    assert (result, table) == (PluginResult(), {})


# The byte budget.


def sized(size: int) -> Any:
    """A payload of so many bytes: the tool's name is one."""
    return tool_payload(a="x" * (size - 1 - len("a") - 8))


@pytest.mark.parametrize("config", [{}, {"mode": "disabled"}, {"conditions": [PluginCondition(tools={"other"})]}])
async def test_a_payload_over_the_budget_is_refused_before_any_plugin_runs(config: dict[str, Any]) -> None:
    ran = []

    async def notes(payload: Any, context: Any) -> PluginResult[Any]:
        ran.append(True)
        return PluginResult()

    manager = manager_of(plugin(notes, **config), max_payload_bytes=1000)
    await call(manager, sized(1000))
    ran.clear()
    with pytest.raises(PayloadSizeError) as caught:
        await call(manager, sized(1001))
    assert str(caught.value) == "Payload size 1001 exceeds limit of 1000 bytes"
    assert ran == []


async def test_a_result_over_the_budget_is_called_so() -> None:
    manager = manager_of(plugin(allow, hooks=["tool_post_invoke"]), max_payload_bytes=100)
    with pytest.raises(PayloadSizeError) as caught:
        await call(manager, ToolPostInvokePayload(name="t", result={"text": "x" * 200}), hook="tool_post_invoke")
    assert str(caught.value) == "Result size 205 exceeds limit of 100 bytes"


async def test_the_budget_is_a_million_bytes_unless_the_configuration_says_otherwise() -> None:
    with pytest.raises(PayloadSizeError) as caught:
        await call(manager_of(plugin(allow)), sized(1_000_001))
    assert str(caught.value) == "Payload size 1000001 exceeds limit of 1000000 bytes"


async def test_without_a_plugin_for_the_hook_nothing_is_measured() -> None:
    result, table = await call(manager_of(), sized(2_000_000))
    assert (result, table) == (PluginResult(), None)


async def test_the_budget_counts_encoded_text_and_keys_in_depth() -> None:
    manager = manager_of(plugin(allow), max_payload_bytes=1000)
    for args in ({"k": "ß" * 600}, {"k" * 1001: 1}, {"a": [{"b": ["x" * 1001]}]}, {"n": [1] * 126}):
        with pytest.raises(PayloadSizeError):
            await call(manager, tool_payload(**args))


async def test_cycles_and_foreign_objects_can_be_measured() -> None:
    cyclic: dict[str, Any] = {"s": {1, 2}, "o": object()}
    cyclic["self"] = cyclic
    result, _ = await call(manager_of(plugin(allow)), tool_payload(a=cyclic))
    assert result.continue_processing


async def test_each_payload_object_is_measured_once_and_not_mistaken_for_another() -> None:
    manager = manager_of(plugin(allow), max_payload_bytes=1000)
    for _ in range(20):
        await call(manager, sized(500))
        gc.collect()
        with pytest.raises(PayloadSizeError):
            await call(manager, sized(1500))


async def test_a_plugin_s_own_limit_is_that_plugin_s_error() -> None:
    manager = manager_of(
        plugin(allow, "small", max_content_size=100, on_error="ignore"),
        plugin(allow, "side", max_content_size=100, on_error="ignore", mode="concurrent"),
        plugin(allow, "large"),
    )
    result, _ = await call(manager, sized(500))
    assert [(record.plugin_name, record.status) for record in result.executions] == [
        ("small", "error"),
        ("large", "completed"),
        ("side", "error"),
    ]
    assert record_of(result.executions, "small").reason == (
        "ValueError('Payload size exceeds limit of 100 bytes for plugin small')"
    )


async def test_a_payload_that_cannot_be_referred_to_weakly_is_measured_each_time() -> None:
    payload: Any = {"x": "y" * 500}
    manager = manager_of(plugin(allow, hooks=["own_hook"]), max_payload_bytes=1000)
    await call(manager, payload, hook="own_hook")
    payload["z"] = "y" * 600
    with pytest.raises(PayloadSizeError):
        await call(manager, payload, hook="own_hook")


# Lists of handlers.


async def test_a_list_of_handlers_is_run_like_a_plan() -> None:
    executor = Executor()
    refs = [ref_of(allow, name="a", priority=20), ref_of(deny, name="b", priority=10)]
    for _ in range(2):
        result, table = await executor.execute(refs, tool_payload(), GlobalContext(request_id="r"), "tool_pre_invoke")
        assert [record.plugin_name for record in result.executions] == ["b"]
        assert table is not None


async def test_an_empty_list_concerns_nobody_and_carries_contexts_on() -> None:
    executor, host = Executor(), GlobalContext(request_id="r")
    assert await executor.execute([], tool_payload(), host, "h") == (PluginResult(), None)
    carried = {"key": context()}
    _, table = await executor.execute([], tool_payload(), host, "h", local_contexts=carried)
    assert table == carried


async def test_the_hook_that_is_named_counts_and_not_the_one_that_a_handler_was_made_for() -> None:
    result, _ = await Executor().execute([ref_of(allow)], tool_payload(), GlobalContext(request_id="r"), "other_hook")
    assert record_of(result.executions).hook_name == "other_hook"


# Single handlers.


async def single(handler: Any, *, raises: bool = False, executor: Executor | None = None, **config: Any) -> Any:
    """Call one handler by itself."""
    return await (executor or Executor()).execute_plugin(ref_of(handler, **config), tool_payload(), context(), raises)


async def test_a_single_handler_s_own_result_is_returned_as_it_is() -> None:
    answer: PluginResult[Any] = PluginResult(http_headers={"A": "1"}, metadata={"m": 1})

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        return answer

    assert await single(handler) is answer


@pytest.mark.parametrize("mode", ["sequential", "concurrent"])
async def test_a_single_denial_in_a_blocking_mode_is_reduced_or_raised(mode: str) -> None:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        return denial(metadata={"m": 1}, modified_payload=payload, denial_metadata={"n": 1})

    result = await single(handler, mode=mode)
    assert (result.continue_processing, result.violation.plugin_name) == (False, "p")
    assert (result.metadata, result.modified_payload, result.denial_metadata) == (None, None, {"n": 1})
    with pytest.raises(PluginViolationError) as caught:
        await single(handler, mode=mode, raises=True)
    assert str(caught.value) == "tool_pre_invoke blocked by plugin p: NO - because (it is so)"
    assert (caught.value.executions, caught.value.denial_outcome) == (None, None)


@pytest.mark.parametrize("mode", ["transform", "audit"])
async def test_a_single_denial_in_another_mode_lets_the_call_go_on(mode: str) -> None:
    assert (await single(deny, mode=mode, raises=True)).continue_processing


async def test_a_single_background_plugin_s_denial_is_returned_as_it_is() -> None:
    assert not (await single(deny, mode="fire_and_forget", raises=True)).continue_processing


@pytest.mark.parametrize("in_group", [True, False])
@pytest.mark.parametrize("raises", [True, False])
async def test_a_raised_violation_is_that_denial(raises: bool, in_group: bool) -> None:
    raised = PluginViolationError("no", PluginViolation(reason="r", description="d", code="C"))

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        raise ExceptionGroup("of a task group", [ValueError(), raised]) if in_group else raised

    if raises:
        with pytest.raises(PluginViolationError) as caught:
            await single(handler, raises=True)
        assert caught.value is raised
    else:
        assert (await single(handler)).violation is raised.violation
    assert raised.violation is not None
    assert raised.violation.plugin_name == "p"


@pytest.mark.parametrize("rule", ["fail", "ignore", "disable"])
async def test_a_single_timeout_is_told_by_the_rule_of_the_plugin(rule: str) -> None:
    expected = PluginError if rule == "fail" else PluginTimeoutError
    executor = Executor(timeout=0.02)
    with pytest.raises(expected) as caught:
        await single(never, executor=executor, on_error=rule)
    assert str(caught.value) == "Plugin p exceeded 0.02s timeout"
    assert executor.disabled == ({"p"} if rule == "disable" else set())


@pytest.mark.parametrize("rule", ["fail", "ignore", "disable"])
@pytest.mark.parametrize("returns", ["raises", "none"])
async def test_a_single_failure_is_told_by_the_rule_of_the_plugin(rule: str, returns: str) -> None:
    async def handler(payload: Any, context: Any) -> Any:
        if returns == "raises":
            raise ValueError("broken")

    executor = Executor()
    if rule == "fail":
        with pytest.raises(PluginError) as caught:
            await single(handler, executor=executor, on_error=rule)
        assert caught.value.error.plugin_name == "p"
    else:
        assert await single(handler, executor=executor, on_error=rule) == PluginResult()
    assert executor.disabled == ({"p"} if rule == "disable" else set())


async def test_a_single_call_ignores_conditions_and_what_is_switched_off() -> None:
    executor = Executor()
    executor.disabled.disable("p")
    result = await single(deny, executor=executor, conditions=[PluginCondition(tools={"other"})])
    assert not result.continue_processing


async def test_a_single_call_carries_state_and_metadata_where_it_is_told_to() -> None:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        context.global_context.state["k"] = 1
        return PluginResult(metadata={"m": 1, "_decision_plugin": "forged"})

    host, metadata = GlobalContext(request_id="r"), {"old": 0}
    await Executor().execute_plugin(
        ref_of(handler), tool_payload(), context(), False, global_context=host, combined_metadata=metadata
    )
    assert (host.state, metadata) == ({"k": 1}, {"old": 0, "m": 1})


def test_a_payload_class_of_the_host_s_own_needs_nothing_special() -> None:
    class Own(PluginPayload):
        x: int

    with pytest.raises(Exception, match="frozen"):
        Own(x=1).x = 2
