"""Decisions about denials, failures and their records: what happened is what the host is told."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from typing import Any

import pytest
from support import SpanLog, allow, call, denial, deny, manager_of, never, of_ours, plugin, record_of, tool_payload

from cpex.framework import PluginError, PluginResult, PluginViolation, PluginViolationError
from cpex.framework.clock import FixedClock, use_clock
from cpex.framework.extensions import Extensions
from cpex.framework.observability import current_trace_id


async def fails(payload: Any, context: Any) -> PluginResult[Any]:
    raise RuntimeError("broken")


async def violates(payload: Any, context: Any) -> PluginResult[Any]:
    raise PluginViolationError("no", PluginViolation(reason="because", description="it is so", code="NO"))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in of_ours(caplog.records) if each.levelno == logging.WARNING]


@pytest.mark.conformance("D7")
@pytest.mark.parametrize("handler", [deny, violates], ids=["returned", "raised"])
@pytest.mark.parametrize("mode", ["transform", "audit"])
async def test_a_denial_that_cannot_block_is_recorded_as_one_that_would_have(
    mode: str, handler: Any, caplog: pytest.LogCaptureFixture
) -> None:
    result, _ = await call(manager_of(plugin(handler, mode=mode, on_error="fail")), violations_as_exceptions=True)
    record = record_of(result.executions)
    assert (result.continue_processing, result.violation) == (True, None)
    assert (record.status, record.requested_allow, record.effective_allow) == ("completed", False, True)
    assert (record.matched, record.applied, record.reason, record.error_code) == (True, False, "because", "NO")
    assert len(warnings(caplog)) == 1


@pytest.mark.conformance("D7a")
@pytest.mark.parametrize("rule", ["fail", "ignore", "disable"])
async def test_an_audit_plugin_that_breaks_never_halts(rule: str, caplog: pytest.LogCaptureFixture) -> None:
    broken = plugin(fails, "broken", mode="audit", on_error=rule)
    late = plugin(never, "late", mode="audit", on_error=rule, timeout_s=0.02)
    result, _ = await call(manager_of(broken, late))
    assert result.continue_processing is True
    assert [each.status for each in result.executions] == ["error", "timeout"]
    assert [each.levelname for each in caplog.records if "failed in hook" in each.getMessage()] == ["ERROR", "ERROR"]


@pytest.mark.conformance("D7b")
@pytest.mark.parametrize("mode", ["sequential", "concurrent"])
async def test_raising_a_violation_is_returning_it(mode: str) -> None:
    manager = manager_of(plugin(violates, mode=mode, on_error="ignore"))
    result, _ = await call(manager)
    assert (result.continue_processing, result.violation.code) == (False, "NO")
    assert result.violation.plugin_name == "p"
    with pytest.raises(PluginViolationError) as caught:
        await call(manager, violations_as_exceptions=True)
    assert (caught.value.violation.code, len(caught.value.executions)) == ("NO", 1)


@pytest.mark.conformance("D8")
async def test_a_failure_that_is_ignored_is_not_a_clean_allow() -> None:
    result, _ = await call(manager_of(plugin(fails, on_error="ignore")))
    record = record_of(result.executions)
    assert (record.status, record.requested_allow, record.effective_allow) == ("error", None, True)
    assert (record.error_code, record.reason) == ("plugin_error", "RuntimeError('broken')")


@pytest.mark.conformance("D9")
@pytest.mark.parametrize("answer", [None, {"continue_processing": True}, True], ids=repr)
async def test_an_answer_that_is_no_result_is_a_failure(answer: Any) -> None:
    async def answers(payload: Any, context: Any) -> Any:
        return answer

    with pytest.raises(PluginError, match=f"returned {type(answer).__name__}; expected a PluginResult"):
        await call(manager_of(plugin(answers)))
    result, _ = await call(manager_of(plugin(answers, on_error="ignore")))
    assert record_of(result.executions).status == "error"


@pytest.mark.conformance("D9")
async def test_a_coroutine_that_was_never_awaited_is_a_failure() -> None:
    async def answers(payload: Any, context: Any) -> Any:
        return allow(payload, context)

    with pytest.raises(PluginError, match="a coroutine that was never awaited"):
        await call(manager_of(plugin(answers)))


@pytest.mark.conformance("D20")
async def test_every_span_is_closed_when_a_violation_is_raised_to_the_host() -> None:
    spans = SpanLog()
    manager = manager_of(plugin(allow, "first"), plugin(deny), observability=spans)
    current_trace_id.set("trace")
    with pytest.raises(PluginViolationError):
        await call(manager, violations_as_exceptions=True)
    assert spans.open() == []
    assert spans.end_of("plugin.hook.invoke")["attributes"]["plugin.chain.stopped_by"] == "p"


@pytest.mark.conformance("D21")
async def test_a_denied_call_keeps_what_was_gathered() -> None:
    async def gathers(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        changed = extensions.model_copy(update={"custom": {"seen": 1}})
        return PluginResult(modified_extensions=changed, http_headers={"X-A": "1"}, retry_delay_ms=7)

    async def denies(payload: Any, context: Any) -> PluginResult[Any]:
        return denial(denial_metadata={"score": 3}, http_headers={"X-B": "2"}, metadata={"why": "so"})

    manager = manager_of(plugin(gathers, "first"), plugin(denies))
    result, _ = await call(manager, extensions=Extensions())
    assert result.continue_processing is False
    assert result.modified_extensions.custom == {"seen": 1}
    assert (result.retry_delay_ms, result.denial_metadata) == (7, {"score": 3})
    assert (result.http_headers, result.metadata) == ({"X-A": "1", "X-B": "2"}, {"why": "so"})


@pytest.mark.conformance("D22")
async def test_a_disabled_plugin_gets_one_trial_when_its_cool_down_is_over() -> None:
    answers = [fails, fails, allow, allow]
    calls = []

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        calls.append(1)
        return await answers[len(calls) - 1](payload, context)

    manager = manager_of(plugin(handler, on_error="disable", disable_cooldown_s=10))
    clock = FixedClock(datetime(2026, 1, 1, tzinfo=UTC))
    with use_clock(clock):
        await call(manager)
        await call(manager)
        assert (len(calls), manager.disabled_plugins) == (1, {"p"})
        clock.advance(11)
        await call(manager)
        # The trial failed: the cool-down starts anew.
        await call(manager)
        assert (len(calls), manager.disabled_plugins) == (2, {"p"})
        clock.advance(11)
        await call(manager)
        assert (len(calls), manager.disabled_plugins) == (3, set())


@pytest.mark.conformance("D22a")
async def test_durations_of_concurrent_plugins_are_measured() -> None:
    async def yields(payload: Any, context: Any) -> PluginResult[Any]:
        await asyncio.sleep(0)
        return PluginResult()

    result, _ = await call(manager_of(*(plugin(yields, f"p{n}", mode="concurrent") for n in range(2))))
    assert all(each.duration_ns > 0 for each in result.executions)


@pytest.mark.conformance("D22a")
async def test_a_background_record_is_pending_until_its_task_has_ended() -> None:
    go_on = asyncio.Event()

    async def waits(payload: Any, context: Any) -> PluginResult[Any]:
        await go_on.wait()
        raise RuntimeError("broken")

    result, _ = await call(manager_of(plugin(waits, mode="fire_and_forget")), tool_payload())
    record = record_of(result.executions)
    assert (record.pending, record.duration_ns) == (True, 0)
    go_on.set()
    await result.wait_for_background_tasks()
    assert (record.pending, record.status, record.duration_ns > 0) == (False, "error", True)
