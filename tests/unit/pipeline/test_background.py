"""Fire-and-forget plugins: what they see, that the caller does not wait, and that nothing of them is lost."""

from __future__ import annotations

import asyncio
import gc
import logging
from typing import Any

import pytest
from support import SpanLog, allow, call, deny, manager_of, never, other_tasks, plugin, record_of, tool_payload

from cpex.framework.errors import PluginError
from cpex.framework.models.context import GlobalContext, PluginContext
from cpex.framework.models.result import PluginErrorModel, PluginResult
from cpex.framework.observability import current_trace_id
from cpex.framework.pipeline.background import Background

FAF = "fire_and_forget"


class Watcher:
    """A handler that keeps copies of the arguments it was shown."""

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, payload: Any, context: Any) -> PluginResult[Any]:
        self.seen.append(dict(payload.args))
        return PluginResult()

    async def handler(self, payload: Any, context: Any) -> PluginResult[Any]:
        return await self(payload, context)


async def redacts(payload: Any, context: Any) -> PluginResult[Any]:
    return PluginResult(modified_payload=payload.model_copy(update={"args": {"card": "[REDACTED]"}}))


async def test_the_caller_does_not_wait_for_them() -> None:
    may_end, ended = asyncio.Event(), []

    async def slow(payload: Any, context: Any) -> PluginResult[Any]:
        await may_end.wait()
        ended.append(True)
        return PluginResult()

    result, _ = await call(manager_of(plugin(slow, mode=FAF)))
    assert result.continue_processing
    assert ended == []
    may_end.set()
    assert await result.wait_for_background_tasks() == []
    assert ended == [True]


async def test_they_see_the_final_payload() -> None:
    watcher = Watcher()
    manager = manager_of(plugin(redacts, "redacts", mode="transform"), plugin(watcher.handler, "watches", mode=FAF))
    result, _ = await call(manager, tool_payload(card="4111"))
    await result.wait_for_background_tasks()
    assert watcher.seen == [{"card": "[REDACTED]"}]


async def test_after_a_denial_they_see_the_payload_as_the_transforms_would_have_made_it() -> None:
    watcher = Watcher()
    manager = manager_of(
        plugin(deny, "denies"),
        plugin(redacts, "redacts", mode="transform"),
        plugin(watcher.handler, "watches", mode=FAF),
    )
    result, _ = await call(manager, tool_payload(card="4111"))
    await result.wait_for_background_tasks()
    assert watcher.seen == [{"card": "[REDACTED]"}]
    assert result.modified_payload is None
    assert [record.plugin_name for record in result.executions] == ["denies", "watches"]


async def test_after_a_denial_by_a_concurrent_plugin_the_transforms_do_not_run_again() -> None:
    runs = []

    async def counts(payload: Any, context: Any) -> PluginResult[Any]:
        runs.append(True)
        return await redacts(payload, context)

    watcher = Watcher()
    manager = manager_of(
        plugin(counts, "redacts", mode="transform"),
        plugin(deny, "denies", mode="concurrent"),
        plugin(watcher.handler, "watches", mode=FAF),
    )
    result, _ = await call(manager, tool_payload(card="4111"))
    await result.wait_for_background_tasks()
    assert (len(runs), watcher.seen) == (1, [{"card": "[REDACTED]"}])


async def test_what_the_transforms_do_after_a_denial_reaches_neither_host_nor_context() -> None:
    async def writes(payload: Any, context: PluginContext) -> PluginResult[Any]:
        context.global_context.state["leak"] = True
        context.state["own"] = True
        payload.args["x"]["y"] = 2
        return PluginResult(modified_payload=payload, metadata={"leak": True})

    host, payload = GlobalContext(request_id="r"), tool_payload(x={"y": 1})
    manager = manager_of(
        plugin(deny, "denies"), plugin(writes, "writes", mode="transform"), plugin(allow, "watches", mode=FAF)
    )
    result, table = await call(manager, payload, host)
    await result.wait_for_background_tasks()
    assert (host.state, result.metadata, payload.args) == ({}, {}, {"x": {"y": 1}})
    assert table is not None
    assert not any(context.state for context in table.values())


@pytest.mark.parametrize("rule", ["fail", "ignore", "disable"])
async def test_when_a_transform_fails_after_a_denial_they_are_skipped_and_counted(
    rule: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def breaks(payload: Any, context: Any) -> PluginResult[Any]:
        raise ValueError("broken")

    watcher = Watcher()
    manager = manager_of(
        plugin(deny, "denies"),
        plugin(breaks, "redacts", mode="transform", on_error=rule),
        plugin(watcher.handler, "watches", mode=FAF),
        plugin(watcher.handler, "looks", mode=FAF),
    )
    result, _ = await call(manager, tool_payload(card="4111"))
    assert await result.wait_for_background_tasks() == []
    assert watcher.seen == []
    for name in ("watches", "looks"):
        record = record_of(result.executions, name)
        assert (record.status, record.error_code, record.pending) == ("skipped", "redaction_failed", False)
    assert manager.executor.background.skipped == 2
    assert "could not be redacted" in caplog.text


async def test_a_disabled_transform_cannot_redact_so_they_are_skipped() -> None:
    watcher = Watcher()
    manager = manager_of(
        plugin(deny, "denies"),
        plugin(redacts, "redacts", mode="transform"),
        plugin(watcher.handler, "watches", mode=FAF),
    )
    manager.executor.disabled.disable("redacts")
    result, _ = await call(manager, tool_payload(card="4111"))
    await result.wait_for_background_tasks()
    assert watcher.seen == []


async def test_they_do_not_run_when_the_call_fails() -> None:
    async def breaks(payload: Any, context: Any) -> PluginResult[Any]:
        raise ValueError("broken")

    watcher = Watcher()
    manager = manager_of(plugin(breaks, "breaks"), plugin(watcher.handler, "watches", mode=FAF))
    with pytest.raises(PluginError):
        await call(manager)
    await manager.shutdown()
    assert watcher.seen == []


async def test_each_has_a_payload_of_its_own() -> None:
    seen = []

    async def edits(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(dict(payload.args["x"]))
        payload.args["x"]["y"] = 2
        return PluginResult(modified_payload=payload)

    payload = tool_payload(x={"y": 1})
    result, _ = await call(manager_of(plugin(edits, "a", mode=FAF), plugin(edits, "b", mode=FAF)), payload)
    await result.wait_for_background_tasks()
    assert (seen, payload.args, result.modified_payload) == ([{"y": 1}] * 2, {"x": {"y": 1}}, None)


async def test_what_the_host_does_to_its_objects_afterwards_is_not_seen() -> None:
    go, seen = asyncio.Event(), []

    async def looks(payload: Any, context: PluginContext) -> PluginResult[Any]:
        await go.wait()
        seen.append((payload.args["x"]["y"], context.global_context.state, context.global_context.user))
        return PluginResult()

    payload, host = tool_payload(x={"y": 1}), GlobalContext(request_id="r", state={"n": [1]}, user={"name": "u"})
    result, _ = await call(manager_of(plugin(looks, mode=FAF)), payload, host)
    payload.args["x"]["y"] = 2
    host.state["n"].append(2)
    host.user["name"] = "v"
    go.set()
    await result.wait_for_background_tasks()
    assert seen == [(1, {"n": [1]}, {"name": "u"})]


async def test_state_written_in_the_background_stays_there() -> None:
    async def writes(payload: Any, context: PluginContext) -> PluginResult[Any]:
        context.global_context.state["leak"] = True
        context.global_context.metadata["leak"] = True
        return PluginResult(metadata={"leak": True}, retry_delay_ms=9)

    host = GlobalContext(request_id="r", state={"kept": 1})
    result, _ = await call(manager_of(plugin(writes, mode=FAF)), context=host)
    await result.wait_for_background_tasks()
    assert (host.state, host.metadata, result.metadata, result.retry_delay_ms) == ({"kept": 1}, {}, {}, 0)


async def test_they_continue_their_own_state_from_an_earlier_hook() -> None:
    seen = []

    async def counts(payload: Any, context: PluginContext) -> PluginResult[Any]:
        seen.append(context.get_state("n"))
        context.set_state("n", (context.get_state("n") or 0) + 1)
        return PluginResult()

    manager = manager_of(plugin(counts, mode=FAF))
    result, table = await call(manager)
    await result.wait_for_background_tasks()
    result, table = await call(manager, local_contexts=table)
    await result.wait_for_background_tasks()
    assert seen == [None, 1]


async def test_a_record_says_that_it_is_pending_until_its_plugin_ends() -> None:
    may_end = asyncio.Event()

    async def slow(payload: Any, context: Any) -> PluginResult[Any]:
        await may_end.wait()
        return PluginResult()

    result, _ = await call(manager_of(plugin(slow, mode=FAF)))
    record = record_of(result.executions)
    assert (record.pending, record.status, record.requested_allow, record.matched) == (True, "completed", None, None)
    may_end.set()
    await result.wait_for_background_tasks()
    assert record_of(result.executions) is record
    assert (record.pending, record.status) == (False, "completed")
    assert record.duration_ns > 0


async def test_errors_of_several_are_all_returned_to_whoever_waits() -> None:
    async def breaks(payload: Any, context: Any) -> PluginResult[Any]:
        raise ValueError("broken")

    manager = manager_of(
        plugin(breaks, "a", mode=FAF), plugin(allow, "b", mode=FAF), plugin(never, "c", mode=FAF, timeout_s=0.02)
    )
    result, _ = await call(manager)
    # One task runs them all; who waits needs not know.
    assert len(result.background_tasks) == 1
    errors = await result.wait_for_background_tasks()
    assert all(isinstance(error, PluginErrorModel) for error in errors)
    assert sorted((error.plugin_name, error.message) for error in errors) == [
        ("a", "ValueError('broken')"),
        ("c", "Plugin c exceeded 0.02s timeout"),
    ]


async def test_one_that_waits_does_not_hold_up_the_others() -> None:
    may_end = asyncio.Event()

    async def waits(payload: Any, context: Any) -> PluginResult[Any]:
        await may_end.wait()
        return PluginResult()

    async def lets_it_end(payload: Any, context: Any) -> PluginResult[Any]:
        may_end.set()
        return PluginResult()

    manager = manager_of(plugin(waits, "a", mode=FAF, priority=1), plugin(lets_it_end, "b", mode=FAF, priority=2))
    result, _ = await call(manager)
    assert await asyncio.wait_for(result.wait_for_background_tasks(), 60) == []


async def test_a_handler_that_is_listed_twice_runs_once() -> None:
    watcher = Watcher()
    manager = manager_of(plugin(watcher.handler, hooks=["tool_pre_invoke", "tool_pre_invoke"], mode=FAF))
    result, _ = await call(manager)
    await result.wait_for_background_tasks()
    assert len(watcher.seen) == 1


async def test_tasks_are_kept_alive_even_when_the_host_drops_the_result() -> None:
    may_end, ended = asyncio.Event(), asyncio.Event()

    async def slow(payload: Any, context: Any) -> PluginResult[Any]:
        await may_end.wait()
        ended.set()
        return PluginResult()

    manager = manager_of(plugin(slow, mode=FAF))
    await call(manager)
    await asyncio.sleep(0)
    gc.collect()
    may_end.set()
    await asyncio.wait_for(ended.wait(), 60)
    await manager.shutdown()


async def test_a_shutdown_lets_them_end() -> None:
    ended = []

    async def slow(payload: Any, context: Any) -> PluginResult[Any]:
        for _ in range(5):
            await asyncio.sleep(0)
        ended.append(True)
        return PluginResult()

    manager = manager_of(plugin(slow, mode=FAF))
    result, _ = await call(manager)
    await manager.shutdown()
    assert ended == [True]
    assert not record_of(result.executions).pending
    assert other_tasks() == set()


async def test_a_shutdown_cancels_those_that_do_not_end_in_time_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    spans = SpanLog()
    current_trace_id.set("t")
    manager = manager_of(plugin(never, mode=FAF), drain_timeout_s=0.02, observability=spans)
    result, _ = await call(manager)
    await manager.shutdown()
    record = record_of(result.executions)
    assert (record.status, record.pending) == ("cancelled", False)
    assert "1 background tasks did not end within 0.02 s and were cancelled" in caplog.text
    assert other_tasks() == set()
    assert spans.open() == []


async def test_beyond_the_limit_they_are_refused_counted_and_warned_about_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    may_end = asyncio.Event()

    async def slow(payload: Any, context: Any) -> PluginResult[Any]:
        await may_end.wait()
        return PluginResult()

    manager = manager_of(plugin(slow, mode=FAF), background_limit=2)
    with caplog.at_level(logging.WARNING):
        results = [(await call(manager))[0] for _ in range(5)]
    refused = [result for result in results if not result.background_tasks]
    assert [bool(result.background_tasks) for result in results] == [True, True, False, False, False]
    assert manager.executor.background.refused == 3
    assert caplog.text.count("Background limit of 2 tasks reached") == 1
    for result in refused:
        record = record_of(result.executions)
        assert (record.status, record.error_code, record.pending) == ("skipped", "background_limit", False)
    may_end.set()
    await manager.shutdown()


async def test_a_whole_call_s_time_does_not_bound_what_follows_it() -> None:
    async def longer_than_the_call(payload: Any, context: Any) -> PluginResult[Any]:
        await asyncio.sleep(0.03)
        return PluginResult()

    result, _ = await call(manager_of(plugin(longer_than_the_call, mode=FAF), hook_timeout_s=0.01))
    assert await result.wait_for_background_tasks() == []
    assert record_of(result.executions).status == "completed"


async def test_a_drain_waits_only_for_tasks_of_its_own_loop() -> None:
    background = Background(10, 5.0)

    async def waits() -> None:
        await asyncio.Event().wait()

    def in_another_loop() -> None:
        async def leaves_a_task() -> None:
            background.spawn(waits, "left")
            await asyncio.sleep(0)

        asyncio.run(leaves_a_task())

    await asyncio.to_thread(in_another_loop)
    assert await asyncio.wait_for(background.drain(), 60) == 0


@pytest.mark.parametrize("suspends", [False, True])
@pytest.mark.parametrize("reads", ["before it begins", "when it has ended"])
async def test_what_a_background_plugin_keeps_is_in_the_table_whenever_that_is_read(suspends: bool, reads: str) -> None:
    async def keeps(payload: Any, context: PluginContext) -> PluginResult[Any]:
        context.set_state("seen", payload.args)
        if suspends:
            await asyncio.sleep(0)
        context.set_state("user", context.global_context.user)
        return PluginResult()

    manager = manager_of(plugin(keeps, "a", mode=FAF), plugin(allow, "b", mode=FAF))
    host = GlobalContext(request_id="r", user="host")
    result, table = await call(manager, tool_payload(x=1), host)
    assert table is not None
    # The snapshot was taken at the decision, whoever looks in between.
    host.user = "later"
    entries = list(table.values()) if reads == "before it begins" else None
    await result.wait_for_background_tasks()
    entries = entries if entries is not None else list(table.values())
    assert [entry.state for entry in entries] == [{"seen": {"x": 1}, "user": "host"}, {}]
    assert list(table.values()) == entries


async def test_the_table_of_a_call_with_one_plugin_twice_in_the_background_has_its_one_context() -> None:
    handler = plugin(allow, "a", hooks=["tool_pre_invoke", "tool_pre_invoke"], mode=FAF)
    result, table = await call(manager_of(handler))
    await result.wait_for_background_tasks()
    assert table is not None
    assert len(table) == len(result.executions) == 1
