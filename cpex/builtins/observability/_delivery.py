"""Carries records to a backend that may be slow or dead, at no cost to whoever hands them over.

Records wait in memory, bounded in number and bytes; a task takes them in batches, tries again with growing pauses, and
gives up in the end. What does not fit or cannot be delivered is dropped and counted, and the operator is told once per
outage. At the end everything is sent that can be sent within a given time. A forked child begins with nothing: what
waited is its parent's to deliver, and to count.

How a batch gets to its backend is a function of the sink's.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import NamedTuple
from weakref import WeakSet

from pydantic import Field

from cpex.builtins.observability._events import EventSettings, Kind
from cpex.builtins.observability._inherited import begin_anew_in_children, keep

__all__ = ["Delivery", "SinkCount", "SinkSettings", "Undeliverable", "Unreachable", "sink_counts", "sink_queues"]

JITTER = 0.5
"""Part of a pause that is left to chance, so that workers do not return to a backend all at once."""


TELL_AFTER = 3
"""Attempts in a row that fail before the operator is told; one is no news."""


class SinkSettings(EventSettings):
    """What every sink can be told."""

    records: frozenset[Kind] = frozenset({"decision"})
    batch_max: int = Field(default=100, ge=1, le=10_000)
    """Records in one delivery."""
    batch_interval_s: float = Field(default=1.0, ge=0)
    """Seconds that a record waits for others to go with it."""
    queue_max: int = Field(default=10_000, ge=1)
    """Records that may wait, those on their way included; beyond it the newest is dropped."""
    queue_max_bytes: int = Field(default=16_777_216, ge=1)
    """The same in bytes."""
    attempts: int = Field(default=8, ge=1)
    """How often one batch is tried before it is dropped."""
    retry_delay_s: float = Field(default=0.5, gt=0)
    """Seconds before the second attempt; doubled before each later one."""
    retry_max_s: float = Field(default=30.0, gt=0)
    """Longest pause between two attempts, also when the backend asks for a longer one."""
    drain_s: float = Field(default=3.0, ge=0)
    """Seconds that `shutdown` gives to what still waits."""


class Unreachable(Exception):
    """A batch was not taken, and may be at another time; the text says why."""

    def __init__(self, why: str, *, after_s: float | None = None) -> None:
        super().__init__(why)
        self.after_s = after_s
        """Seconds after which the backend wants to be tried again, if it said so."""


class Undeliverable(Exception):
    """A batch will never be taken; the text says why."""


class SinkCount(NamedTuple):
    """What became of records that were handed to a sink."""

    plugin: str
    outcome: str
    """`delivered` or `dropped`."""


@dataclass(eq=False, slots=True, weakref_slot=True)
class _Queue:
    """Records that wait, or are on their way."""

    plugin: str
    waiting: deque[bytes]
    count: int = 0
    size: int = 0
    """In bytes."""


_lock = threading.Lock()
_counts: dict[SinkCount, int] = {}
_queues: WeakSet[_Queue] = WeakSet()


def sink_counts() -> dict[SinkCount, int]:
    """What became of the records of all sinks of this process so far: a copy. Safe in any thread."""
    with _lock:
        return dict(_counts)


def sink_queues() -> dict[str, int]:
    """How many records wait, by plugin. Safe in any thread."""
    with _lock:
        queues = list(_queues)
    found: dict[str, int] = {}
    for queue in queues:
        found[queue.plugin] = found.get(queue.plugin, 0) + queue.count
    return found


class Delivery:
    """The way of one sink's records to its backend. All but the counts belongs to one event loop at a time."""

    def __init__(
        self,
        plugin: str,
        settings: SinkSettings,
        send: Callable[[list[bytes]], Awaitable[None]],
        logger: logging.Logger,
    ) -> None:
        """Prepare; the task begins with the first record.

        Args:
            send: Delivers a batch, or raises `Unreachable` or `Undeliverable`. May be cancelled.
        """
        self._plugin = plugin
        self._settings = settings
        self._send = send
        self._logger = logger
        self._queue = _Queue(plugin, deque())
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Event()
        self._stopping = asyncio.Event()
        self._is_open = False
        self._told = False
        self._away = False
        self.delivered = 0
        """Records that the backend has taken."""
        self.dropped = 0
        """Records that it has not, and will not."""
        with _lock:
            _queues.add(self._queue)
        begin_anew_in_children(self)

    def begin_anew(self) -> None:
        """In a forked child: leave what waits, and the task that delivers it, to the parent."""
        if self._task is not None:
            keep(self._task)
            self._task = None
        _queues.discard(self._queue)
        self._queue = _Queue(self._plugin, deque())
        _queues.add(self._queue)
        self._told = self._away = False
        self.delivered = self.dropped = 0

    def start(self) -> None:
        """Take records from now on. Does nothing when it does."""
        self._is_open = True

    def put(self, record: bytes) -> bool:
        """Hand a record over, without waiting for anything.

        Returns:
            False when there was no room, or the sink is not open, and the record was dropped.
        """
        queue, settings = self._queue, self._settings
        if not self._is_open:
            self._drop(1, "the sink is not open; initialize the plugin first")
            return False
        if queue.count >= settings.queue_max or queue.size + len(record) > settings.queue_max_bytes:
            self._drop(1, "the queue is full")
            return False
        queue.waiting.append(record)
        queue.count += 1
        queue.size += len(record)
        self._run_here()
        # The task sleeps until there is a first record, and again until there are enough.
        if len(queue.waiting) == 1 or len(queue.waiting) >= settings.batch_max:
            self._news.set()
        return True

    def _run_here(self) -> None:
        loop = asyncio.get_running_loop()
        if self._task is None or self._task.done() or self._task.get_loop() is not loop:
            # Events belong to the loop that they were first waited for in.
            self._news, self._stopping = asyncio.Event(), asyncio.Event()
            self._news.set()
            self._task = loop.create_task(self._run(self._queue), name=f"cpex:sink:{self._plugin}")

    async def stop(self) -> None:
        """Deliver what waits, for `drain_s` seconds at most, and drop the rest. Does nothing when nothing was put.

        Raises:
            asyncio.CancelledError: There were fewer seconds; the rest was dropped and told all the same.
        """
        was_open, self._is_open = self._is_open, False
        why = f"the sink was shut down, and they were not delivered within {self._settings.drain_s:g} s"
        try:
            await self._drain()
        except asyncio.CancelledError:
            why = f"the shutdown of the sink was cut off before its `drain_s` of {self._settings.drain_s:g} s were over"
            raise
        finally:
            self._tell_end(why, was_open)

    async def _drain(self) -> None:
        task, self._task = self._task, None
        if task is None or task.get_loop() is not asyncio.get_running_loop():
            return
        self._stopping.set()
        self._news.set()
        try:
            await asyncio.wait({task}, timeout=self._settings.drain_s)
        finally:
            task.cancel()
            await asyncio.wait({task})

    def _tell_end(self, why: str, was_open: bool) -> None:
        if left := self._queue.count:
            self._queue.waiting.clear()
            self._queue.count = self._queue.size = 0
            self._drop(left, why)
        if self.dropped and was_open:
            self._logger.warning(
                "Plugin '%s': %d records were dropped in all, %d delivered", self._plugin, self.dropped, self.delivered
            )

    async def _run(self, queue: _Queue) -> None:
        waiting = queue.waiting
        while True:
            await self._batch_is_due(waiting)
            # Nothing waits only when it is to stop; the queue is another one when a forked child goes on with the
            # loop of its parent, and so with this task.
            if not waiting or queue is not self._queue:
                return
            batch = [waiting.popleft() for _ in range(min(len(waiting), self._settings.batch_max))]
            await self._deliver(batch)
            queue.count -= len(batch)
            queue.size -= sum(map(len, batch))

    async def _batch_is_due(self, waiting: deque[bytes]) -> None:
        """Wait for a first record, then for a full batch, but not longer than a record may wait."""
        stopping = self._stopping
        while not waiting and not stopping.is_set():
            self._news.clear()
            await self._news.wait()
        if len(waiting) >= self._settings.batch_max or stopping.is_set():
            return
        self._news.clear()
        try:
            await asyncio.wait_for(self._news.wait(), self._settings.batch_interval_s)
        except TimeoutError:
            pass

    async def _deliver(self, batch: list[bytes]) -> None:
        """Send a batch until it is taken, refused for good, or tried often enough."""
        for attempt in range(1, self._settings.attempts + 1):
            try:
                await self._send(batch)
            except Unreachable as error:
                if attempt == self._settings.attempts:
                    self._drop(len(batch), f"{error}, after {attempt} attempts")
                    return
                self._tell_away(attempt, error)
                await self._pause(attempt, error.after_s)
            except Undeliverable as error:
                self._drop(len(batch), str(error))
                return
            # A sink's own fault must not end the task, or every later record would wait for ever.
            except Exception as error:
                self._drop(len(batch), f"{type(error).__name__}: {error}")
                return
            else:
                self._took(len(batch))
                return

    async def _pause(self, attempt: int, asked_s: float | None) -> None:
        settings = self._settings
        pause = min(settings.retry_delay_s * 2 ** (attempt - 1), settings.retry_max_s)
        # Nothing secret depends on this number.
        pause *= 1 - JITTER * random.random()
        if asked_s is not None:
            pause = min(max(pause, asked_s), settings.retry_max_s)
        if self._stopping.is_set():
            await asyncio.sleep(pause)
            return
        try:
            # The end of the process is a reason to try once more at once.
            await asyncio.wait_for(self._stopping.wait(), pause)
        except TimeoutError:
            pass

    def _tell_away(self, attempt: int, error: Unreachable) -> None:
        """Say once per outage that a backend does not answer, before anything need be dropped for it."""
        if attempt == TELL_AFTER and not (self._away or self._told):
            self._away = True
            self._logger.warning(
                "Plugin '%s': records wait: %s, %d times in a row; trying on", self._plugin, error, attempt
            )

    def _took(self, count: int) -> None:
        self.delivered += count
        _count(SinkCount(self._plugin, "delivered"), count)
        if self._told or self._away:
            self._told = self._away = False
            self._logger.warning(
                "Plugin '%s': records are delivered again; %d have been dropped so far", self._plugin, self.dropped
            )

    def _drop(self, count: int, why: str) -> None:
        self.dropped += count
        _count(SinkCount(self._plugin, "dropped"), count)
        if not self._told:
            self._told = True
            self._logger.warning(
                "Plugin '%s': records are being dropped: %s; later ones are counted and not logged until records are "
                "delivered again",
                self._plugin,
                why,
            )


def _count(what: SinkCount, count: int) -> None:
    with _lock:
        _counts[what] = _counts.get(what, 0) + count


def _after_in_child() -> None:
    _lock.release()
    _counts.clear()


# Where processes cannot fork, there is nothing to do. Held meanwhile, so that no thread has the lock that is not there.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_after_in_child)
