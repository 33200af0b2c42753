"""The life of one link: opened when first needed, opened again when it was lost, left alone while its server is away.

A server that does not answer is asked a fixed number of times. After that every call fails at once, with a message
that says when the next attempt is due; so an absent server costs a gateway one round of attempts per pause, not one per
call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from cpex.framework.clock import monotonic
from cpex.framework.external.port import Link, LinkError

__all__ = ["Attempts", "Session"]

MAX_PAUSE_S = 30.0
"""Seconds between two rounds of attempts, at the most."""


@dataclass(frozen=True, slots=True)
class Attempts:
    """How often to try to connect, and how long to wait between two tries."""

    count: int
    pause_s: Callable[[int], float]
    """Seconds to wait after the n-th failed attempt, n counted from 1."""


class Session:
    """Keeps one link open, for any number of callers."""

    def __init__(self, link: Link, first: Attempts, again: Attempts, greet: Callable[[Link], Awaitable[None]]) -> None:
        """Set up; nothing is opened yet.

        Args:
            first: For the first connection of all.
            again: For every later one.
            greet: What is asked on each new connection before it is used; a `LinkError` of it fails the attempt.
        """
        self._link = link
        self._first, self._again = first, again
        self._greet = greet
        self._lock = asyncio.Lock()
        self._greeted = False
        self._was_open = False
        self._rounds_failed = 0
        self._not_before = 0.0
        self._last_error = ""

    @property
    def was_open(self) -> bool:
        """Whether there has been a connection."""
        return self._was_open

    async def ready(self) -> Link:
        """The open link.

        Raises:
            LinkError: With code `connect`: every attempt failed, or the pause after such a round is not over.
        """
        if not self.is_ready:
            async with self._lock:
                if not self.is_ready:
                    await self._connect()
        return self._link

    @property
    def link(self) -> Link | None:
        """The link, when it is ready; else `ready` makes it so."""
        return self._link if self._greeted and self._link.connected else None

    @property
    def is_ready(self) -> bool:
        """Whether there is a connection that has been greeted."""
        return self._greeted and self._link.connected

    async def _connect(self) -> None:
        left = self._not_before - monotonic()
        if left > 0:
            text = f"{self._last_error}; the next attempt is due in {left:.1f}s"
            raise LinkError(text, code="connect", sent=False)
        attempts = self._again if self._was_open else self._first
        failures = 0
        while True:
            try:
                await self._connect_once()
            except LinkError as error:
                failures += 1
                # At least once, whatever an operator wrote.
                if failures >= attempts.count:
                    raise self._given_up(error, failures) from error
                await asyncio.sleep(attempts.pause_s(failures))
            else:
                return

    async def _connect_once(self) -> None:
        self._greeted = False
        try:
            # What is left of a lost connection is released before another is made.
            await self._link.close()
            await self._link.open()
            await self._greet(self._link)
        except BaseException:
            await self._link.close()
            raise
        self._greeted = self._was_open = True
        self._rounds_failed = 0

    def _given_up(self, error: LinkError, failures: int) -> LinkError:
        self._rounds_failed += 1
        pause = min(MAX_PAUSE_S, self._again.pause_s(1) * 2.0 ** min(self._rounds_failed, 16))
        self._not_before = monotonic() + pause
        what = "Failed to reconnect" if self._was_open else "connection failed"
        self._last_error = f"{what} after {failures} {'attempt' if failures == 1 else 'attempts'}: {error}"
        return LinkError(self._last_error, code="connect", sent=False)

    async def close(self) -> None:
        """Close the link. A later `ready` opens it again."""
        self._greeted = False
        self._not_before = 0.0
        await self._link.close()
