"""Tasks that outlive the hook call that started them: owned, counted, bounded and drained."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from cpex.framework import clock

logger = logging.getLogger(__name__)

WARN_EVERY_S = 60.0


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

    def _refuse(self, what: str) -> None:
        self.refused += 1
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
        mine = {task for task in self._tasks if task.get_loop() is loop}
        mine.discard(asyncio.current_task())
        if not mine:
            return 0
        _, late = await asyncio.wait(mine, timeout=self.drain_timeout_s)
        for task in late:
            task.cancel()
        if late:
            logger.warning(
                "%d background tasks did not end within %g s and were cancelled", len(late), self.drain_timeout_s
            )
            await asyncio.wait(late, timeout=self.drain_timeout_s)
        return len(late)
