"""The framework's time: one place that asks the system clock, and a way to put another clock there.

The clock is chosen per context, so a test or a replay that sets one does not disturb whatever else runs in the process,
and tasks started under it inherit it. Timers of the event loop (deadlines, delays) stay in real time: a clock tells
what time it is, it wakes nobody.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Protocol

__all__ = ["Clock", "FixedClock", "SystemClock", "elapsed_ns", "monotonic", "now", "use_clock"]

_NS_PER_S = 1_000_000_000


class Clock(Protocol):
    """Tells the time. It knows nothing of timers and waits for nothing."""

    def now(self) -> datetime:
        """The moment, aware and in UTC. May jump when the system's clock is set."""

    def monotonic_ns(self) -> int:
        """Nanoseconds since an arbitrary point in the past. Never goes back."""


class SystemClock:
    """The clock of the machine."""

    def now(self) -> datetime:
        """The system's time in UTC."""
        return datetime.now(UTC)

    # A static method saves the bound call on the pipeline's hot path.
    monotonic_ns = staticmethod(time.monotonic_ns)


class FixedClock:
    """A clock that moves only when it is told to, for tests and replays.

    `now` and the monotonic reading move together; going back in time moves `now` alone.
    """

    def __init__(self, moment: datetime, monotonic_s: float = 0.0) -> None:
        """Start at a moment.

        Args:
            moment: Must be aware; any time zone.
            monotonic_s: First monotonic reading, in seconds.

        Raises:
            ValueError: The moment has no time zone.
        """
        self._moment = _in_utc(moment)
        self._monotonic_ns = round(monotonic_s * _NS_PER_S)

    def now(self) -> datetime:
        """The moment that was last set."""
        return self._moment

    def monotonic_ns(self) -> int:
        """Nanoseconds, as far as the clock was moved forward."""
        return self._monotonic_ns

    def advance(self, seconds: float) -> None:
        """Move forward.

        Raises:
            ValueError: `seconds` is negative; only `move_to` can go back.
        """
        if seconds < 0:
            raise ValueError(f"a clock advances by zero or more seconds, not by {seconds}")
        self.move_to(self._moment + timedelta(seconds=seconds))

    def move_to(self, moment: datetime) -> None:
        """Set the moment; the monotonic reading grows by the distance, or stays when the moment lies back.

        Raises:
            ValueError: The moment has no time zone.
        """
        moment = _in_utc(moment)
        self._monotonic_ns += max(0, (moment - self._moment) // timedelta(microseconds=1) * 1000)
        self._moment = moment


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"the moment {moment.isoformat()} has no time zone; give it one, e.g. tzinfo=UTC")
    return moment.astimezone(UTC)


_SYSTEM_CLOCK: Clock = SystemClock()
_clock: ContextVar[Clock] = ContextVar("cpex_clock", default=_SYSTEM_CLOCK)


def now() -> datetime:
    """The moment by this context's clock: aware, UTC."""
    return _clock.get().now()


def monotonic() -> float:
    """Seconds since an arbitrary point, by this context's clock; for measuring and for comparing with itself."""
    return _clock.get().monotonic_ns() / _NS_PER_S


elapsed_ns = time.monotonic_ns
"""`elapsed_ns()`: a stopwatch in nanoseconds, always of real time. Durations and deadlines are measured with it: a
replay of yesterday's traffic takes as long as it takes today, and the timers of the event loop run in real time too."""


@contextmanager
def use_clock(clock: Clock) -> Iterator[Clock]:
    """Let this context, and tasks started in it, read another clock; the former one returns at the end.

    Example:
        >>> noon = FixedClock(datetime(2030, 1, 1, 12, tzinfo=UTC))
        >>> with use_clock(noon):
        ...     noon.advance(90)
        ...     print(now(), monotonic())
        2030-01-01 12:01:30+00:00 90.0
    """
    token = _clock.set(clock)
    try:
        yield clock
    finally:
        _clock.reset(token)
