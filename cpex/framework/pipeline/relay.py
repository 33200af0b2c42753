"""Running handlers side by side in no more tasks than they need.

A relay is a task that takes turns one after another. A turn that ends without waiting costs no task. The first turn
that waits keeps the task it began in, to its end, so that timers, cancel scopes and `current_task()` inside it see one
task; the turns after it go on in a new task at once.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

Spawn = Callable[[Callable[[], Coroutine[Any, Any, None]]], asyncio.Task[Any] | None]
"""Starts a task, or returns `None` when there must not be another one."""


async def relay(turns: Iterator[T], take: Callable[[T], Coroutine[Any, Any, None]], spawn: Spawn) -> None:
    """Take turns until none is left; returns when this task's own turns have ended.

    Args:
        turns: Shared by all tasks of the relay; whoever takes a turn takes it from here. An iterator that ends early
            leaves the rest untaken.
        take: One turn. What it raises ends this task, and leaves the remaining turns to nobody.
        spawn: Asked for a task when a turn waits. Without one, the remaining turns follow when it has ended.
    """
    for turn in turns:
        coroutine = take(turn)
        try:
            waiting = coroutine.send(None)
        except StopIteration:
            continue
        successor = spawn(lambda: relay(turns, take, spawn))
        await resume(coroutine, waiting)
        if successor is not None:
            return


@types.coroutine
def resume(coroutine: Coroutine[Any, Any, Any], waiting: Any) -> Generator[Any, Any, Any]:
    """Drive a coroutine that has suspended to its end, as `await` would have from the start."""
    try:
        while True:
            try:
                sent = yield waiting
            except GeneratorExit:
                coroutine.close()
                raise
            except BaseException as error:
                waiting = coroutine.throw(error)
            else:
                waiting = coroutine.send(sent)
    except StopIteration as stop:
        return stop.value
