"""Scenarios of release 0.1: order, denials, policies, failures. Departures are those of the manifest."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support import SpanLog, allow, call, denial, deny, manager_of, never, plugin, record_of, tool_payload

from cpex.framework import (
    GlobalContext,
    HookPayloadPolicy,
    HttpAuthCheckPermissionPayload,
    HttpAuthCheckPermissionResultPayload,
    HttpHeaderPayload,
    HttpPreRequestPayload,
    PluginError,
    PluginErrorModel,
    PluginResult,
    PluginViolationError,
    ToolPreInvokePayload,
)
from cpex.framework.manager import PayloadSizeError
from cpex.framework.observability import current_trace_id

ARGS_ONLY = {"tool_pre_invoke": HookPayloadPolicy(writable_fields=frozenset({"args"}))}


async def rename(payload: Any, context: Any) -> PluginResult[Any]:
    return PluginResult(modified_payload=payload.model_copy(update={"name": "other"}))


async def change_args(payload: Any, context: Any) -> PluginResult[Any]:
    return PluginResult(modified_payload=payload.model_copy(update={"args": {"seen": payload.args}}))


async def fails(payload: Any, context: Any) -> PluginResult[Any]:
    raise RuntimeError("broken")


@pytest.mark.conformance("S1")
async def test_without_plugins_the_result_is_empty_and_there_is_no_table() -> None:
    result, table = await call(manager_of())
    assert (result.model_dump(), table) == (PluginResult().model_dump(), None)


@pytest.mark.conformance("S2")
async def test_with_a_disabled_plugin_alone_the_result_is_empty_and_so_is_the_table() -> None:
    result, table = await call(manager_of(plugin(deny, mode="disabled")))
    assert (result.model_dump(), table) == (PluginResult().model_dump(), {})
    assert result.executions == []


@pytest.mark.conformance("S3")
async def test_lower_priority_runs_first_and_the_next_sees_what_it_made() -> None:
    late, early = plugin(change_args, "late", priority=20), plugin(rename, "early", priority=10)
    result, _ = await call(manager_of(late, early))
    assert [each.plugin_name for each in result.executions] == ["early", "late"]
    assert result.modified_payload == ToolPreInvokePayload(name="other", args={"seen": {"x": {"y": 1}}})


@pytest.mark.conformance("S4")
async def test_phases_come_before_priorities() -> None:
    transform = plugin(allow, "transform", mode="transform", priority=1)
    result, _ = await call(manager_of(transform, plugin(allow, "sequential", priority=10)))
    assert [each.plugin_name for each in result.executions] == ["sequential", "transform"]


@pytest.mark.conformance("S5")
async def test_records_come_in_the_order_of_the_phases() -> None:
    phases = ["sequential", "transform", "audit", "concurrent", "fire_and_forget"]
    manager = manager_of(*(plugin(allow, mode, mode=mode) for mode in reversed(phases)))
    result, _ = await call(manager)
    await result.wait_for_background_tasks()
    assert [each.plugin_name for each in result.executions] == phases


@pytest.mark.conformance("S6")
async def test_a_denial_ends_the_call_and_leaves_the_background_running() -> None:
    later = [plugin(allow, mode, mode=mode, priority=200) for mode in ("sequential", "transform", "audit")]
    manager = manager_of(plugin(deny), *later, plugin(allow, "faf", mode="fire_and_forget"))
    result, _ = await call(manager)
    assert (result.continue_processing, result.violation.code) == (False, "NO")
    assert [each.plugin_name for each in result.executions] == ["p", "faf"]
    assert len(result.background_tasks) == 1
    await result.wait_for_background_tasks()


@pytest.mark.conformance("S7")
async def test_a_denied_call_tells_the_change_that_was_accepted_before() -> None:
    async def denies_and_changes(payload: Any, context: Any) -> PluginResult[Any]:
        return denial(modified_payload=payload.model_copy(update={"args": {}}))

    result, _ = await call(manager_of(plugin(rename, "first"), plugin(denies_and_changes, "second")))
    assert result.continue_processing is False
    assert result.modified_payload == ToolPreInvokePayload(name="other", args={"x": {"y": 1}})


@pytest.mark.conformance("S8")
async def test_a_denial_may_come_as_an_exception() -> None:
    ran = []

    async def background(payload: Any, context: Any) -> PluginResult[Any]:
        ran.append("background")
        return PluginResult()

    manager = manager_of(plugin(rename, "first"), plugin(deny), plugin(background, "faf", mode="fire_and_forget"))
    with pytest.raises(PluginViolationError) as caught:
        await call(manager, violations_as_exceptions=True)
    await manager.shutdown()
    assert str(caught.value) == "tool_pre_invoke blocked by plugin p: NO - because (it is so)"
    assert caught.value.violation.plugin_name == "p"
    assert [each.plugin_name for each in caught.value.executions] == ["first", "p"]
    assert caught.value.denial_outcome.violation_code == "NO"
    assert ran == []


@pytest.mark.conformance("S9")
@pytest.mark.parametrize("mode", ["transform", "audit"])
async def test_a_denial_in_a_mode_that_cannot_deny_is_only_logged(mode: str, caplog: pytest.LogCaptureFixture) -> None:
    result, _ = await call(manager_of(plugin(deny, mode=mode)), violations_as_exceptions=True)
    assert (result.continue_processing, result.violation) == (True, None)
    (line,) = [each for each in caplog.records if "raised violation" in each.getMessage()]
    assert (line.levelname, line.name) == ("WARNING", "cpex.framework.manager")


@pytest.mark.conformance("S10", "D19")
async def test_a_sibling_has_been_cancelled_when_a_concurrent_denial_returns() -> None:
    waiting, told = asyncio.Event(), []

    async def slow(payload: Any, context: Any) -> PluginResult[Any]:
        waiting.set()
        try:
            return await never(payload, context)
        except asyncio.CancelledError:
            told.append("cancelled")
            raise

    async def denies_later(payload: Any, context: Any) -> PluginResult[Any]:
        await waiting.wait()
        return denial()

    manager = manager_of(plugin(denies_later, mode="concurrent"), plugin(slow, "slow", mode="concurrent"))
    result, _ = await call(manager)
    assert (result.continue_processing, told) == (False, ["cancelled"])
    assert record_of(result.executions, "slow").status == "cancelled"


@pytest.mark.conformance("S11")
async def test_a_policy_lets_its_fields_through_and_no_others() -> None:
    async def changes_both(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=ToolPreInvokePayload(name="other", args={"new": 1}))

    result, _ = await call(manager_of(plugin(changes_both), hook_policies=ARGS_ONLY))
    assert result.modified_payload == ToolPreInvokePayload(name="t", args={"new": 1})


@pytest.mark.conformance("S12")
async def test_a_change_that_the_policy_filters_away_is_no_change() -> None:
    result, _ = await call(manager_of(plugin(rename), hook_policies=ARGS_ONLY))
    assert result.modified_payload is None
    assert record_of(result.executions).payload_modified is False


@pytest.mark.conformance("S13", "D29")
async def test_a_reply_of_another_type_is_accepted_whole_and_everybody_sees_the_request() -> None:
    seen = []

    async def replies(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(payload)
        return PluginResult(modified_payload=HttpHeaderPayload({f"X-{len(seen)}": "yes"}))

    hook = "http_pre_request"
    policies = {hook: HookPayloadPolicy(writable_fields=frozenset())}
    manager = manager_of(plugin(replies, "a", [hook]), plugin(replies, "b", [hook]), hook_policies=policies)
    # Built past validation, which would warn about headers in a payload.
    request = HttpPreRequestPayload.model_construct(path="/", method="GET", headers=HttpHeaderPayload({"Host": "h"}))
    result, _ = await call(manager, request, hook=hook)
    assert result.modified_payload == HttpHeaderPayload({"X-1": "yes", "X-2": "yes"})
    assert [each.path for each in seen] == ["/", "/"]


@pytest.mark.conformance("S14")
async def test_who_decided_about_a_permission_cannot_be_forged() -> None:
    async def grants(payload: Any, context: Any) -> PluginResult[Any]:
        granted = HttpAuthCheckPermissionResultPayload(granted=True)
        return PluginResult(modified_payload=granted, metadata={"_decision_plugin": "somebody", "kept": 1})

    hook = "http_auth_check_permission"
    question = HttpAuthCheckPermissionPayload(user_email="a@b.example", permission="tools.read")
    result, _ = await call(manager_of(plugin(grants, "real", [hook])), question, hook=hook)
    assert result.metadata == {"_decision_plugin": "real", "kept": 1}


@pytest.mark.conformance("S15")
async def test_where_nothing_may_be_written_nothing_is() -> None:
    async def edits(payload: Any, context: Any) -> PluginResult[Any]:
        payload.args["new"] = 1
        return PluginResult(modified_payload=payload)

    payload = tool_payload()
    result, _ = await call(manager_of(plugin(edits), default_hook_policy="deny"), payload)
    assert (result.modified_payload, payload) == (None, tool_payload())


@pytest.mark.conformance("S16")
async def test_an_ignored_timeout_goes_on_and_is_recorded() -> None:
    result, _ = await call(manager_of(plugin(never, on_error="ignore", timeout_s=0.02)))
    record = record_of(result.executions)
    assert result.continue_processing is True
    assert (record.status, record.error_code, record.applied) == ("timeout", "plugin_timeout", True)


@pytest.mark.conformance("S17", "D22")
async def test_a_plugin_that_is_disabled_by_its_failure_runs_once_until_it_is_reset() -> None:
    calls = []

    async def counts(payload: Any, context: Any) -> PluginResult[Any]:
        calls.append(1)
        return await fails(payload, context)

    manager = manager_of(plugin(counts, on_error="disable"))
    await call(manager)
    result, _ = await call(manager)
    assert (len(calls), manager.disabled_plugins) == (1, {"p"})
    assert record_of(result.executions).status == "disabled"
    await manager.reset_runtime_disabled()
    await call(manager)
    assert len(calls) == 2


@pytest.mark.conformance("S18")
async def test_an_error_in_the_background_is_told_to_who_waits() -> None:
    result, _ = await call(manager_of(plugin(fails, mode="fire_and_forget")))
    errors = await result.wait_for_background_tasks()
    assert errors == [PluginErrorModel(message="RuntimeError('broken')", plugin_name="p")]


@pytest.mark.conformance("S19")
async def test_a_payload_over_the_limit_runs_nobody() -> None:
    with pytest.raises(PayloadSizeError, match=r"^Payload size 10000\d\d exceeds limit of 1000000 bytes$"):
        await call(manager_of(plugin(deny, mode="disabled")), tool_payload(a="x" * 600_000, b="x" * 400_001))


@pytest.mark.conformance("S24")
async def test_calls_in_parallel_are_traced_apart() -> None:
    async def yields(payload: Any, context: Any) -> PluginResult[Any]:
        await asyncio.sleep(0)
        return PluginResult()

    hooks = [f"hook_{number}" for number in range(50)]
    spans = SpanLog()
    # The n-th hook has n % 5 + 1 plugins.
    manager = manager_of(
        *(plugin(yields, f"p{n}", [h for i, h in enumerate(hooks) if i % 5 >= n]) for n in range(5)),
        observability=spans,
    )

    async def one(hook: str) -> None:
        current_trace_id.set(hook)
        await manager.invoke_hook(hook, tool_payload(), GlobalContext(request_id=hook))

    await asyncio.gather(*(asyncio.create_task(one(hook)) for hook in hooks))
    counts = [spans.end_of("plugin.hook.invoke", hook)["attributes"]["plugin.executed_count"] for hook in hooks]
    assert counts == [index % 5 + 1 for index in range(50)]
    assert spans.open() == []


@pytest.mark.conformance("D20")
async def test_an_error_carries_what_happened_until_then() -> None:
    with pytest.raises(PluginError) as caught:
        await call(manager_of(plugin(allow, "first"), plugin(fails), plugin(allow, "after", priority=200)))
    assert [(each.plugin_name, each.status) for each in caught.value.executions] == [
        ("first", "completed"),
        ("p", "error"),
    ]
    assert isinstance(caught.value.__cause__, RuntimeError)
