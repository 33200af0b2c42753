"""The time of a stream: each event is judged at the moment it carries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from cpex.framework.clock import Clock, SystemClock

__all__ = ["EventClock", "Timeline"]

_REAL = SystemClock()
_MICROSECOND = timedelta(microseconds=1)


class EventClock:
    """Stands still at one event's moment; only durations go on, so that what a plugin takes is measured.

    A clock of its own for each event, because background plugins of an event may still run when the next one is judged.
    """

    def __init__(self, moment: datetime, start_ns: int) -> None:
        """Begin at a moment.

        Args:
            moment: Must be aware and in UTC.
            start_ns: First monotonic reading, in nanoseconds.
        """
        self._moment = moment
        self._offset_ns = start_ns - _REAL.monotonic_ns()

    def now(self) -> datetime:
        """The event's moment."""
        return self._moment

    def monotonic_ns(self) -> int:
        """Nanoseconds: the event's place in the stream and what has really passed since it was reached."""
        return _REAL.monotonic_ns() + self._offset_ns


class Timeline:
    """Makes the clocks of a stream's events. Their monotonic readings grow from event to event, as the moments do."""

    def __init__(self) -> None:
        self._clock: EventClock | None = None
        self._first_moment: datetime | None = None
        self._first_ns = 0

    def clock(self, moment: datetime | None) -> Clock:
        """The clock of the next event.

        Args:
            moment: An aware one; without it the event happens when the one before happened. As long as no event has
                told the time, it is the system's.
        """
        if moment is None:
            return self._clock or _REAL
        moment = moment.astimezone(UTC)
        if self._clock is None or self._first_moment is None:
            self._first_moment, self._first_ns = moment, _REAL.monotonic_ns()
            self._clock = EventClock(moment, self._first_ns)
            return self._clock
        place_ns = self._first_ns + (moment - self._first_moment) // _MICROSECOND * 1000
        # An event that is recorded late, or that follows faster than judging takes, must not turn the reading back.
        self._clock = EventClock(moment, max(place_ns, self._clock.monotonic_ns()))
        return self._clock
