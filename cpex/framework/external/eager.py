"""Coroutines that begin at once, and become tasks only when they wait for something.

Most handlers never wait. Making a task for each, and letting the event loop come round to it, costs more than running
it. So its first step is taken here and now; if it ends there, that was all. If it waits, a task carries it on. That
task is there from the start: what a handler finds as `asyncio.current_task()` in its first step is what it finds later,
so `asyncio.timeout`, task groups and cancel scopes work in it as anywhere. A task that was not needed is kept for the
next.

`asyncio.Task(eager_start=True)` of Python 3.12 does the same, with a task for each.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Coroutine, Generator
from contextvars import copy_context
from typing import Any

__all__ = ["EagerTasks"]


class EagerTasks:
    """Begins coroutines, on one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._spare = _Carrier(self._loop)

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Run a coroutine up to where it first waits. Call it from a callback of the event loop, not from a task.

        Returns:
            The task that carries it on, or begins it where one has to be made first; `None` when it has ended.

        Raises:
            BaseException: What the coroutine raised in its first step.
        """
        carrier = self._spare
        if not carrier.parked:
            return self._loop.create_task(coroutine)
        try:
            if carrier.begin(coroutine):
                return None
            self._spare = _Carrier(self._loop)
            return carrier.task
        finally:
            if carrier is self._spare and carrier.task.cancelling():
                # By the handler, in its first and only step. It must not meet the next one.
                self._spare = _Carrier(self._loop)

    async def close(self) -> None:
        """End the task that is kept. Those that carry something on are for whoever began it."""
        self._spare.task.cancel()
        await asyncio.wait([self._spare.task])


class _Carrier:
    """A task that has nothing to do until a coroutine that was begun in its name waits."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._context = copy_context()
        self._called: asyncio.Future[None] = loop.create_future()
        self._coroutine: Coroutine[Any, Any, None] | None = None
        self._waiting: Any = None
        self.parked = False
        """Whether a coroutine may begin: a task that is cancelled before its own first step would never come to it."""
        self.task: asyncio.Task[None] = loop.create_task(self._carry(), context=self._context)

    def begin(self, coroutine: Coroutine[Any, Any, None]) -> bool:
        """Take the first step; whether it was the only one."""
        # Python's own calls for those who run tasks: https://docs.python.org/3/library/asyncio-extending.html
        asyncio.tasks._enter_task(self._loop, self.task)
        try:
            self._waiting = self._context.run(coroutine.send, None)
        except StopIteration:
            return True
        finally:
            asyncio.tasks._leave_task(self._loop, self.task)
        self._coroutine = coroutine
        self.parked = False
        if not self._called.done():
            self._called.set_result(None)
        return False

    async def _carry(self) -> None:
        cancellation = None
        self.parked = True
        try:
            await self._called
        except asyncio.CancelledError as error:
            if self._coroutine is None:
                raise
            # It was meant for the coroutine; what that waits for is cancelled, as with a task of its own.
            cancellation = None if self._waiting is not None and self._waiting.cancel() else error
        finally:
            self.parked = False
        assert self._coroutine is not None
        await _carried_on(self._coroutine, self._waiting, cancellation)


@types.coroutine
def _carried_on(
    coroutine: Coroutine[Any, Any, None], waiting: Any, error: BaseException | None
) -> Generator[Any, Any, None]:
    """Drive a coroutine that waits, or is told of an error first, to its end."""
    sent = None
    try:
        while True:
            if error is None:
                try:
                    sent = yield waiting
                except GeneratorExit:
                    coroutine.close()
                    raise
                # Whatever it is, it is the coroutine's to hear of.
                except BaseException as thrown:
                    error = thrown
            told, error = error, None
            waiting = coroutine.send(sent) if told is None else coroutine.throw(told)
    except StopIteration:
        return
