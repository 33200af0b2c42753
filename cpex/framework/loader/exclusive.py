"""Letting one task at a time start or stop plugins, whatever thread and event loop it runs in.

An `asyncio.Lock` serves one loop only, and a manager may be shared by threads that each have their own.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextvars import ContextVar
from types import TracebackType

__all__ = ["OneAtATime"]

_turn: ContextVar[_Turn | None] = ContextVar("cpex_exclusive_turn", default=None)
"""The turn that this code runs in, or that the task which began it ran in."""


class _Turn:
    """One holder's time with the lock."""

    __slots__ = ("lock", "outer", "over")

    def __init__(self, lock: OneAtATime, outer: _Turn | None) -> None:
        self.lock = lock
        self.outer = outer
        """The turn inside of which this one began: a plugin may start a manager of its own."""
        self.over = False


class _Place:
    """One waiter's place in the queue."""

    __slots__ = ("future", "loop", "reached")

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[None] = self.loop.create_future()
        self.reached = False
        """Whether the turn is on its way to the waiter, who passes it on if it cannot be taken."""


class OneAtATime:
    """A lock for tasks of any event loops: `async with lock:`. Those that wait get it in order.

    Being cancelled while waiting gives the place up; a loop that is closed under its waiters is passed over.
    """

    def __init__(self) -> None:
        # Held for a few steps at a time, never while something is awaited.
        self._mutex = threading.Lock()
        self._current: _Turn | None = None
        self._waiting: deque[_Place] = deque()

    def is_mine(self) -> bool:
        """Whether this code runs inside of the lock: waiting for it here would be waiting for oneself."""
        turn = _turn.get()
        while turn is not None and (turn.lock is not self or turn.over):
            turn = turn.outer
        return turn is not None

    async def __aenter__(self) -> None:
        turn = _Turn(self, _turn.get())
        with self._mutex:
            if self._current is None:
                self._current = turn
                place = None
            else:
                place = _Place()
                self._waiting.append(place)
        if place is not None:
            await self._wait(place)
            self._current = turn
        _turn.set(turn)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        turn = self._current
        assert turn is not None  # whoever leaves has entered
        turn.over = True
        _turn.set(turn.outer)
        self._pass_on()

    async def _wait(self, place: _Place) -> None:
        try:
            await place.future
        # Cancelled, or closed together with its loop.
        except BaseException:
            with self._mutex:
                if not place.reached and place in self._waiting:
                    self._waiting.remove(place)
            if place.reached:
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while True:
            with self._mutex:
                if not self._waiting:
                    self._current = None
                    return
                place = self._waiting.popleft()
                try:
                    place.loop.call_soon_threadsafe(_wake, place.future)
                except RuntimeError:  # the loop was closed under it
                    continue
                place.reached = True
                return


def _wake(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
