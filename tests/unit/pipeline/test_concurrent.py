"""Concurrent plugins: side by side, ended together, merged in the order of priority."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from support import (
    BEGUN_BY_THEN_S,
    SpanLog,
    allow,
    call,
    denial,
    deny,
    manager_of,
    never,
    other_tasks,
    plugin,
    record_of,
    tool_payload,
)

from cpex.framework.errors import PluginError, PluginViolationError
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.result import PluginResult, PluginViolation
from cpex.framework.observability import current_trace_id
from cpex.framework.pipeline.executor import Executor


def waiting_for(event: asyncio.Event, result: Callable[[], PluginResult[Any]] = PluginResult) -> Callable[..., Any]:
    """A handler that answers once the event is set."""

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        await event.wait()
        return result()

    return handler


async def violates(payload: Any, context: Any) -> PluginResult[Any]:
    raise PluginViolationError("no", PluginViolation(reason="r", description="d", code="C"))


async def breaks(payload: Any, context: Any) -> PluginResult[Any]:
    raise ValueError("broken")


async def test_all_of_them_run_at_the_same_time() -> None:
    met = asyncio.Barrier(3)

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        await met.wait()
        return PluginResult()

    manager = manager_of(*(plugin(handler, name, mode="concurrent") for name in "abc"))
    result, _ = await asyncio.wait_for(call(manager), 60)
    assert [record.status for record in result.executions] == ["completed"] * 3


@pytest.mark.parametrize(
    ("ending", "raised"),
    [(deny, None), (violates, None), (breaks, PluginError)],
    ids=["denial", "raised_violation", "failure"],
)
@pytest.mark.parametrize("at_once", [True, False], ids=["at_once", "after_the_siblings_have_started"])
async def test_the_first_denial_or_failure_cancels_and_awaits_the_others(
    ending: Any, raised: type[Exception] | None, at_once: bool
) -> None:
    started, ended = asyncio.Event(), []

    async def sibling(payload: Any, context: Any) -> PluginResult[Any]:
        started.set()
        try:
            return await never(payload, context)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async def ends(payload: Any, context: Any) -> Any:
        if not at_once:
            await started.wait()
        return await ending(payload, context)

    spans = SpanLog()
    current_trace_id.set("t")
    manager = manager_of(
        plugin(sibling, "before", mode="concurrent", priority=1),
        plugin(ends, "ends", mode="concurrent", priority=2),
        plugin(sibling, "after", mode="concurrent", priority=3),
        observability=spans,
    )
    if raised is None:
        result, _ = await call(manager)
        records = result.executions
        assert not result.continue_processing
    else:
        with pytest.raises(raised) as caught:
            await call(manager)
        assert isinstance(caught.value, PluginError)
        assert caught.value.executions is not None
        records = caught.value.executions
    assert other_tasks() == set()
    assert record_of(records, "before").status == "cancelled"
    assert record_of(records, "after").status == "cancelled"
    # Whoever has begun (besides the chain's span and the one that ends the call) has also ended.
    assert len(ended) == len(spans.started) - 2
    assert spans.open() == []


@pytest.mark.parametrize("ending", [deny, violates, breaks], ids=["denial", "raised_violation", "failure"])
async def test_all_begin_together_even_beside_one_that_ends_the_call_without_waiting(ending: Any) -> None:
    told: list[str] = []

    def sibling(name: str) -> Callable[..., Any]:
        async def handler(payload: Any, context: Any) -> PluginResult[Any]:
            told.append(f"{name} begun")
            try:
                return await never(payload, context)
            except asyncio.CancelledError:
                told.append(f"{name} cancelled")
                raise

        return handler

    manager = manager_of(
        plugin(ending, "ends", mode="concurrent", priority=1),
        *(plugin(sibling(name), name, mode="concurrent", priority=2) for name in "abc"),
    )
    if ending is breaks:
        with pytest.raises(PluginError) as caught:
            await call(manager)
        records = caught.value.executions or []
    else:
        records = (await call(manager))[0].executions
    assert told[:3] == ["a begun", "b begun", "c begun"]
    assert sorted(told[3:]) == ["a cancelled", "b cancelled", "c cancelled"]
    assert [str(record_of(records, name).status) for name in "abc"] == ["cancelled"] * 3
    assert other_tasks() == set()


async def test_only_as_many_begin_beside_a_denial_as_the_pool_has_places() -> None:
    begun = []

    def notes(name: str) -> Callable[..., Any]:
        async def handler(payload: Any, context: Any) -> PluginResult[Any]:
            begun.append(name)
            return await never(payload, context)

        return handler

    manager = manager_of(
        plugin(deny, "denies", mode="concurrent", priority=1),
        *(plugin(notes(name), name, mode="concurrent", priority=2) for name in "abc"),
    )
    plan = manager._registry.plan("tool_pre_invoke")
    assert plan is not None
    result, _ = await Executor(execution_pool=2).run(plan, tool_payload(), GlobalContext(request_id="r"))
    assert begun == ["a"]
    assert not result.continue_processing
    assert other_tasks() == set()


async def test_a_cancelled_sibling_gave_no_answer_and_let_nothing_through() -> None:
    manager = manager_of(plugin(never, "slow", mode="concurrent"), plugin(deny, "denies", mode="concurrent"))
    result, _ = await call(manager)
    record = record_of(result.executions, "slow")
    assert (record.requested_allow, record.effective_allow, record.matched, record.applied) == (
        None,
        False,
        None,
        False,
    )


async def test_of_several_denials_at_the_same_moment_the_one_with_the_lower_priority_counts() -> None:
    go = asyncio.Event()
    plugins = [
        plugin(waiting_for(go, lambda code=code: denial(code)), code, mode="concurrent", priority=n)
        for code, n in (("C", 3), ("A", 1), ("B", 2))
    ]
    host = asyncio.create_task(call(manager_of(*plugins)))
    await asyncio.sleep(0)
    go.set()
    result, _ = await host
    assert result.violation is not None
    assert result.violation.code == "A"


async def test_shared_state_is_merged_in_the_order_of_priority_whoever_ends_first() -> None:
    first_may_end = asyncio.Event()

    async def first(payload: Any, context: Any) -> PluginResult[Any]:
        context.global_context.state.update(both="first", one=1)
        await first_may_end.wait()
        return PluginResult()

    async def second(payload: Any, context: Any) -> PluginResult[Any]:
        context.global_context.state.update(both="second", two=2)
        first_may_end.set()
        return PluginResult()

    host = GlobalContext(request_id="r", state={"kept": 0})
    await call(
        manager_of(
            plugin(first, "first", mode="concurrent", priority=1),
            plugin(second, "second", mode="concurrent", priority=2),
        ),
        context=host,
    )
    assert host.state == {"kept": 0, "both": "second", "one": 1, "two": 2}


async def test_a_plugin_writes_back_only_the_keys_that_it_wrote_or_deleted() -> None:
    read = asyncio.Event()

    async def reads(payload: Any, context: Any) -> PluginResult[Any]:
        assert context.global_context.state["shared"] == {"n": 0}
        read.set()
        return PluginResult()

    async def writes(payload: Any, context: Any) -> PluginResult[Any]:
        await read.wait()
        context.global_context.state["shared"]["n"] = 1
        del context.global_context.state["gone"]
        context.global_context.metadata["m"] = 1
        return PluginResult()

    host = GlobalContext(request_id="r", state={"shared": {"n": 0}, "gone": 1})
    await call(
        manager_of(
            plugin(writes, "writes", mode="concurrent", priority=1),
            plugin(reads, "reads", mode="concurrent", priority=2),
        ),
        context=host,
    )
    assert (host.state, host.metadata) == ({"shared": {"n": 1}}, {"m": 1})


async def test_state_of_those_that_were_cancelled_or_failed_is_not_merged() -> None:
    async def writes_and_waits(payload: Any, context: Any) -> PluginResult[Any]:
        context.global_context.state["cancelled"] = True
        return await never(payload, context)

    async def writes_and_breaks(payload: Any, context: Any) -> PluginResult[Any]:
        context.global_context.state["failed"] = True
        raise ValueError("broken")

    async def writes_and_denies(payload: Any, context: Any) -> PluginResult[Any]:
        await asyncio.sleep(0)
        context.global_context.state["denied"] = True
        return denial()

    host = GlobalContext(request_id="r")
    await call(
        manager_of(
            plugin(writes_and_waits, "a", mode="concurrent"),
            plugin(writes_and_breaks, "b", mode="concurrent", on_error="ignore"),
            plugin(writes_and_denies, "c", mode="concurrent"),
        ),
        context=host,
    )
    assert host.state == {"denied": True}


async def test_changes_of_payload_and_extensions_are_dropped() -> None:
    async def changes(payload: Any, context: Any) -> PluginResult[Any]:
        payload.args["x"] = 2
        return PluginResult(modified_payload=payload)

    seen = []

    async def looks(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(payload.args)
        return PluginResult()

    manager = manager_of(
        plugin(changes, "changes", mode="concurrent", priority=1),
        plugin(looks, "looks", mode="concurrent", priority=2),
    )
    result, _ = await call(manager, tool_payload(x=1))
    assert result.modified_payload is None
    assert seen == [{"x": 1}]


@pytest.mark.parametrize("pool", [1, 2])
async def test_a_pool_limits_how_many_run_at_once(pool: int) -> None:
    running, most = 0, 0

    async def counts(payload: Any, context: Any) -> PluginResult[Any]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(3):
            await asyncio.sleep(0)
        running -= 1
        return PluginResult()

    manager = manager_of(*(plugin(counts, f"p{n}", mode="concurrent", priority=n) for n in range(6)))
    plan = manager._registry.plan("tool_pre_invoke")
    assert plan is not None
    await Executor(execution_pool=pool).run(plan, tool_payload(), GlobalContext(request_id="r"))
    assert most == pool


async def test_waiting_for_a_place_in_the_pool_does_not_count_as_running() -> None:
    async def keeps_the_place(payload: Any, context: Any) -> PluginResult[Any]:
        await asyncio.sleep(0.1)
        return PluginResult()

    async def waits_once(payload: Any, context: Any) -> PluginResult[Any]:
        # A loop resumes this before it looks at timers, so a slow machine cannot make it late.
        await asyncio.sleep(0)
        return PluginResult()

    manager = manager_of(
        plugin(keeps_the_place, "first", mode="concurrent", priority=1, timeout_s=60),
        plugin(waits_once, "second", mode="concurrent", priority=2, timeout_s=0.05),
    )
    plan = manager._registry.plan("tool_pre_invoke")
    assert plan is not None
    result, _ = await Executor(execution_pool=1).run(plan, tool_payload(), GlobalContext(request_id="r"))
    assert [record.status for record in result.executions] == ["completed"] * 2


async def test_one_that_waits_for_its_place_is_cancelled_without_having_begun() -> None:
    begun = []

    async def notes(payload: Any, context: Any) -> PluginResult[Any]:
        begun.append(True)
        return PluginResult()

    manager = manager_of(
        plugin(deny, "denies", mode="concurrent", priority=1),
        plugin(notes, "waits", mode="concurrent", priority=2),
    )
    plan = manager._registry.plan("tool_pre_invoke")
    assert plan is not None
    result, _ = await Executor(execution_pool=1).run(plan, tool_payload(), GlobalContext(request_id="r"))
    assert begun == []
    assert record_of(result.executions, "waits").status == "cancelled"


@pytest.mark.parametrize("count", [1, 3])
async def test_a_call_that_is_cancelled_ends_all_of_them_before_it_ends_itself(count: int) -> None:
    all_run, ended = asyncio.Barrier(count + 1), []

    async def waits(payload: Any, context: Any) -> PluginResult[Any]:
        await all_run.wait()
        try:
            return await never(payload, context)
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    host = asyncio.create_task(call(manager_of(*(plugin(waits, f"p{n}", mode="concurrent") for n in range(count)))))
    await all_run.wait()
    host.cancel()
    with pytest.raises(asyncio.CancelledError):
        await host
    assert len(ended) == count
    assert other_tasks() == set()


async def test_a_sibling_that_is_slow_to_end_is_waited_for() -> None:
    ending, may_end, ended = asyncio.Event(), asyncio.Event(), []

    async def slow_to_end(payload: Any, context: Any) -> PluginResult[Any]:
        try:
            return await never(payload, context)
        finally:
            ending.set()
            await asyncio.shield(asyncio.ensure_future(may_end.wait()))
            ended.append(True)

    async def denies_later(payload: Any, context: Any) -> PluginResult[Any]:
        await asyncio.sleep(0)
        return denial()

    manager = manager_of(
        plugin(slow_to_end, "slow", mode="concurrent", priority=1),
        plugin(denies_later, "denies", mode="concurrent", priority=2),
    )
    host = asyncio.create_task(call(manager))
    await ending.wait()
    may_end.set()
    result, _ = await host
    assert ended == [True]
    assert not result.continue_processing
    assert other_tasks() == set()


async def test_durations_are_measured() -> None:
    async def takes_a_while(payload: Any, context: Any) -> PluginResult[Any]:
        await asyncio.sleep(0.01)
        return PluginResult()

    manager = manager_of(*(plugin(takes_a_while, name, mode="concurrent") for name in "ab"))
    result, _ = await call(manager)
    assert all(record.duration_ns >= 9_000_000 for record in result.executions)


async def test_a_whole_call_that_runs_out_of_time_fails_and_ends_all_of_them() -> None:
    manager = manager_of(
        *(plugin(never, name, mode="concurrent", on_error="ignore") for name in "ab"), hook_timeout_s=BEGUN_BY_THEN_S
    )
    with pytest.raises(PluginError) as caught:
        await call(manager)
    assert caught.value.error.code == "hook_timeout"
    assert caught.value.executions is not None
    assert {record.plugin_name for record in caught.value.executions} == {"a", "b"}
    assert other_tasks() == set()


async def test_a_denial_raised_as_an_exception_leaves_no_task() -> None:
    manager = manager_of(plugin(never, "slow", mode="concurrent"), plugin(deny, "denies", mode="concurrent"))
    with pytest.raises(PluginViolationError) as caught:
        await call(manager, violations_as_exceptions=True)
    assert caught.value.executions is not None
    assert {record.plugin_name: str(record.status) for record in caught.value.executions} == {
        "slow": "cancelled",
        "denies": "completed",
    }
    assert caught.value.denial_outcome is not None
    assert caught.value.denial_outcome.execution.plugin_name == "denies"
    assert other_tasks() == set()


async def test_one_that_ignores_its_failure_does_not_disturb_the_others() -> None:
    manager = manager_of(
        plugin(breaks, "breaks", mode="concurrent", on_error="ignore"), plugin(allow, "allows", mode="concurrent")
    )
    result, _ = await call(manager)
    assert result.continue_processing
    assert {record.plugin_name: str(record.status) for record in result.executions} == {
        "breaks": "error",
        "allows": "completed",
    }


async def test_a_place_in_the_pool_is_taken_again_as_soon_as_a_plugin_has_ended() -> None:
    may_end = {name: asyncio.Event() for name in "abcd"}
    has_begun = {name: asyncio.Event() for name in "abcd"}

    def waits(name: str) -> Callable[..., Any]:
        async def handler(payload: Any, context: Any) -> PluginResult[Any]:
            has_begun[name].set()
            await may_end[name].wait()
            return PluginResult()

        return handler

    manager = manager_of(*(plugin(waits(name), name, mode="concurrent") for name in may_end))
    manager.executor.execution_pool = 2
    running = asyncio.create_task(call(manager))

    async def running_now(*names: str) -> None:
        async with asyncio.timeout(60):
            for name in names:
                await has_begun[name].wait()
        assert {name for name, event in has_begun.items() if event.is_set()} == set(names)

    await running_now("a", "b")
    may_end["a"].set()
    await running_now("a", "b", "c")
    may_end["c"].set()
    await running_now("a", "b", "c", "d")
    may_end["b"].set()
    may_end["d"].set()
    result, _ = await running
    assert {record.plugin_name for record in result.executions if str(record.status) == "completed"} == set("abcd")
