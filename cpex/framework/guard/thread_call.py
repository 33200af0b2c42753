"""One call of a thread without an event loop: work on a loop elsewhere, which may hand functions back to the thread."""

from __future__ import annotations

import asyncio
import functools
import queue
import threading
from collections.abc import Awaitable, Callable
from typing import Any

from cpex.framework.errors import GuardError
from cpex.framework.guard.operation import Operation, current_operation

__all__ = ["JOIN_S", "ThreadCall"]

JOIN_S = 10.0
"""Seconds to wait for the thread to end after everything on it has been cancelled, and for cancelled work to."""


class ThreadCall:
    """One call of a thread: work on the loop, which may hand functions back to the thread."""

    def __init__(self, loop: asyncio.AbstractEventLoop, begin: Callable[[ThreadCall], Awaitable[Any]]) -> None:
        self._loop = loop
        self._begin = begin
        self._todo: queue.SimpleQueue[Callable[[], Any] | asyncio.Task[Any]] = queue.SimpleQueue()
        self._task: asyncio.Task[Any] | None = None
        self._ended = threading.Event()

    def start(self) -> None:
        """Begin the work on the loop.

        Raises:
            RuntimeError: The loop is closed.
        """
        self._loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        if self._ended.is_set():
            return

        async def work() -> Any:
            return await self._begin(self)

        self._task = self._loop.create_task(work())
        self._task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[Any]) -> None:
        self._ended.set()
        self._todo.put(task)

    def wait(self) -> Any:
        """Wait for the work, doing what it hands over.

        Raises:
            GuardError: The guard was closed meanwhile.
            BaseException: Whatever the work raises; `SystemExit` and `KeyboardInterrupt` of what it handed over.
        """
        while not isinstance(todo := self._todo.get(), asyncio.Task):
            todo()
        if todo.cancelled():
            raise GuardError("the guard was closed while a call was under way")
        return todo.result()

    def give_up(self) -> None:
        """Cancel the work and wait until it has ended; does nothing when it has."""
        # Not by what the queue holds: an interrupt may come with the end of the work in hand.
        if not self._ended.is_set() and self._tell(self._cancel):
            self._ended.wait(JOIN_S)

    def _tell(self, callback: Callable[..., Any], *args: Any) -> bool:
        try:
            self._loop.call_soon_threadsafe(callback, *args)
        except RuntimeError:
            # A closed loop has cancelled the work already.
            return False
        return True

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()
        else:
            # It had not begun, and will not.
            self._ended.set()

    def here(self, function: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
        """A coroutine function that has `function` called in the waiting thread; a coroutine is awaited on the loop."""

        async def call(*args: Any, **kwargs: Any) -> Any:
            outcome: asyncio.Future[tuple[Any, BaseException | None]] = self._loop.create_future()
            operation = current_operation.get()

            def settle(result: Any, error: BaseException | None) -> None:
                if not outcome.done():
                    outcome.set_result((result, error))

            def run() -> None:
                result, error = _outcome(operation, functools.partial(function, *args, **kwargs))
                self._tell(settle, result, error)

            self._todo.put(run)
            result, error = await outcome
            if error is not None:
                raise error
            return await result if isinstance(result, Awaitable) else result

        return call


def _outcome(operation: Operation | None, work: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    token = current_operation.set(operation)
    try:
        return work(), None
    # Whatever an operation raises is its caller's; what ends the thread goes its way at once.
    except Exception as error:
        return None, error
    finally:
        current_operation.reset(token)
