from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from cpex.builtins.security.circuit import Circuit, Gate
from cpex.builtins.security.circuit_breaker import CircuitBreakerPlugin, CircuitBreakerSettings, says_failure
from cpex.builtins.store.memory import MemoryStore
from cpex.framework import (
    GlobalContext,
    Plugin,
    PluginConfig,
    PluginContext,
    PluginResult,
    PluginViolation,
    TenantPluginManager,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
    clock,
)
from cpex.framework.cmf.message import (
    Message,
    Role,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)
from cpex.framework.hooks.message import MessagePayload
from cpex.framework.models import Config

Configure = Callable[..., PluginConfig]
FAILED = {"isError": True}
TERMS = {"failure_threshold": 3, "window_s": 60, "open_s": 10, "max_open_s": 30, "trial_s": 5}


@pytest.fixture(autouse=True)
def time() -> Iterator[clock.FixedClock]:
    with clock.use_clock(clock.FixedClock(datetime(2024, 5, 20, 12, tzinfo=UTC))) as fixed:
        yield fixed


@pytest.fixture
def breaker(configure: Configure) -> CircuitBreakerPlugin:
    return CircuitBreakerPlugin(configure(**TERMS))


def of(request: str = "r", tenant: str | None = None) -> PluginContext:
    return PluginContext(global_context=GlobalContext(request_id=request, tenant_id=tenant))


async def ask(plugin: CircuitBreakerPlugin, context: PluginContext | None = None, tool: str = "t") -> PluginResult[Any]:
    return await plugin.tool_pre_invoke(ToolPreInvokePayload(name=tool), context or of())


async def passes(plugin: CircuitBreakerPlugin, context: PluginContext | None = None, tool: str = "t") -> bool:
    return (await ask(plugin, context, tool)).continue_processing


async def answer(
    plugin: CircuitBreakerPlugin, result: Any, context: PluginContext | None = None, tool: str = "t"
) -> PluginResult[Any]:
    return await plugin.tool_post_invoke(ToolPostInvokePayload(name=tool, result=result), context or of())


async def open_circuit(plugin: CircuitBreakerPlugin) -> None:
    for _ in range(3):
        assert await passes(plugin)
        await answer(plugin, FAILED)


async def test_a_tool_that_fails_too_often_is_left_alone(
    breaker: CircuitBreakerPlugin, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        await open_circuit(breaker)
    denied = await ask(breaker)
    assert denied.violation == PluginViolation(
        reason="Tool 't' keeps failing and is left alone",
        description="The tool has failed too often; try again in 10 s.",
        code="CIRCUIT_OPEN",
        details={"tool": "t", "state": "open", "retry_after_s": 10},
        http_status_code=503,
        http_headers={"Retry-After": "10"},
    )
    assert await passes(breaker, tool="other")
    assert [record.getMessage() for record in caplog.records] == ["plugin `guard`: the circuit of tool `t` is open"]


async def test_failures_count_together_in_any_stretch_of_the_window(
    breaker: CircuitBreakerPlugin, time: clock.FixedClock
) -> None:
    for seconds, open_after in ((0, False), (40, False), (21, False), (9, True)):
        time.advance(seconds)
        assert await passes(breaker)
        await answer(breaker, FAILED)
        # At 61 s the first failure has left the window; at 70 s there are those of 40, 61 and 70 s.
        assert await passes(breaker) is not open_after


async def test_the_share_of_failures_is_one_of_the_calls_of_the_window_that_slides(
    configure: Configure, time: clock.FixedClock
) -> None:
    breaker = CircuitBreakerPlugin(configure(**TERMS, failure_rate=0.5))
    time.advance(30)
    for number in range(8):
        assert await passes(breaker)
        await answer(breaker, FAILED if number < 2 else {})
    time.advance(45)
    for failures in range(1, 7):
        assert await passes(breaker)
        await answer(breaker, FAILED)
        # Of 8 calls and 2 failures in the window before, 45 s ago, three quarters count: 6 and 1.5.
        open_now = failures + 1.5 >= 0.5 * (failures + 6)
        assert await passes(breaker) is not open_now
        if open_now:
            assert failures == 3
            return
    raise AssertionError("the circuit never opened")


async def test_one_trial_is_let_through_and_its_success_closes_the_circuit(
    breaker: CircuitBreakerPlugin, time: clock.FixedClock
) -> None:
    await open_circuit(breaker)
    time.advance(10)
    trial = await ask(breaker, of("trial"))
    assert trial.metadata == {"guard": {"circuit": "half_open"}}
    waiting = await ask(breaker, of("another"))
    assert waiting.violation is not None
    assert (waiting.violation.details or {})["state"] == "half_open"
    closed = await answer(breaker, "fine", of("trial"))
    assert closed.metadata == {"guard": {"circuits": {"t": "closed"}}}
    assert await passes(breaker, of("another"))


async def test_failures_from_before_the_circuit_closed_do_not_count_again(
    breaker: CircuitBreakerPlugin, time: clock.FixedClock
) -> None:
    await open_circuit(breaker)
    time.advance(10)
    await ask(breaker)
    await answer(breaker, "fine")
    for _ in range(2):
        await answer(breaker, FAILED)
    assert await passes(breaker), "two failures are two, though there were three before in this window"


async def test_each_trial_that_fails_doubles_the_time_up_to_the_most(
    breaker: CircuitBreakerPlugin, time: clock.FixedClock
) -> None:
    await open_circuit(breaker)
    waits = []
    time.advance(10)
    for _ in range(3):
        assert await passes(breaker, of("trial"))
        assert (await answer(breaker, FAILED, of("trial"))).metadata == {"guard": {"circuits": {"t": "open"}}}
        denied = await ask(breaker)
        assert denied.violation is not None
        waits.append((denied.violation.details or {})["retry_after_s"])
        time.advance(waits[-1])
    assert waits == [20, 30, 30]


async def test_a_trial_without_an_answer_is_given_up(breaker: CircuitBreakerPlugin, time: clock.FixedClock) -> None:
    await open_circuit(breaker)
    time.advance(10)
    assert await passes(breaker, of("lost"))
    time.advance(4.5)
    denied = await ask(breaker)
    assert denied.violation is not None
    assert denied.violation.http_headers == {"Retry-After": "1"}
    time.advance(0.5)
    assert await passes(breaker, of("second"))
    assert (await answer(breaker, FAILED, of("lost"))).metadata == {}, "it comes too late to say anything"
    assert (await answer(breaker, "fine", of("second"))).metadata == {"guard": {"circuits": {"t": "closed"}}}


async def test_answers_of_calls_that_set_out_before_it_opened_change_nothing(
    breaker: CircuitBreakerPlugin, time: clock.FixedClock
) -> None:
    await open_circuit(breaker)
    await answer(breaker, "fine", of("early"))
    assert not await passes(breaker)
    time.advance(10)
    await ask(breaker, of("trial"))
    await answer(breaker, "fine", of("early"))
    assert not await passes(breaker, of("another"))


async def test_failures_count_only_when_they_are_a_share_of_the_calls(configure: Configure) -> None:
    often = CircuitBreakerPlugin(configure(failure_threshold=2, failure_rate=0.5))
    for result in ("fine", "fine", "fine", FAILED, FAILED):
        await answer(often, result)
    assert await passes(often), "two of five"
    await answer(often, FAILED)
    assert not await passes(often), "three of six"
    number = CircuitBreakerPlugin(configure(failure_threshold=2, failure_rate=0))
    for result in ("fine", "fine", "fine", FAILED, FAILED):
        await answer(number, result)
    assert not await passes(number)


async def test_failures_of_an_earlier_window_are_forgotten(
    breaker: CircuitBreakerPlugin, time: clock.FixedClock
) -> None:
    for _ in range(2):
        await answer(breaker, FAILED)
    time.advance(60)
    for _ in range(2):
        await answer(breaker, FAILED)
    assert await passes(breaker)


@pytest.mark.parametrize(
    ("result", "failed"),
    [
        (FAILED, True),
        ({"is_error": True}, True),
        (SimpleNamespace(isError=True), True),
        (TimeoutError("no answer"), True),
        (ToolResult(tool_call_id="1", tool_name="t", is_error=True), True),
        ({"isError": False}, False),
        ({"isError": "no"}, False),
        ({"error": "in words"}, False),
        ("isError", False),
        (None, False),
    ],
)
def test_a_result_says_whether_the_tool_failed(result: Any, failed: bool) -> None:
    assert says_failure(result, ["isError", "is_error"]) is failed
    assert says_failure({"broken": True}, ["broken"])


async def test_an_answer_that_comes_late_is_a_failure(configure: Configure, time: clock.FixedClock) -> None:
    plugin = CircuitBreakerPlugin(configure(failure_threshold=1, slow_call_s=2))
    for seconds, expected in ((2, True), (2.5, False)):
        context = of()
        await ask(plugin, context)
        time.advance(seconds)
        await answer(plugin, "fine", context)
        assert await passes(plugin) is expected


async def test_tenants_can_have_circuits_of_their_own(configure: Configure) -> None:
    plugin = CircuitBreakerPlugin(configure(failure_threshold=1, scope="tool+tenant"))
    await answer(plugin, FAILED, of(tenant="acme"))
    assert not await passes(plugin, of(tenant="acme"))
    assert await passes(plugin, of(tenant="umbrella"))


async def test_workers_share_circuits_and_one_of_them_makes_the_trial(
    configure: Configure, tmp_path: Path, time: clock.FixedClock
) -> None:
    settings = {**TERMS, "store": str(tmp_path / "state.db")}
    workers = [CircuitBreakerPlugin(configure(**settings)) for _ in range(4)]
    for worker in workers[:3]:
        await answer(worker, FAILED)
    assert not await passes(workers[3])
    time.advance(10)
    trials = await asyncio.gather(*(passes(worker, of(f"r{number}")) for number, worker in enumerate(workers)))
    assert sorted(trials) == [False, False, False, True]
    for worker in workers:
        await worker.shutdown()


async def test_a_worker_reads_what_a_newer_one_has_written() -> None:
    store, terms = MemoryStore(), CircuitBreakerSettings().terms
    record = {"state": "open", "until_s": 100.0, "open_s": 10.0, "trial": "", "round": 1, "colour": "red"}
    await store.compare_and_set("c", None, json.dumps(record), now_s=0)
    assert await Circuit("c", terms).enter(store, "r", 90) == Gate(False, "open", 10.0)
    assert await Circuit("c", terms).enter(store, "r", 100) == Gate(True, "half_open")


@pytest.mark.parametrize(
    ("policy", "verdicts"), [(None, [True, False]), ("deny", [False, False]), ("allow", [True, True])]
)
async def test_without_its_store_the_policy_decides(
    configure: Configure, tmp_path: Path, policy: str | None, verdicts: list[bool]
) -> None:
    (tmp_path / "state.db").write_text("no database" * 200)
    chosen = {} if policy is None else {"on_store_error": policy}
    plugin = CircuitBreakerPlugin(configure(failure_threshold=1, store=str(tmp_path / "state.db"), **chosen))
    before = await passes(plugin)
    await answer(plugin, FAILED)
    assert [before, await passes(plugin)] == verdicts
    assert plugin.store_errors == 3
    await plugin.shutdown()


async def test_a_trial_that_another_plugin_denied_is_left_to_the_next_call(time: clock.FixedClock) -> None:
    """In a real pipeline, with the outcome that the framework reports."""

    class Picky(Plugin):
        async def tool_pre_invoke(self, payload: Any, context: PluginContext) -> PluginResult[Any]:
            violation = PluginViolation(reason="no", description="no", code="NO")
            allowed = context.global_context.request_id != "denied"
            return PluginResult(continue_processing=allowed, violation=None if allowed else violation)

    hooks = ["tool_pre_invoke", "tool_post_invoke"]
    breaker = CircuitBreakerPlugin(PluginConfig(name="b", kind="x.Y", hooks=hooks, config=TERMS, priority=1))
    manager = TenantPluginManager(Config())
    for plugin in (breaker, Picky(PluginConfig(name="p", kind="x.Y", hooks=["tool_pre_invoke"], priority=2))):
        manager._registry.register(plugin)
    manager._initialized = True
    await open_circuit(breaker)
    time.advance(10)

    async def called(request: str) -> str | None:
        payload = ToolPreInvokePayload(name="t")
        result, _ = await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id=request))
        return result.violation.code if result.violation else None

    assert await called("denied") == "NO"
    await manager.shutdown()
    # Shutting down has drained the outcomes.
    assert await passes(breaker, of("next"))


async def test_messages_are_held_back_by_any_open_circuit_and_report_every_answer(
    breaker: CircuitBreakerPlugin, time: clock.FixedClock
) -> None:
    def calling(*tools: str) -> MessagePayload:
        parts = [ToolCallContentPart(content=ToolCall(tool_call_id=tool, name=tool)) for tool in tools]
        return MessagePayload(message=Message(role=Role.ASSISTANT, content=parts))

    def answering(**failed: bool) -> MessagePayload:
        results = [ToolResult(tool_call_id=tool, tool_name=tool, is_error=state) for tool, state in failed.items()]
        parts = [ToolResultContentPart(content=result) for result in results]
        return MessagePayload(message=Message(role=Role.TOOL, content=parts))

    before, after = getattr(breaker, "cmf.tool_pre_invoke"), getattr(breaker, "cmf.tool_post_invoke")
    for _ in range(3):
        await after(answering(a=True, b=False), of())
    assert [(await before(calling(*tools), of())).continue_processing for tools in ("b", "ba", "")] == [
        True,
        False,
        True,
    ]
    time.advance(10)
    await open_circuit(breaker)
    # `a` may be tried and `t` may not, so nothing is, and the trial of `a` is left to the next message.
    assert not (await before(calling("a", "t"), of("first"))).continue_processing
    assert (await before(calling("a"), of("second"))).metadata == {"guard": {"circuit": "half_open"}}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"failure_threshold": 0}, "failure_threshold"),
        ({"failure_rate": 1.5}, "failure_rate"),
        ({"open_s": 60, "max_open_s": 30}, r"`max_open_s` \(30\) is less than `open_s` \(60\)"),
        ({"scope": "user"}, "a circuit is one tool's"),
        ({"threshold": 3}, "threshold"),
    ],
)
def test_settings_that_make_no_sense_stop_the_start(
    configure: Configure, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        CircuitBreakerPlugin(configure(**settings))
