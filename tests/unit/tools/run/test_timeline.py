from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from cpex.framework.clock import SystemClock
from cpex.tools.run.timeline import Timeline

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_an_event_happens_at_the_moment_it_carries() -> None:
    timeline = Timeline()
    elsewhere = NOON.astimezone(timezone(timedelta(hours=2)))
    assert timeline.clock(elsewhere).now() == NOON


def test_the_monotonic_reading_grows_as_the_moments_do_and_never_goes_back() -> None:
    timeline = Timeline()
    first = timeline.clock(NOON).monotonic_ns()
    hour_later = timeline.clock(NOON + timedelta(hours=1))
    late = timeline.clock(NOON + timedelta(minutes=30))
    after = timeline.clock(NOON + timedelta(minutes=40))
    assert round((hour_later.monotonic_ns() - first) / 1e9) == 3600
    assert late.now() == NOON + timedelta(minutes=30)
    assert late.monotonic_ns() == hour_later.monotonic_ns()
    assert round((after.monotonic_ns() - late.monotonic_ns()) / 1e9) == 600


def test_an_event_without_a_time_happens_when_the_one_before_happened() -> None:
    timeline = Timeline()
    assert isinstance(timeline.clock(None), SystemClock)
    clock = timeline.clock(NOON)
    assert timeline.clock(None) is clock


def test_a_clock_stays_at_its_event_when_the_next_one_comes() -> None:
    timeline = Timeline()
    clock = timeline.clock(NOON)
    reading = clock.monotonic_ns()
    timeline.clock(NOON + timedelta(hours=1))
    assert (clock.now(), clock.monotonic_ns()) == (NOON, reading)
