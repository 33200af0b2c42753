"""A circuit breaker's rules, in whatever store holds its state.

A circuit is closed, open, or half open with one trial call on its way. What it is stands as a short JSON text in the
store, changed by compare-and-set only, so that of several processes exactly one makes the trial. Failures of a closed
circuit take the slots of a sliding window, so no burst is cut in two. Time comes in as an argument.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields, replace
from typing import Literal

from cpex.builtins.store.port import Store

__all__ = ["Circuit", "Gate", "State", "Terms"]

State = Literal["closed", "open", "half_open"]
_FORGET_S = 86_400.0
"""How long a circuit that nobody uses is remembered after it could have been tried again."""


@dataclass(frozen=True, slots=True)
class Terms:
    """When a circuit opens, and for how long."""

    failures: int
    """Failures in any stretch of `window_s` seconds that open it, if they are also `rate` of the calls."""
    rate: float
    """Share of the calls in that time, 0 to 1; with 0, calls that succeed are not counted at all."""
    window_s: float
    open_s: float
    """How long it stays open the first time; after each trial that fails, twice as long."""
    max_open_s: float
    trial_s: float
    """How long a trial may be without an answer before another is made."""


@dataclass(frozen=True, slots=True)
class _Record:
    """What the store keeps."""

    state: State = "closed"
    until_s: float = 0.0
    """When an open circuit may be tried, or a trial is given up; seconds since the epoch."""
    open_s: float = 0.0
    """How long it was opened for."""
    trial: str = ""
    """Whose trial it is."""
    round: int = 0
    """How often it has opened; counters of different rounds are apart."""

    @property
    def text(self) -> str:
        return json.dumps(asdict(self))


@dataclass(frozen=True, slots=True)
class Gate:
    """Whether a call may pass."""

    passes: bool
    state: State
    retry_after_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Circuit:
    """The circuit under one key."""

    key: str
    terms: Terms

    async def enter(self, store: Store, request: str, now_s: float) -> Gate:
        """Ask for a call to pass; an open circuit whose time is over makes it the trial.

        Raises:
            StoreError: The store does not answer.
        """
        text = await store.get(self.key, now_s=now_s)
        record = _read(text)
        if record.state == "closed":
            return Gate(True, "closed")
        if now_s < record.until_s:
            # The request of the trial may ask again, as a retry does, for as long as its trial lasts.
            is_trial = record.state == "half_open" and record.trial == request
            return Gate(is_trial, record.state, 0.0 if is_trial else record.until_s - now_s)
        trial = replace(record, state="half_open", trial=request, until_s=now_s + self.terms.trial_s)
        if await self._set(store, text, trial, now_s):
            return Gate(True, "half_open")
        # Another call was quicker; how long its trial takes nobody knows.
        return Gate(False, "half_open", self.terms.trial_s)

    async def leave(self, store: Store, request: str, *, failed: bool, now_s: float) -> State | None:
        """Report how a call went.

        Only the trial decides about a circuit that is not closed: others set out before it opened.

        Returns:
            What the circuit has become, `None` when it stays as it was.

        Raises:
            StoreError: The store does not answer.
        """
        text = await store.get(self.key, now_s=now_s)
        record = _read(text)
        if record.state == "closed":
            if not await self._is_too_much(store, record, failed=failed, now_s=now_s):
                return None
            opened = _Record("open", now_s + self.terms.open_s, self.terms.open_s, round=record.round + 1)
            return "open" if await self._set(store, text, opened, now_s) else None
        if record.state != "half_open" or record.trial != request:
            return None
        changed = self._reopened(record, now_s) if failed else _Record("closed", round=record.round)
        return changed.state if await self._set(store, text, changed, now_s) else None

    async def give_up(self, store: Store, request: str, now_s: float) -> None:
        """Report that a call was not made after all: if it was the trial, the next one may try.

        Raises:
            StoreError: The store does not answer; the trial is given up when its time is over.
        """
        text = await store.get(self.key, now_s=now_s)
        record = _read(text)
        if record.state == "half_open" and record.trial == request:
            await self._set(store, text, replace(record, state="open", trial="", until_s=now_s), now_s)

    async def _is_too_much(self, store: Store, record: _Record, *, failed: bool, now_s: float) -> bool:
        """Count a call of a closed circuit, and tell whether it has to open."""
        terms, key = self.terms, f"{self.key}/{record.round}"
        calls = await self._counted(store, f"{key}/calls", now_s) if terms.rate > 0 else 0
        if not failed:
            return False
        failures = await self._counted(store, f"{key}/failed", now_s) if terms.rate > 0 else 0
        # Refused when so many failures are in the window that this one makes the number full.
        slot = await store.take_slot(f"{key}/slots", limit=terms.failures - 1, window_s=terms.window_s, now_s=now_s)
        if slot.accepted or terms.rate == 0:
            return not slot.accepted
        failures += await self._left_over(store, f"{key}/failed", now_s)
        calls += await self._left_over(store, f"{key}/calls", now_s)
        return failures >= terms.rate * calls

    async def _counted(self, store: Store, key: str, now_s: float) -> float:
        """Count one more, and tell how many there were since the current window of the clock began."""
        window = int(now_s // self.terms.window_s)
        return (await store.add(f"{key}/{window}", 1, now_s=now_s, ttl_s=2 * self.terms.window_s)).value

    async def _left_over(self, store: Store, key: str, now_s: float) -> float:
        """How many of the window before are less than a window ago, if they came evenly.

        Remembering every call would cost a busy tool more than a share needs to be exact.
        """
        window, gone = divmod(now_s, self.terms.window_s)
        before = await store.add(f"{key}/{int(window) - 1}", 0, now_s=now_s, ttl_s=self.terms.window_s)
        return before.value * (1 - gone / self.terms.window_s)

    def _reopened(self, record: _Record, now_s: float) -> _Record:
        open_s = min(2 * record.open_s, self.terms.max_open_s)
        return _Record("open", now_s + open_s, open_s, round=record.round)

    async def _set(self, store: Store, before: str | None, record: _Record, now_s: float) -> bool:
        # A closed circuit is remembered until the failures before it opened have left their window.
        left_s = self.terms.window_s if record.state == "closed" else record.until_s - now_s + _FORGET_S
        return await store.compare_and_set(self.key, before, record.text, now_s=now_s, ttl_s=left_s)


def _read(text: str | None) -> _Record:
    known = {field.name for field in fields(_Record)}
    # A newer worker on the same store may write more than is known here.
    return _Record(**{name: value for name, value in json.loads(text or "{}").items() if name in known})
