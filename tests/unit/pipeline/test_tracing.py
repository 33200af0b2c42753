"""Spans: which there are, what they carry, and that a provider cannot disturb a call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from support import SpanLog, allow, call, deny, manager_of, never, plugin

from cpex.framework.errors import PluginError
from cpex.framework.models.config import PluginCondition
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.result import PluginResult
from cpex.framework.observability import NullObservability, current_trace_id

CHAIN = "plugin.hook.invoke"


async def test_without_a_named_trace_there_are_no_spans() -> None:
    for trace in (None, ""):
        spans = SpanLog()
        current_trace_id.set(trace)
        await call(manager_of(plugin(allow), observability=spans))
        assert spans.started == []


async def test_a_call_has_a_chain_span_and_one_span_for_each_plugin_that_ran() -> None:
    spans = SpanLog()
    current_trace_id.set("t")
    manager = manager_of(
        plugin(allow, "runs", priority=7, timeout_s=3),
        plugin(allow, "skipped", conditions=[PluginCondition(tools={"other"})]),
        plugin(allow, "side", mode="concurrent"),
        observability=spans,
    )
    _, table = await call(manager)
    assert table is not None
    uuids = {key.removeprefix("r") for key in table}
    chain, first, second = spans.started
    assert chain == {
        "trace_id": "t",
        "name": CHAIN,
        "kind": "internal",
        "attributes": {"plugin.hook.type": "tool_pre_invoke", "plugin.chain.length": 3},
    }
    assert {first["attributes"].pop("plugin.uuid"), second["attributes"].pop("plugin.uuid")} == uuids
    assert first == {
        "trace_id": "t",
        "name": "plugin.execute.runs",
        "kind": "internal",
        "resource_type": "plugin",
        "resource_name": "runs",
        "attributes": {
            "plugin.name": "runs",
            "plugin.mode": "sequential",
            "plugin.priority": 7,
            "plugin.timeout": 3,
        },
    }
    assert second["attributes"]["plugin.timeout"] == 30
    assert spans.end_of("plugin.execute.runs") == {
        "span_id": "1",
        "status": "ok",
        "attributes": {"plugin.had_violation": False, "plugin.modified_payload": False},
    }
    assert spans.end_of(CHAIN) == {
        "span_id": "0",
        "status": "ok",
        "attributes": {
            "plugin.executed_count": 2,
            "plugin.skipped_count": 1,
            "plugin.chain.stopped": False,
            "plugin.chain.stopped_by": "",
        },
    }


async def test_a_halt_says_who_stopped_the_chain() -> None:
    spans = SpanLog()
    current_trace_id.set("t")
    await call(manager_of(plugin(allow, "a"), plugin(deny, "b"), plugin(allow, "c"), observability=spans))
    attributes = spans.end_of(CHAIN)["attributes"]
    assert attributes["plugin.chain.stopped"] is True
    assert attributes["plugin.chain.stopped_by"] == "b"
    assert attributes["plugin.executed_count"] == 2
    assert spans.end_of("plugin.execute.b")["attributes"]["plugin.had_violation"] is True


async def test_a_plugin_span_tells_of_a_change_that_was_asked_for() -> None:
    async def changes(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=payload)

    spans = SpanLog()
    current_trace_id.set("t")
    await call(manager_of(plugin(changes, mode="audit"), observability=spans))
    assert spans.end_of("plugin.execute.p")["attributes"]["plugin.modified_payload"] is True


async def test_a_failed_call_closes_its_spans_as_errors() -> None:
    async def breaks(payload: Any, context: Any) -> PluginResult[Any]:
        raise ValueError("broken")

    spans = SpanLog()
    current_trace_id.set("t")
    with pytest.raises(PluginError):
        await call(manager_of(plugin(allow, "a"), plugin(breaks, "b"), observability=spans))
    assert spans.open() == []
    assert [spans.end_of(name)["status"] for name in ("plugin.execute.a", "plugin.execute.b", CHAIN)] == [
        "ok",
        "error",
        "error",
    ]
    assert spans.end_of("plugin.execute.b")["attributes"] is None
    # The one whose failure ended the call does not count.
    assert spans.end_of(CHAIN)["attributes"]["plugin.executed_count"] == 1


async def test_a_provider_without_defaults_for_what_a_chain_has_is_told_of_all_of_it() -> None:
    told = []

    class Strict:
        def start_span(self, *, trace_id: str, name: str, kind: str, attributes: dict[str, Any], **rest: Any) -> str:
            told.append((name, kind))
            return name

        def end_span(self, *, span_id: str, status: str, attributes: dict[str, Any]) -> None:
            told.append((span_id, status))

    current_trace_id.set("t")
    await call(manager_of(plugin(allow, "a"), observability=Strict()))
    assert told == [(CHAIN, "internal"), ("plugin.execute.a", "internal"), ("plugin.execute.a", "ok"), (CHAIN, "ok")]


async def test_a_span_of_a_background_plugin_may_open_after_the_chain_is_closed() -> None:
    may_end = asyncio.Event()

    async def slow(payload: Any, context: Any) -> PluginResult[Any]:
        await may_end.wait()
        return PluginResult()

    spans = SpanLog()
    current_trace_id.set("t")
    manager = manager_of(plugin(slow, mode="fire_and_forget"), observability=spans)
    result, _ = await call(manager)
    assert spans.end_of(CHAIN)["attributes"]["plugin.executed_count"] == 0
    may_end.set()
    await result.wait_for_background_tasks()
    assert spans.open() == []
    assert spans.started[-1]["trace_id"] == "t"
    assert spans.end_of("plugin.execute.p")["attributes"] == {
        "plugin.had_violation": False,
        "plugin.modified_payload": False,
    }


async def test_calls_at_the_same_time_count_only_their_own_plugins() -> None:
    turn = asyncio.Event()

    async def waits(payload: Any, context: Any) -> PluginResult[Any]:
        await turn.wait()
        return PluginResult()

    odd = [PluginCondition(server_ids={"odd"})]
    spans = SpanLog()
    manager = manager_of(
        plugin(waits, "all"),
        plugin(waits, "odd", conditions=odd),
        plugin(waits, "side", mode="concurrent", conditions=odd),
        observability=spans,
    )

    async def one(number: int) -> None:
        current_trace_id.set(str(number))
        server = "odd" if number % 2 else "even"
        await call(manager, context=GlobalContext(request_id=str(number), server_id=server))

    calls = [asyncio.create_task(one(number)) for number in range(50)]
    await asyncio.sleep(0)
    turn.set()
    await asyncio.gather(*calls)
    counts = [spans.end_of(CHAIN, str(number))["attributes"] for number in range(50)]
    assert [(each["plugin.executed_count"], each["plugin.skipped_count"]) for each in counts] == [(1, 2), (3, 0)] * 25


@pytest.mark.parametrize("failing", ["start_span", "end_span"])
async def test_a_provider_that_fails_does_not_disturb_the_call(failing: str) -> None:
    class Broken(SpanLog):
        pass

    def broken(self: Any, **span: Any) -> None:
        raise ValueError("broken")

    setattr(Broken, failing, broken)
    current_trace_id.set("t")
    result, _ = await call(
        manager_of(
            plugin(allow), plugin(never, "n", timeout_s=0.02, on_error="ignore", priority=200), observability=Broken()
        )
    )
    assert [record.status for record in result.executions] == ["completed", "timeout"]


async def test_a_span_without_an_id_is_not_closed() -> None:
    ended = []

    class NoIds(NullObservability):
        def end_span(self, **end: Any) -> None:
            ended.append(end)

    current_trace_id.set("t")
    await call(manager_of(plugin(allow), observability=NoIds()))
    assert ended == []


async def test_a_provider_may_be_set_on_a_running_manager() -> None:
    manager, spans = manager_of(plugin(allow)), SpanLog()
    manager.observability = spans
    current_trace_id.set("t")
    await call(manager)
    assert manager.observability is spans
    assert [span["name"] for span in spans.started] == [CHAIN, "plugin.execute.p"]
