"""The time of a stream: each event is judged at the moment it carries."""

from __future__ import annotations

from datetime import UTC, datetime

from cpex.framework.clock import Clock, FixedClock, SystemClock

__all__ = ["Timeline"]

_SYSTEM = SystemClock()


class Timeline:
    """Makes the clocks of a stream's events. Their monotonic readings grow as the moments do, and never go back.

    Each event gets a clock of its own, which stands still: background plugins of an event may still run when the next
    one is judged, and must go on seeing their own moment.
    """

    def __init__(self) -> None:
        self._clock: FixedClock | None = None

    def clock(self, moment: datetime | None) -> Clock:
        """The clock of the next event.

        Args:
            moment: An aware one; without it the event happens when the one before happened. As long as no event has
                told the time, it is the system's.
        """
        if moment is None:
            return self._clock or _SYSTEM
        if self._clock is None:
            # Plugins may have read the system's clock while they were started.
            self._clock = FixedClock(moment, _SYSTEM.monotonic_ns() / 1e9)
            return self._clock
        before = self._clock
        self._clock = FixedClock(moment, before.monotonic_ns() / 1e9 + _seconds_forward(before.now(), moment))
        return self._clock


def _seconds_forward(before: datetime, moment: datetime) -> float:
    # An event that was recorded late does not turn the reading back.
    return max(0.0, (moment.astimezone(UTC) - before).total_seconds())
