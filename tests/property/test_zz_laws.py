"""Laws of a hook call, over random pipelines: order, decision, records, and who cannot have any influence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from support import SpanLog, denial, manager_of, other_tasks, plugin, tool_payload

from cpex.framework.errors import PluginError, PluginViolationError
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginResult, PluginViolation
from cpex.framework.observability import current_trace_id

MODES = ("sequential", "transform", "audit", "concurrent", "fire_and_forget")
WATCHING = ("audit", "fire_and_forget")
BLOCKING = ("sequential", "concurrent")
DENYING = ("denies", "raises a violation")
FAILING = ("raises", "returns nothing")


@dataclass(frozen=True)
class Part:
    """One plugin of a random pipeline."""

    mode: str
    priority: int
    rule: str
    does: str
    suspends: bool

    def ends_the_call(self) -> bool:
        """Whether nothing behind it is waited for."""
        if self.does in DENYING:
            return self.mode in BLOCKING
        return self.does in FAILING and self.rule == "fail" and self.mode not in WATCHING


parts = st.builds(
    Part,
    mode=st.sampled_from(MODES),
    priority=st.integers(1, 3),
    rule=st.sampled_from(["fail", "ignore", "disable"]),
    does=st.sampled_from(["allows", "changes", *DENYING, *FAILING]),
    suspends=st.booleans(),
)
pipelines = st.lists(parts, max_size=7)
at_once = pipelines.map(lambda given: [Part(p.mode, p.priority, p.rule, p.does, False) for p in given])


@dataclass
class Ended:
    """How a call ended, as far as the host can see."""

    order: list[str]
    result: PluginResult[Any] | None
    error: PluginError | None
    records: list[ControlExecutionRecord]
    spans: SpanLog
    state: dict[str, Any]
    payload: Any

    @property
    def decision(self) -> tuple[Any, ...]:
        """What the host acts upon."""
        if self.result is None:
            return ("failed", self.error.error.plugin_name if self.error is not None else None)
        violation = self.result.violation
        changed = self.result.modified_payload
        return (
            "allowed" if self.result.continue_processing else "denied",
            violation.plugin_name if violation is not None else None,
            changed.args if changed is not None else None,
        )


def handler_of(name: str, part: Part, order: list[str]) -> Callable[..., Any]:
    async def handler(payload: Any, context: Any) -> Any:
        order.append(name)
        if part.suspends:
            await asyncio.sleep(0)
        context.global_context.state[name] = True
        if part.does == "changes":
            payload.args["trace"].append(name)
            return PluginResult(modified_payload=payload)
        if part.does == "denies":
            return denial()
        if part.does == "raises a violation":
            raise PluginViolationError("no", PluginViolation(reason="r", description="d", code="C"))
        if part.does == "raises":
            raise ValueError("broken")
        return None if part.does == "returns nothing" else PluginResult()

    return handler


async def ended(pipeline: dict[str, Part]) -> Ended:
    """Run one call of a pipeline to its end, background included."""
    order: list[str] = []
    spans, payload, host = SpanLog(), tool_payload(trace=[]), GlobalContext(request_id="r")
    plugins = [
        plugin(handler_of(name, part, order), name, mode=part.mode, priority=part.priority, on_error=part.rule)
        for name, part in pipeline.items()
    ]
    manager = manager_of(*plugins, observability=spans)
    current_trace_id.set("t")
    result = error = None
    records: list[ControlExecutionRecord] = []
    try:
        result, _ = await manager.invoke_hook("tool_pre_invoke", payload, host)
        await result.wait_for_background_tasks()
        records = result.executions
    except PluginError as raised:
        error, records = raised, raised.executions or []
    await manager.shutdown()
    assert other_tasks() == set()
    return Ended(order, result, error, records, spans, host.state, payload)


def named(pipeline: list[Part]) -> dict[str, Part]:
    return {f"p{number}": part for number, part in enumerate(pipeline)}


def in_order(pipeline: dict[str, Part]) -> list[str]:
    """Names by mode and priority; equal ones as they were registered."""
    return sorted(pipeline, key=lambda name: (MODES.index(pipeline[name].mode), pipeline[name].priority))


laws = settings(deadline=None, max_examples=1200)


@laws
@given(at_once)
def test_plugins_take_their_turns_in_the_order_of_mode_priority_and_registration(given_parts: list[Part]) -> None:
    pipeline = named(given_parts)
    call = asyncio.run(ended(pipeline))
    ordered = in_order(pipeline)
    decider = next((name for name in ordered if pipeline[name].ends_the_call()), None)
    if decider is None:
        assert call.order == ordered
        return
    waited_for = [name for name in ordered if pipeline[name].mode != "fire_and_forget"]
    assert call.order[: waited_for.index(decider) + 1] == waited_for[: waited_for.index(decider) + 1]


@laws
@given(at_once)
def test_the_first_in_order_that_can_end_the_call_decides(given_parts: list[Part]) -> None:
    pipeline = named(given_parts)
    call = asyncio.run(ended(pipeline))
    ordered = in_order(pipeline)
    decider = next((name for name in ordered if pipeline[name].ends_the_call()), None)
    until = ordered if decider is None else ordered[: ordered.index(decider)]
    changes = [name for name in until if pipeline[name].does == "changes" and pipeline[name].mode in MODES[:2]]
    changed = {"trace": changes} if changes else None
    if decider is None:
        assert call.decision == ("allowed", None, changed)
    elif pipeline[decider].does in DENYING:
        assert call.decision == ("denied", decider, changed)
    else:
        assert call.decision == ("failed", decider)


@laws
@given(pipelines)
def test_plugins_that_only_watch_have_no_influence_on_the_decision(given_parts: list[Part]) -> None:
    pipeline = named(given_parts)
    without = {name: part for name, part in pipeline.items() if part.mode not in WATCHING}
    # Which of several concurrent ones ends first may depend on turns of the event loop, not on those who watch.
    assert asyncio.run(ended(pipeline)).decision == asyncio.run(ended(without)).decision


@laws
@given(pipelines)
def test_whether_serial_plugins_wait_makes_no_difference(given_parts: list[Part]) -> None:
    serial = [part for part in given_parts if part.mode in MODES[:3]]
    waiting = named([Part(p.mode, p.priority, p.rule, p.does, True) for p in serial])
    immediate = named([Part(p.mode, p.priority, p.rule, p.does, False) for p in serial])
    one, other = asyncio.run(ended(waiting)), asyncio.run(ended(immediate))
    assert (one.order, one.decision, one.state) == (other.order, other.decision, other.state)
    assert [(each.plugin_name, each.status) for each in one.records] == [
        (each.plugin_name, each.status) for each in other.records
    ]


@laws
@given(pipelines)
def test_records_tell_the_truth(given_parts: list[Part]) -> None:
    pipeline = named(given_parts)
    call = asyncio.run(ended(pipeline))
    names = [record.plugin_name for record in call.records]
    assert len(names) == len(set(names))
    for record in call.records:
        part = pipeline[record.plugin_name]
        assert record.mode == part.mode
        assert not record.pending
        if record.status == "cancelled":
            assert part.mode == "concurrent"
            assert call.decision[0] in ("denied", "failed")
        elif record.status == "skipped":
            # A transform failed while the payload of a denied call was made ready for background plugins.
            assert (part.mode, record.error_code) == ("fire_and_forget", "redaction_failed")
        else:
            assert (record.status == "error") is (part.does in FAILING)
            assert record.duration_ns >= 0
        if part.mode != "fire_and_forget" and record.status == "completed":
            assert record.requested_allow is (part.does not in DENYING)
        ends = part.ends_the_call() and record.status != "cancelled"
        assert record.effective_allow is not (ends or record.status == "cancelled")
        assert record.payload_modified is (part.does == "changes" and part.mode in MODES[:2])
    ran = {name for name in call.order if pipeline[name].mode not in ("fire_and_forget", "transform")}
    assert ran <= set(names)


@laws
@given(pipelines)
def test_every_span_is_closed_once_and_the_host_s_payload_stays(given_parts: list[Part]) -> None:
    call = asyncio.run(ended(named(given_parts)))
    assert call.spans.open() == []
    assert call.payload == tool_payload(trace=[])


@laws
@given(pipelines)
def test_shared_state_holds_what_answering_plugins_wrote_and_nothing_else(given_parts: list[Part]) -> None:
    pipeline = named(given_parts)
    call = asyncio.run(ended(pipeline))
    answered = {
        record.plugin_name
        for record in call.records
        if record.status == "completed" and pipeline[record.plugin_name].mode not in WATCHING
    }
    assert set(call.state) == answered
