"""What the operations of a store do to one entry, for stores that can read, decide and write without being disturbed.

The rules are plain functions from what is there to what shall be there; `EntryStore` makes a store of them and leaves
to its subclasses where entries live. Times are whole microseconds: every store reckons alike, to the last digit.
"""

from __future__ import annotations

import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cpex.builtins.store.port import US_PER_S, Count, Rate, Taken

__all__ = ["Entry", "EntryStore", "Step", "microseconds", "new_generation", "refused_for", "seconds_left"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a store keeps under a key."""

    value: Any
    """JSON: a list, a dict, a number or a text."""
    expires_us: int | None = None
    """Microseconds since the epoch; `None` means that it stays."""


@dataclass(frozen=True, slots=True)
class Step(Generic[T]):
    """What an operation answers, and what it leaves behind."""

    answer: T
    changed: bool = False
    entry: Entry | None = None
    """The new entry, if something changed; `None` removes it."""


class EntryStore(ABC):
    """A store made of entries. Subclasses keep them."""

    @abstractmethod
    async def _read(self, key: str, now_us: int) -> Entry | None:
        """The entry that is there and has not expired."""

    @abstractmethod
    async def _step(self, key: str, decide: Callable[[Entry | None], Step[T]], now_us: int) -> T:
        """Read an entry, decide, write and answer, with nobody in between."""

    @abstractmethod
    async def close(self) -> None:
        """Give back what the store holds."""

    async def add(
        self, key: str, amount: int, *, now_s: float, limit: int | None = None, ttl_s: float | None = None
    ) -> Count:
        """See `Store.add`."""
        now_us = microseconds(now_s)
        return await self._step(f"c:{key}", lambda entry: _add(entry, amount, limit, ttl_s, now_us), now_us)

    async def subtract(self, key: str, amount: int, *, generation: str, now_s: float) -> bool:
        """See `Store.subtract`."""
        return await self._step(f"c:{key}", lambda entry: _subtract(entry, amount, generation), microseconds(now_s))

    async def take(self, key: str, rate: Rate, *, now_s: float, amount: int = 1) -> Taken:
        """See `Store.take`."""
        now_us = microseconds(now_s)
        return await self._step(f"b:{key}", lambda entry: _take(entry, rate, amount, now_us), now_us)

    async def take_slot(self, key: str, *, limit: int, window_s: float, now_s: float) -> Taken:
        """See `Store.take_slot`."""
        now_us, window_us = microseconds(now_s), microseconds(window_s)
        return await self._step(f"w:{key}", lambda entry: _take_slot(entry, limit, window_us, now_us), now_us)

    async def put_member(self, key: str, member: str, *, now_s: float, ttl_s: float | None = None) -> bool:
        """See `Store.put_member`."""
        now_us = microseconds(now_s)
        return await self._step(f"s:{key}", lambda entry: _put(entry, member, _end(now_us, ttl_s), now_us), now_us)

    async def drop_member(self, key: str, member: str, *, now_s: float) -> bool:
        """See `Store.drop_member`."""
        now_us = microseconds(now_s)
        return await self._step(f"s:{key}", lambda entry: _drop(entry, member, now_us), now_us)

    async def members(self, key: str, *, now_s: float) -> frozenset[str]:
        """See `Store.members`."""
        now_us = microseconds(now_s)
        return frozenset(_alive(await self._read(f"s:{key}", now_us), now_us))

    async def get(self, key: str, *, now_s: float) -> str | None:
        """See `Store.get`."""
        entry = await self._read(f"v:{key}", microseconds(now_s))
        return None if entry is None else str(entry.value)

    async def compare_and_set(
        self, key: str, expected: str | None, value: str | None, *, now_s: float, ttl_s: float | None = None
    ) -> bool:
        """See `Store.compare_and_set`."""
        now_us = microseconds(now_s)
        new = None if value is None else Entry(value, _end(now_us, ttl_s))
        return await self._step(f"v:{key}", lambda entry: _replace(entry, expected, new), now_us)


def microseconds(seconds: float) -> int:
    """Whole microseconds."""
    return round(seconds * US_PER_S)


def new_generation() -> str:
    """A name for one life of a counter that no other has, in any process."""
    return secrets.token_hex(8)


def seconds_left(expires_us: int | None, now_us: int) -> float | None:
    """Seconds until then; `None` stays `None`."""
    return None if expires_us is None else (expires_us - now_us) / US_PER_S


def refused_for(over_us: int, cost_us: int, capacity_us: int) -> float | None:
    """Seconds until a bucket that lacks so much can give it; `None` when it cannot hold that much."""
    return None if cost_us > capacity_us else over_us / US_PER_S


def _end(now_us: int, ttl_s: float | None) -> int | None:
    return None if ttl_s is None else now_us + microseconds(ttl_s)


def _add(entry: Entry | None, amount: int, limit: int | None, ttl_s: float | None, now_us: int) -> Step[Count]:
    value, generation = entry.value if entry else (0, "")
    expires_us = entry.expires_us if entry else None
    if limit is not None and value + amount > limit:
        return Step(Count(False, value, generation, seconds_left(expires_us, now_us)))
    if entry is None:
        generation, expires_us = new_generation(), _end(now_us, ttl_s)
    count = Count(True, value + amount, generation, seconds_left(expires_us, now_us))
    return Step(count, changed=True, entry=Entry([count.value, generation], expires_us))


def _subtract(entry: Entry | None, amount: int, generation: str) -> Step[bool]:
    if entry is None or entry.value[1] != generation:
        return Step(False)
    left = max(0, entry.value[0] - amount)
    return Step(True, changed=True, entry=Entry([left, generation], entry.expires_us))


def _take(entry: Entry | None, rate: Rate, amount: int, now_us: int) -> Step[Taken]:
    # The entry holds when the bucket will be full again; one number is both its level and its age.
    full_us = max(entry.value if entry else 0, now_us)
    cost_us, capacity_us = amount * rate.interval_us, rate.capacity * rate.interval_us
    over_us = full_us + cost_us - now_us - capacity_us
    accepted = over_us <= 0
    if accepted:
        full_us += cost_us
    taken = Taken(
        accepted,
        remaining=max(0, (capacity_us - (full_us - now_us)) // rate.interval_us),
        retry_after_s=0.0 if accepted else refused_for(over_us, cost_us, capacity_us),
        full_after_s=(full_us - now_us) / US_PER_S,
    )
    return Step(taken, changed=accepted, entry=Entry(full_us, full_us))


def _take_slot(entry: Entry | None, limit: int, window_us: int, now_us: int) -> Step[Taken]:
    times = [moment for moment in (entry.value if entry else []) if moment > now_us - window_us]
    if len(times) >= limit:
        wait_us = times[len(times) - limit] + window_us - now_us if limit > 0 else None
        full_after_s = (times[-1] + window_us - now_us) / US_PER_S if times else 0.0
        return Step(Taken(False, 0, None if wait_us is None else wait_us / US_PER_S, full_after_s))
    times = sorted([*times, now_us])
    expires_us = times[-1] + window_us
    taken = Taken(True, limit - len(times), full_after_s=(expires_us - now_us) / US_PER_S)
    return Step(taken, changed=True, entry=Entry(times, expires_us))


def _alive(entry: Entry | None, now_us: int) -> dict[str, int | None]:
    every: dict[str, int | None] = entry.value if entry else {}
    return {member: end for member, end in every.items() if end is None or end > now_us}


def _put(entry: Entry | None, member: str, end_us: int | None, now_us: int) -> Step[bool]:
    present = _alive(entry, now_us)
    return Step(member not in present, changed=True, entry=_set_entry({**present, member: end_us}))


def _drop(entry: Entry | None, member: str, now_us: int) -> Step[bool]:
    present = _alive(entry, now_us)
    if member not in present:
        return Step(False)
    del present[member]
    return Step(True, changed=True, entry=_set_entry(present))


def _set_entry(members: dict[str, int | None]) -> Entry | None:
    if not members:
        return None
    ends = [end for end in members.values() if end is not None]
    return Entry(members, max(ends) if len(ends) == len(members) else None)


def _replace(entry: Entry | None, expected: str | None, new: Entry | None) -> Step[bool]:
    if (None if entry is None else entry.value) != expected:
        return Step(False)
    return Step(True, changed=True, entry=new)
