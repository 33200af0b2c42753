"""A handler that waits behaves as under a plain `await`: same task, its own context variables, cancellable, bounded."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import anyio
import pytest
from support import SpanLog, allow, call, manager_of, never, other_tasks, plugin, record_of, tool_payload

from cpex.framework.errors import PluginError
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.result import PluginResult
from cpex.framework.observability import current_trace_id
from cpex.framework.pipeline import stepping

SERIAL = ("sequential", "transform", "audit")
WAITED_FOR = (*SERIAL, "concurrent")
SHORT_S = 0.02
TURNS = pytest.mark.parametrize("turns", [0, 1, 3], ids=["at_once", "one_turn", "three_turns"])
variable: ContextVar[str] = ContextVar("variable", default="unset")


async def take_turns(turns: int) -> None:
    """Give the event loop some turns."""
    for _ in range(turns):
        await asyncio.sleep(0)


@TURNS
@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_a_handler_runs_in_the_task_of_the_host(mode: str, turns: int) -> None:
    seen = []

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(asyncio.current_task())
        await take_turns(turns)
        seen.append(asyncio.current_task())
        return PluginResult()

    await call(manager_of(plugin(handler, mode=mode)))
    assert seen == [asyncio.current_task()] * 2


async def test_concurrent_handlers_that_wait_run_in_tasks_of_their_own() -> None:
    seen = set()

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        before = asyncio.current_task()
        await take_turns(1)
        assert asyncio.current_task() is before
        seen.add(before)
        return PluginResult()

    await call(manager_of(plugin(handler, "a", mode="concurrent"), plugin(handler, "b", mode="concurrent")))
    assert len(seen) == 2
    assert asyncio.current_task() not in seen
    assert other_tasks() == set()


@TURNS
@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_a_handler_sees_the_host_s_context_variables_and_its_own_stay_with_it(mode: str, turns: int) -> None:
    seen = []

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(variable.get())
        variable.set("plugin")
        await take_turns(turns)
        seen.append(variable.get())
        variable.set("plugin again")
        return PluginResult()

    variable.set("host")
    await call(manager_of(*(plugin(handler, name, mode=mode) for name in ("a", "b", "c"))))
    assert sorted(seen) == ["host"] * 3 + ["plugin"] * 3
    assert variable.get() == "host"


async def test_a_background_handler_sees_the_host_s_context_variables_and_its_own_stay_with_it() -> None:
    seen = []

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(variable.get())
        variable.set("plugin")
        await take_turns(1)
        seen.append(variable.get())
        return PluginResult()

    variable.set("host")
    result, _ = await call(manager_of(plugin(handler, mode="fire_and_forget")))
    await result.wait_for_background_tasks()
    assert (seen, variable.get()) == (["host", "plugin"], "host")


@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_asyncio_timeout_inside_a_handler_ends_what_it_encloses_and_nothing_else(mode: str) -> None:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        try:
            async with asyncio.timeout(SHORT_S):
                await asyncio.Event().wait()
        except TimeoutError:
            return PluginResult(metadata={"gave": "up"})
        raise AssertionError("the event is never set")

    result, _ = await call(manager_of(plugin(handler, mode=mode)))
    assert result.metadata == {"gave": "up"}
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_a_cancel_scope_of_anyio_inside_a_handler_ends_what_it_encloses(mode: str) -> None:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        with anyio.move_on_after(SHORT_S) as scope:
            await anyio.sleep_forever()
        return PluginResult(metadata={"cancelled": scope.cancelled_caught})

    result, _ = await call(manager_of(plugin(handler, mode=mode)))
    assert result.metadata == {"cancelled": True}


@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_a_task_group_inside_a_handler_is_finished_when_it_times_out(mode: str) -> None:
    ended = []

    async def child() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        async with asyncio.TaskGroup() as group:
            group.create_task(child())
        return PluginResult()

    result, _ = await call(manager_of(plugin(handler, mode=mode, on_error="ignore", timeout_s=SHORT_S)))
    assert record_of(result.executions).status == "timeout"
    assert ended == [True]
    assert other_tasks() == set()


async def fails() -> None:
    raise ValueError("of a child")


async def a_group_that_fails() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fails())
        group.create_task(never(None, None))


async def groups_inside_of_each_other() -> None:
    async with asyncio.TaskGroup() as outer:
        outer.create_task(never(None, None))
        await a_group_that_fails()


async def a_group_whose_body_is_interrupted() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(fails())
        await never(None, None)


@contextlib.asynccontextmanager
async def managed() -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as group:
        group.create_task(fails())
        yield


async def a_group_in_a_context_manager() -> None:
    async with managed():
        pass


async def groups_one_after_another() -> None:
    for _ in range(3):
        with pytest.raises(ExceptionGroup):
            await a_group_that_fails()
    raise ExceptionGroup("three", [ValueError("of a child")])


FAILING_GROUPS = pytest.mark.parametrize(
    "group",
    [
        a_group_that_fails,
        groups_inside_of_each_other,
        a_group_whose_body_is_interrupted,
        a_group_in_a_context_manager,
        groups_one_after_another,
    ],
)


@FAILING_GROUPS
@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_the_failure_of_a_task_group_inside_a_handler_is_no_cancellation_by_the_host(
    mode: str, group: Callable[[], Awaitable[None]]
) -> None:
    async def copes(payload: Any, context: Any) -> PluginResult[Any]:
        with contextlib.suppress(ExceptionGroup):
            await group()
        return PluginResult(metadata={"coped": True})

    async def does_not(payload: Any, context: Any) -> PluginResult[Any]:
        await group()
        raise AssertionError("the group raises")

    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    manager = manager_of(plugin(copes, "a", mode=mode), plugin(does_not, "b", mode=mode, on_error="ignore"))
    result, _ = await call(manager)
    assert result.metadata == {"coped": True}
    assert record_of(result.executions, "b").status == "error"
    assert task.cancelling() == before


@pytest.mark.parametrize("first", ["host", "child"])
@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_the_host_s_cancellation_counts_beside_a_task_group_that_fails(mode: str, first: str) -> None:
    go, ending, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def child() -> None:
        await go.wait()
        raise ValueError("of a child")

    async def lingers() -> None:
        try:
            await never(None, None)
        finally:
            ending.set()
            await stopped.wait()

    async def copes(payload: Any, context: Any) -> PluginResult[Any]:
        with contextlib.suppress(ExceptionGroup):
            async with asyncio.TaskGroup() as group:
                group.create_task(child())
                group.create_task(lingers())
        return PluginResult()

    host = asyncio.create_task(call(manager_of(plugin(copes, mode=mode, on_error="ignore"))))
    await take_turns(3)
    if first == "child":
        go.set()
        await ending.wait()
    host.cancel()
    await take_turns(1)
    go.set()
    stopped.set()
    with pytest.raises(asyncio.CancelledError):
        await host
    assert other_tasks() == set()


@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_a_timeout_of_the_host_around_the_call_reaches_the_handler(mode: str) -> None:
    ended = []

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        try:
            return await never(payload, context)
        finally:
            ended.append(True)

    manager = manager_of(plugin(handler, "a", mode=mode), plugin(handler, "b", mode=mode))
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(SHORT_S):
            await call(manager)
    assert ended == [True] * (2 if mode == "concurrent" else 1)
    assert other_tasks() == set()


@pytest.mark.parametrize("limits", [{}, {"timeout": SHORT_S}], ids=["of_the_plugin", "of_the_manager"])
@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_a_handler_that_takes_too_long_is_told_so_and_blamed(mode: str, limits: dict[str, float]) -> None:
    seen = []

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        try:
            return await never(payload, context)
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    own = None if limits else SHORT_S
    tested = plugin(handler, mode=mode, on_error="ignore", timeout_s=own)
    manager = manager_of(tested, timeout=limits.get("timeout", 30))
    result, _ = await call(manager)
    record = record_of(result.executions)
    assert seen == ["cancelled"]
    assert (record.status, record.reason) == ("timeout", "Plugin p exceeded 0.02s timeout")
    assert record.duration_ns >= SHORT_S * 1e9


async def test_the_host_s_task_is_as_before_after_a_plugin_timed_out() -> None:
    manager = manager_of(plugin(never, on_error="ignore", timeout_s=SHORT_S), plugin(allow, "after"))
    result, _ = await call(manager)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert record_of(result.executions, "after").status == "completed"
    await asyncio.sleep(0)


@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_an_answer_after_the_deadline_is_no_answer(mode: str) -> None:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        try:
            return await never(payload, context)
        except asyncio.CancelledError:
            return PluginResult(metadata={"too": "late"})

    result, _ = await call(manager_of(plugin(handler, mode=mode, on_error="ignore", timeout_s=SHORT_S)))
    assert record_of(result.executions).status == "timeout"
    assert result.metadata == {}


@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_an_error_after_the_deadline_is_a_timeout(mode: str) -> None:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        try:
            return await never(payload, context)
        except asyncio.CancelledError:
            raise ValueError("while cleaning up") from None

    result, _ = await call(manager_of(plugin(handler, mode=mode, on_error="ignore", timeout_s=SHORT_S)))
    assert record_of(result.executions).error_code == "plugin_timeout"


@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_a_handler_that_will_not_end_is_abandoned_after_the_grace(
    mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The grace is no setting, and waiting for all of it would make the test slow.
    monkeypatch.setattr(stepping, "CLEANUP_GRACE_S", SHORT_S)
    swallowed = []

    async def stubborn(payload: Any, context: Any) -> PluginResult[Any]:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.append(True)

    manager = manager_of(plugin(stubborn, mode=mode, on_error="ignore", timeout_s=SHORT_S), plugin(allow, "after"))
    result, _ = await asyncio.wait_for(call(manager), 60)
    assert swallowed == [True]
    assert record_of(result.executions).status == "timeout"
    assert other_tasks() == set()


async def test_a_handler_that_swallows_even_its_closing_is_abandoned_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # The grace is no setting, and waiting for all of it would make the test slow.
    monkeypatch.setattr(stepping, "CLEANUP_GRACE_S", SHORT_S)

    async def immortal(payload: Any, context: Any) -> PluginResult[Any]:
        # Bounded, so that the interpreter gets rid of it in the end.
        for _ in range(3):
            try:
                await asyncio.Event().wait()
            # The closing, too.
            except BaseException:
                continue
        return PluginResult()

    result, _ = await call(manager_of(plugin(immortal, on_error="ignore", timeout_s=SHORT_S)))
    assert record_of(result.executions).status == "timeout"
    assert "A handler kept running after its deadline and was abandoned" in caplog.text
    gc.collect()


@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_a_handler_may_clean_up_within_the_grace(mode: str) -> None:
    cleaned = []

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        try:
            return await never(payload, context)
        finally:
            await take_turns(3)
            cleaned.append(True)

    result, _ = await call(manager_of(plugin(handler, mode=mode, on_error="ignore", timeout_s=SHORT_S)))
    assert (cleaned, record_of(result.executions).status) == ([True], "timeout")


@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_a_cancellation_by_the_host_cannot_be_swallowed_by_a_plugin(mode: str) -> None:
    running = asyncio.Event()
    after = []

    async def swallows(payload: Any, context: Any) -> PluginResult[Any]:
        running.set()
        try:
            return await never(payload, context)
        except asyncio.CancelledError:
            return PluginResult(metadata={"swallowed": True})

    async def later(payload: Any, context: Any) -> PluginResult[Any]:
        after.append(True)
        return PluginResult()

    # Beside a concurrent plugin others may have started already; after any other one, nothing may.
    followers = [] if mode == "concurrent" else [plugin(later, "later", mode="concurrent", priority=200)]
    manager = manager_of(plugin(swallows, mode=mode), *followers)
    host = asyncio.create_task(call(manager))
    await running.wait()
    host.cancel()
    with pytest.raises(asyncio.CancelledError):
        await host
    assert after == []


async def test_a_cancel_scope_of_the_host_knows_its_cancellation_even_when_a_plugin_swallows_it() -> None:
    async def swallows(payload: Any, context: Any) -> PluginResult[Any]:
        try:
            return await never(payload, context)
        except asyncio.CancelledError:
            return PluginResult()

    returned = []
    with anyio.move_on_after(SHORT_S) as scope:
        returned.append(await call(manager_of(plugin(swallows))))
    assert (returned, scope.cancelled_caught) == ([], True)


async def test_a_plugin_that_cancels_the_host_s_task_cancels_the_call() -> None:
    async def cancels(payload: Any, context: Any) -> PluginResult[Any]:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        return await never(payload, context)

    host = asyncio.create_task(call(manager_of(plugin(cancels))))
    with pytest.raises(asyncio.CancelledError):
        await host


async def test_the_host_s_cancellation_wins_over_a_deadline_that_passes_meanwhile() -> None:
    running, release = asyncio.Event(), asyncio.Event()

    async def slow_to_end(payload: Any, context: Any) -> PluginResult[Any]:
        running.set()
        try:
            return await never(payload, context)
        except asyncio.CancelledError:
            release.set()
            await asyncio.Event().wait()
            raise

    host = asyncio.create_task(call(manager_of(plugin(slow_to_end, on_error="ignore", timeout_s=SHORT_S))))
    await running.wait()
    host.cancel()
    await release.wait()
    with pytest.raises(asyncio.CancelledError):
        await host
    assert host.cancelled()


@pytest.mark.parametrize("mode", WAITED_FOR)
async def test_a_timeout_error_of_the_plugin_s_own_is_its_error(mode: str) -> None:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        async with asyncio.timeout(SHORT_S):
            await asyncio.Event().wait()
        raise AssertionError("the event is never set")

    with pytest.raises(PluginError) as caught:
        await call(manager_of(plugin(handler, mode="sequential" if mode == "audit" else mode)))
    assert caught.value.error.message == "TimeoutError()"
    assert caught.value.error.code == ""
    assert isinstance(caught.value.__cause__, TimeoutError)


async def test_without_any_limit_no_timer_is_armed(monkeypatch: pytest.MonkeyPatch) -> None:
    # Whatever armed a timer would fail.
    monkeypatch.setattr(asyncio.get_running_loop(), "call_later", None)

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        await take_turns(2)
        return PluginResult()

    result, _ = await call(manager_of(plugin(handler), timeout=None))
    assert record_of(result.executions).status == "completed"


async def test_what_ends_without_waiting_arms_no_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    # As above.
    monkeypatch.delattr(stepping, "Deadline")
    result, _ = await call(manager_of(plugin(allow), timeout=SHORT_S))
    assert record_of(result.executions).status == "completed"


async def test_a_handler_may_wait_for_a_thread() -> None:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(metadata={"thread": await asyncio.to_thread(threading.get_ident)})

    result, _ = await call(manager_of(plugin(handler)))
    assert result.metadata is not None
    assert result.metadata["thread"] != threading.get_ident()


def test_a_call_works_in_a_loop_of_its_own() -> None:
    result, _ = asyncio.run(call(manager_of(plugin(allow))))
    assert result.continue_processing


async def test_a_call_that_is_closed_from_outside_closes_its_plugin_and_its_spans() -> None:
    ended = []

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        try:
            return await never(payload, context)
        finally:
            ended.append(True)

    spans = SpanLog()
    current_trace_id.set("t")
    manager = manager_of(plugin(handler), observability=spans)
    coroutine = manager.invoke_hook("tool_pre_invoke", tool_payload(), GlobalContext(request_id="r"))
    coroutine.send(None)
    coroutine.close()
    assert ended == [True]
    assert spans.open() == []


class OfItsOwn:
    """Something to await that yields an answer to the event loop, as only a handler gone wrong would."""

    def __await__(self) -> Any:
        yield PluginResult()
        return PluginResult()


async def test_an_answer_that_is_yielded_instead_of_returned_does_not_count() -> None:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        await OfItsOwn()
        raise AssertionError("must not be resumed with somebody else's turn")

    manager = manager_of(plugin(handler, "a", on_error="ignore"), plugin(allow, "b"))
    result, _ = await call(manager)
    # What the loop makes of it is the handler's error; the next plugin has its own turn.
    assert [str(record.status) for record in result.executions] == ["error", "completed"]


async def test_calls_inside_of_calls_and_beside_each_other_keep_their_answers_apart() -> None:
    inner = manager_of(plugin(allow, "inner"))

    async def nests(payload: Any, context: Any) -> PluginResult[Any]:
        await call(inner)
        name = context.global_context.request_id
        if name != "0":
            await take_turns(int(name) % 3)
        await call(inner)
        return PluginResult(metadata={"name": name})

    manager = manager_of(plugin(nests, "outer"), plugin(nests, "again"))
    results = await asyncio.gather(*(call(manager, None, GlobalContext(request_id=str(n))) for n in range(9)))
    assert [result.metadata["name"] for result, _ in results] == [str(n) for n in range(9)]
