"""Tasks that outlive the hook call that started them: owned, counted, bounded and drained."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from cpex.framework import clock
from cpex.framework.observability import count_lost_background_work

logger = logging.getLogger(__name__)

WARN_EVERY_S = 60.0


def is_interrupt(error: BaseException) -> bool:
    """Whether an exception is meant for the running task or for the process, rather than a failure of the plugin's.

    A cancellation that nobody asked the task for is a failure: awaiting what somebody else has cancelled raises one.
    """
    if isinstance(error, asyncio.CancelledError):
        task = asyncio.current_task()
        return task is None or task.cancelling() > 0
    return isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)


class Background:
    """Owns background tasks. A task that nobody holds could be collected while it runs."""

    def __init__(self, limit: int, drain_timeout_s: float) -> None:
        self.limit = limit
        self.drain_timeout_s = drain_timeout_s
        self.refused = 0
        """Tasks that were not started because the limit was reached."""
        self.skipped = 0
        """Tasks that were not run because the payload could not be redacted for them."""
        self._tasks: set[asyncio.Task[Any]] = set()
        self._warned_at: float | None = None

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, start: Callable[[], Coroutine[Any, Any, Any]], what: str) -> asyncio.Task[Any] | None:
        """Start a task, or refuse it (counted, and WARNed about once a minute) when there are too many."""
        if len(self._tasks) >= self.limit:
            self._refuse(what)
            return None
        task = asyncio.create_task(start(), name=f"cpex:{what}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def count_refused(self, turns: int) -> None:
        """Count turns that were not taken because the limit was reached."""
        self.refused += turns
        count_lost_background_work(refused=turns)

    def count_skipped(self, turns: int) -> None:
        """Count turns that were not taken because the payload could not be redacted for them."""
        self.skipped += turns
        count_lost_background_work(skipped=turns)

    def _refuse(self, what: str) -> None:
        self.count_refused(1)
        now = clock.monotonic()
        if self._warned_at is None or now - self._warned_at >= WARN_EVERY_S:
            self._warned_at = now
            logger.warning(
                "Background limit of %d tasks reached: %s was not started (%d refused so far); "
                "raise `background_limit` or speed the background plugins up",
                self.limit,
                what,
                self.refused,
            )

    async def drain(self) -> int:
        """Wait for all tasks of this event loop, at most `drain_timeout_s` seconds, then cancel the rest.

        Returns:
            How many tasks had to be cancelled.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + self.drain_timeout_s
        # Again and again: a background task may make calls, and these may start background tasks.
        while (mine := self._of(loop)) and (left := until - loop.time()) > 0:
            await asyncio.wait(mine, timeout=left)
        for task in mine:
            task.cancel()
        if mine:
            logger.warning(
                "%d background tasks did not end within %g s and were cancelled", len(mine), self.drain_timeout_s
            )
            await asyncio.wait(mine, timeout=self.drain_timeout_s)
        return len(mine)

    def _of(self, loop: asyncio.AbstractEventLoop) -> set[asyncio.Task[Any]]:
        """The tasks of one loop but the caller's; those that ended are gone before the loop gets around to say so."""
        # A copy first, which no other thread can disturb.
        mine = {task for task in self._tasks.copy() if task.get_loop() is loop and not task.done()}
        mine.discard(asyncio.current_task())
        return mine
