"""Coroutines that begin at once, and become tasks only when they wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
import pytest_asyncio

from cpex.framework.external.eager import EagerTasks


class Starter:
    """Begins coroutines from a callback of the event loop, as a transport does."""

    def __init__(self, tasks: EagerTasks) -> None:
        self._tasks = tasks

    async def begin(self, *coroutines: Coroutine[Any, Any, None]) -> list[asyncio.Task[None] | None]:
        """What became of each; all are begun in one callback."""
        loop = asyncio.get_running_loop()
        done: asyncio.Future[list[asyncio.Task[None] | None]] = loop.create_future()

        def call() -> None:
            try:
                done.set_result([self._tasks.begin(each) for each in coroutines])
            except BaseException as error:
                done.set_exception(error)

        loop.call_soon(call)
        return await asyncio.wait_for(done, 60)


@pytest_asyncio.fixture
async def starter() -> AsyncIterator[Starter]:
    """Ends what it keeps."""
    tasks = EagerTasks()
    # The task that is kept comes to where it can be used.
    await asyncio.sleep(0)
    yield Starter(tasks)
    await tasks.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_coroutine_that_does_not_wait_needs_no_task(starter: Starter) -> None:
    seen: list[asyncio.Task[Any] | None] = []

    async def handler() -> None:
        seen.append(asyncio.current_task())

    assert await starter.begin(handler(), handler(), handler()) == [None, None, None]
    assert len(set(seen)) == 1
    assert seen[0] is not None


async def test_one_that_waits_is_in_the_same_task_before_and_after(starter: Starter) -> None:
    seen: list[asyncio.Task[Any] | None] = []
    event = asyncio.Event()

    async def handler() -> None:
        seen.append(asyncio.current_task())
        async with asyncio.timeout(60):
            await event.wait()
        await asyncio.sleep(0)
        async with asyncio.TaskGroup() as group:
            group.create_task(asyncio.sleep(0))
        seen.append(asyncio.current_task())

    (task,) = await starter.begin(handler())
    assert task is not None
    event.set()
    await asyncio.wait_for(task, 60)
    assert seen == [task, task]


async def test_a_timeout_that_was_armed_in_the_first_step_runs_out(starter: Starter) -> None:
    outcome: list[str] = []

    async def handler() -> None:
        try:
            async with asyncio.timeout(0.001):
                await asyncio.Event().wait()
        except TimeoutError:
            outcome.append("timeout")

    (task,) = await starter.begin(handler())
    assert task is not None
    await asyncio.wait_for(task, 60)
    assert outcome == ["timeout"]


async def test_many_that_wait_at_once_run_side_by_side(starter: Starter) -> None:
    barrier = asyncio.Barrier(20)

    async def handler() -> None:
        await barrier.wait()

    tasks = [task for task in await starter.begin(*(handler() for _ in range(20))) if task is not None]
    assert len(tasks) == 20
    await asyncio.wait_for(asyncio.gather(*tasks), 60)


@pytest.mark.parametrize("moment", ["at once", "later"])
async def test_a_cancelled_one_cleans_up_and_what_it_waits_for_is_cancelled(starter: Starter, moment: str) -> None:
    waited: list[asyncio.Future[None]] = []
    cleaned: list[str] = []

    async def handler() -> None:
        waited.append(asyncio.get_running_loop().create_future())
        try:
            await waited[0]
        finally:
            await asyncio.sleep(0)
            cleaned.append("yes")

    loop = asyncio.get_running_loop()
    if moment == "at once":
        # Before the task that carries it on has come round.
        coroutine = handler()
        holder: list[asyncio.Task[None]] = []

        def call() -> None:
            task = starter._tasks.begin(coroutine)
            assert task is not None
            task.cancel()
            holder.append(task)

        loop.call_soon(call)
        await asyncio.sleep(0)
        task = holder[0]
    else:
        (begun,) = await starter.begin(handler())
        assert begun is not None
        await asyncio.sleep(0)
        begun.cancel()
        task = begun
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 60)
    assert cleaned == ["yes"]
    assert waited[0].cancelled()


async def test_a_bare_yield_that_is_cancelled_is_told(starter: Starter) -> None:
    told: list[str] = []

    async def handler() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            told.append("cancelled")

    (task,) = await starter.begin(handler())
    assert task is not None
    await asyncio.wait_for(task, 60)
    assert told == ["cancelled"]


async def test_one_that_cancels_itself_and_ends_does_not_cancel_the_next(starter: Starter) -> None:
    async def cancels_itself() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()

    event = asyncio.Event()

    async def waits() -> None:
        await event.wait()

    first, second = await starter.begin(cancels_itself(), waits())
    assert first is None
    assert second is not None
    event.set()
    await asyncio.wait_for(second, 60)


async def test_what_the_first_step_raises_is_raised_and_the_next_begins(starter: Starter) -> None:
    async def fails() -> None:
        raise KeyError("broken")

    async def ends() -> None:
        pass

    with pytest.raises(KeyError, match="broken"):
        await starter.begin(fails())
    assert await starter.begin(ends()) == [None]


async def test_an_error_after_waiting_is_the_tasks(starter: Starter) -> None:
    async def fails() -> None:
        await asyncio.sleep(0)
        raise KeyError("broken")

    (task,) = await starter.begin(fails())
    assert task is not None
    with pytest.raises(KeyError, match="broken"):
        await asyncio.wait_for(task, 60)
