"""The store port: the few atomic operations that limits, budgets and locks are made of.

A store keeps numbers and short texts under keys. It knows nothing of users, tools or plugins, and never asks a clock:
the caller passes the time (`now_s`, seconds since the epoch), so that replays and tests decide it, and what has expired
by that time is gone. Processes that share a store should have their clocks in step; a difference lengthens or shortens
a period by that much.

Every operation is atomic and holds across all who use the same store. Operations of different kinds never meet: a
counter and a bucket may have the same key.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil
from typing import Protocol

__all__ = ["Count", "Rate", "Store", "StoreError", "Taken"]

US_PER_S = 1_000_000


class StoreError(Exception):
    """A store could not answer; whether the operation took place is not known.

    The message names the store without its credentials.
    """


@dataclass(frozen=True, slots=True)
class Count:
    """What became of an addition to a counter."""

    accepted: bool
    value: int
    """After the addition, or as it was when it was refused."""
    generation: str = ""
    """Which life of the counter it was; empty when there is no such counter."""
    expires_in_s: float | None = None
    """Seconds until the counter starts again from zero; `None` when it never will, or does not exist."""


@dataclass(frozen=True, slots=True)
class Rate:
    """The terms of a token bucket: how much it holds, and how fast it fills."""

    capacity: int
    """Tokens in a full bucket."""
    interval_us: int
    """Microseconds in which one token comes back."""

    @classmethod
    def per_minute(cls, tokens: int, capacity: int) -> Rate:
        """So many tokens a minute, never more; intervals are rounded up to whole microseconds."""
        return cls(capacity, ceil(60 * US_PER_S / tokens))


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a take from a bucket or a window."""

    accepted: bool
    remaining: int
    """What could be taken at once after this."""
    retry_after_s: float | None = 0.0
    """Seconds until the same take could succeed; 0 when it did, `None` when it never can."""
    full_after_s: float = 0.0
    """Seconds until everything could be taken again, if nobody takes anything."""


class Store(Protocol):
    """Atomic operations on shared state. All raise `StoreError` when the store cannot answer.

    Opens itself on first use, and again on use after `close`. Keys are any text; they are kept as given, so callers
    digest what should not be read there.
    """

    async def add(
        self, key: str, amount: int, *, now_s: float, limit: int | None = None, ttl_s: float | None = None
    ) -> Count:
        """Add to a counter, all of it or nothing when that would exceed `limit`.

        The first accepted addition starts the counter's life of `ttl_s` seconds; without it, the counter stays.
        """

    async def subtract(self, key: str, amount: int, *, generation: str, now_s: float) -> bool:
        """Take back an addition, to no less than zero; false when that life of the counter is over."""

    async def take(self, key: str, rate: Rate, *, now_s: float, amount: int = 1) -> Taken:
        """Take tokens from a bucket, which is full at first. A refused take changes nothing."""

    async def take_slot(self, key: str, *, limit: int, window_s: float, now_s: float) -> Taken:
        """Take one of `limit` slots that any stretch of `window_s` seconds has.

        Remembers each take, so the cost grows with `limit`; a bucket does not.
        """

    async def put_member(self, key: str, member: str, *, now_s: float, ttl_s: float | None = None) -> bool:
        """Put a member into a set for `ttl_s` seconds from now, or for good; true when it was not there.

        Sets are read and written whole: they are for hundreds of members, not for millions.
        """

    async def drop_member(self, key: str, member: str, *, now_s: float) -> bool:
        """Take a member out of a set; true when it was there."""

    async def members(self, key: str, *, now_s: float) -> frozenset[str]:
        """Who is in a set."""

    async def get(self, key: str, *, now_s: float) -> str | None:
        """The text that was last set; `None` when there is none."""

    async def compare_and_set(
        self, key: str, expected: str | None, value: str | None, *, now_s: float, ttl_s: float | None = None
    ) -> bool:
        """Set a text if it is still as expected; `None` stands for no text, before and after.

        Args:
            ttl_s: Seconds that the new text is kept; `None` means for good.
        """

    async def close(self) -> None:
        """Give back connections and threads. May be called at any time, and twice."""
