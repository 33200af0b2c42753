"""Laws of what is limited: no order of charges, refunds, failures and time lets more through than was promised."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cpex.builtins.security.circuit import Circuit, Terms
from cpex.builtins.security.token_budget import TokenBudgetPlugin
from cpex.builtins.store.memory import MemoryStore
from cpex.framework import GlobalContext, PluginConfig, PluginContext, ToolPreInvokePayload, clock
from cpex.framework.models import HookOutcome

USER_BUDGET, TENANT_BUDGET = 20, 30
CALLS = st.lists(
    st.tuples(st.sampled_from(["ann", "bob", "eve"]), st.integers(1, 25), st.sampled_from(["happens", "denied later"])),
    max_size=25,
)


def ended(request: str, happened: bool) -> HookOutcome:
    return HookOutcome("tool_pre_invoke", request, happened, None, None)


@settings(max_examples=80, deadline=None)
@given(CALLS)
def test_what_is_spent_never_exceeds_any_budget_and_refunds_are_exact(calls: list[tuple[str, int, str]]) -> None:
    budgets = [{"scope": "user", "tokens": USER_BUDGET}, {"scope": "tenant", "tokens": TENANT_BUDGET}]
    config = {"budgets": budgets, "tokenizer": "builtins:len"}
    plugin: Any = TokenBudgetPlugin(PluginConfig(name="b", kind="x.Y", hooks=["tool_pre_invoke"], config=config))

    async def run() -> None:
        spent: dict[str, int] = defaultdict(int)
        for number, (user, tokens, fate) in enumerate(calls):
            # `{"q":"..."}` is eight characters and the text.
            cost = 8 + tokens
            payload = ToolPreInvokePayload(name="t", args={"q": "x" * tokens})
            shared = GlobalContext(request_id=str(number), user=user, tenant_id="acme")
            result = await plugin.tool_pre_invoke(payload, PluginContext(global_context=shared))
            fits = spent[user] + cost <= USER_BUDGET and sum(spent.values()) + cost <= TENANT_BUDGET
            assert result.continue_processing is fits
            happened = fate == "happens"
            if fits:
                await plugin.hook_completed(ended(str(number), happened))
            if fits and happened:
                spent[user] += cost

    asyncio.run(run())


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.booleans()), max_size=12), st.data(), st.sampled_from(["session", "tool"])
)
def test_calls_at_the_same_time_never_bring_back_more_than_what_did_not_happen(
    calls: list[tuple[int, bool]], data: st.DataObject, scope: str
) -> None:
    config = {"budgets": [{"scope": scope, "tokens": 10_000}], "tokenizer": "builtins:len"}
    plugin: Any = TokenBudgetPlugin(PluginConfig(name="b", kind="x.Y", hooks=["tool_pre_invoke"], config=config))

    async def charge(tool: str, tokens: int) -> int:
        payload = ToolPreInvokePayload(name=tool, args={"q": "x" * tokens})
        shared = GlobalContext(request_id="r", user="ann")
        result = await plugin.tool_pre_invoke(payload, PluginContext(global_context=shared))
        used: int = result.metadata["b"]["used"]
        return used

    async def run() -> None:
        spent: dict[str, int] = defaultdict(int)
        under_way: list[tuple[str, int, bool]] = []
        for tokens, happens in calls:
            tool = data.draw(st.sampled_from(["a", "b"])) if scope == "tool" else "a"
            await charge(tool, tokens)
            under_way.append((tool, 8 + tokens, happens))
            while under_way and data.draw(st.booleans()):
                tool, cost, happened = under_way.pop(data.draw(st.integers(0, len(under_way) - 1)))
                await plugin.hook_completed(ended("r", happened))
                spent[tool] += cost if happened else 0
        for tool, cost, happened in under_way:
            await plugin.hook_completed(ended("r", happened))
            spent[tool] += cost if happened else 0
        assert plugin._undecided == {}
        for tool in ("a", "b")[: 2 if scope == "tool" else 1]:
            assert await charge(tool, 1) >= spent[tool] + 9

    asyncio.run(run())


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("wait"), st.integers(1, 12)),
        st.tuples(st.just("call"), st.integers(0, 3)),
        st.tuples(st.just("fail"), st.integers(0, 3)),
        st.tuples(st.just("answer"), st.integers(0, 3)),
        st.tuples(st.just("give up"), st.integers(0, 3)),
    ),
    max_size=60,
)
TERMS = Terms(failures=2, rate=0, window_s=20, open_s=10, max_open_s=40, trial_s=5)


@settings(max_examples=300, deadline=None)
@given(STEPS)
def test_an_open_circuit_lets_one_trial_through_at_a_time_and_only_when_its_time_is_over(
    steps: list[tuple[str, int]],
) -> None:
    circuit, store = Circuit("c", TERMS), MemoryStore()

    async def run() -> None:
        now_s, opened_s, trial_s, trial = 0.0, None, None, ""
        for step, number in steps:
            request = f"r{number}"
            if step == "wait":
                now_s += number
            elif step == "call":
                gate = await circuit.enter(store, request, now_s)
                if gate.passes and gate.state == "half_open":
                    assert opened_s is not None
                    assert now_s >= opened_s + TERMS.open_s, "no trial before its time"
                    running = trial_s is not None and now_s < trial_s + TERMS.trial_s and trial != request
                    assert not running, "no second trial while one is on its way"
                    if trial != request or trial_s is None or now_s >= trial_s + TERMS.trial_s:
                        trial_s, trial = now_s, request
                assert gate.passes or gate.retry_after_s > 0
            elif step == "give up":
                await circuit.give_up(store, request, now_s)
                if request == trial:
                    trial_s, trial = None, ""
            else:
                state = await circuit.leave(store, request, failed=step == "fail", now_s=now_s)
                if state == "open":
                    opened_s, trial_s, trial = now_s, None, ""
                elif state == "closed":
                    opened_s, trial_s, trial = None, None, ""
                    assert step == "answer"

    with clock.use_clock(clock.FixedClock(datetime(2024, 5, 20, tzinfo=UTC))):
        asyncio.run(run())
