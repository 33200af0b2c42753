"""One task at a time, of whatever loop: order, giving up, loops that are gone, and asking from inside."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from support import other_tasks

from cpex.framework.loader.exclusive import OneAtATime


async def hold(lock: OneAtATime, name: str, log: list[str], go: asyncio.Event | None = None) -> None:
    async with lock:
        log.append(name)
        if go is not None:
            await go.wait()


async def let_others_run() -> None:
    """Until nothing is left to do but to wait."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_those_who_wait_get_it_in_order() -> None:
    lock, log, go = OneAtATime(), list[str](), asyncio.Event()
    tasks = [asyncio.create_task(hold(lock, name, log, go)) for name in "abc"]
    await let_others_run()
    go.set()
    await asyncio.gather(*tasks)
    assert log == ["a", "b", "c"]


async def test_who_is_cancelled_while_waiting_gives_the_place_up() -> None:
    lock, log, go = OneAtATime(), list[str](), asyncio.Event()
    first, second, third = (asyncio.create_task(hold(lock, name, log, go)) for name in "abc")
    await let_others_run()
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    go.set()
    await asyncio.wait_for(asyncio.gather(first, third), 60)
    assert log == ["a", "c"]
    assert other_tasks() == set()


async def test_who_is_cancelled_as_the_turn_comes_passes_it_on() -> None:
    lock, log = OneAtATime(), list[str]()
    await lock.__aenter__()
    second, third = (asyncio.create_task(hold(lock, name, log)) for name in "bc")
    await asyncio.sleep(0)
    await lock.__aexit__(None, None, None)
    # The lock is on its way to the second, which has not run since.
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    await asyncio.wait_for(third, 60)
    assert log == ["c"]


async def test_a_loop_that_was_closed_under_its_waiter_is_passed_over() -> None:
    lock, log = OneAtATime(), list[str]()
    await lock.__aenter__()

    def wait_elsewhere() -> Any:
        loop = asyncio.new_event_loop()
        waiting = hold(lock, "gone", log)
        loop.call_soon(loop.stop)
        # By hand: a loop that is closed complains of tasks that it still has.
        loop.call_soon(waiting.send, None)
        loop.run_forever()
        loop.close()
        return waiting

    gone = await asyncio.to_thread(wait_elsewhere)
    go = asyncio.Event()
    third = asyncio.create_task(hold(lock, "c", log, go))
    await asyncio.sleep(0)
    await lock.__aexit__(None, None, None)
    await let_others_run()
    gone.close()
    # The one that has it keeps it.
    fourth = asyncio.create_task(hold(lock, "d", log))
    await let_others_run()
    assert log == ["c"]
    go.set()
    await asyncio.wait_for(asyncio.gather(third, fourth), 60)
    assert log == ["c", "d"]


async def test_threads_take_turns() -> None:
    lock, inside, most = OneAtATime(), list[int](), list[int]()
    moment = threading.Event()

    async def work() -> None:
        async with lock:
            inside.append(1)
            most.append(len(inside))
            await asyncio.to_thread(moment.wait, 0.005)
            inside.pop()

    await asyncio.gather(*(asyncio.to_thread(lambda: asyncio.run(work())) for _ in range(5)))
    assert most == [1] * 5


async def test_code_inside_knows_that_it_is_inside_and_nobody_else_does() -> None:
    lock, other, go = OneAtATime(), OneAtATime(), asyncio.Event()

    async def later() -> bool:
        await go.wait()
        return lock.is_mine()

    async def now() -> bool:
        return lock.is_mine()

    assert not lock.is_mine()
    async with lock:
        assert lock.is_mine()
        assert await asyncio.create_task(now())
        async with other:
            assert lock.is_mine()
            assert other.is_mine()
        assert lock.is_mine()
        assert not other.is_mine()
        outliving = asyncio.create_task(later())
    assert not lock.is_mine()
    go.set()
    assert not await outliving
