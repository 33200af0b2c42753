"""The framework's time, and how a context gets another."""

import asyncio
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from cpex.framework import clock
from cpex.framework.clock import FixedClock, SystemClock, elapsed_ns, monotonic, now, use_clock

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


def test_the_system_clock_is_read_where_no_other_is_set():
    before, earliest = datetime.now(UTC), time.monotonic_ns()

    moment, reading, nanoseconds = now(), monotonic(), elapsed_ns()

    assert before <= moment <= datetime.now(UTC)
    assert moment.tzinfo is UTC
    assert earliest <= int(reading * 1e9) + 1000
    assert earliest <= nanoseconds <= time.monotonic_ns()


def test_a_fixed_clock_stands_still_until_it_is_moved():
    with use_clock(FixedClock(NOON, monotonic_s=5)) as fixed:
        assert (now(), monotonic()) == (NOON, 5.0)
        fixed.advance(1.5)
        assert (now(), monotonic()) == (NOON + timedelta(seconds=1.5), 6.5)


def test_the_monotonic_reading_follows_the_moment_forward_and_never_back():
    fixed = FixedClock(NOON)

    fixed.move_to(NOON + timedelta(days=400))
    fixed.move_to(NOON)
    fixed.move_to(NOON + timedelta(microseconds=1))

    assert fixed.now() == NOON + timedelta(microseconds=1)
    assert fixed.monotonic_ns() == 400 * 86_400 * 1_000_000_000 + 1000


def test_moments_of_any_zone_are_told_in_utc():
    fixed = FixedClock(NOON.astimezone(timezone(timedelta(hours=5))))

    assert fixed.now() == NOON
    assert fixed.now().tzinfo is UTC


def test_a_moment_without_zone_and_a_step_back_are_refused():
    with pytest.raises(ValueError, match="2030-01-01T12:00:00 has no time zone"):
        FixedClock(NOON.replace(tzinfo=None))
    with pytest.raises(ValueError, match="zero or more seconds, not by -1"):
        FixedClock(NOON).advance(-1)


def test_the_former_clock_returns_also_after_an_error():
    with use_clock(FixedClock(NOON)):
        with pytest.raises(RuntimeError), use_clock(FixedClock(NOON + timedelta(days=1))):
            raise RuntimeError
        assert now() == NOON
    assert now() != NOON


@pytest.mark.conformance("D31")
async def test_a_clock_is_inherited_by_tasks_and_unseen_by_other_contexts():
    async def told():
        return now()

    outside = asyncio.create_task(told())
    with use_clock(FixedClock(NOON)):
        inside = asyncio.create_task(told())

    assert await inside == NOON
    assert await outside != NOON


def test_a_host_may_bring_a_clock_of_its_own():
    class Own:
        def now(self):
            return NOON

        def monotonic_ns(self):
            return 7

    with use_clock(Own()):
        assert (now(), monotonic()) == (NOON, 7e-9)


def test_the_example_of_the_documentation_is_true():
    import doctest

    assert doctest.testmod(clock, raise_on_error=True).attempted > 0
    assert SystemClock().monotonic_ns() > 0


def test_the_stopwatch_runs_in_real_time_under_any_clock() -> None:
    with use_clock(FixedClock(NOON)):
        before = elapsed_ns()
        assert elapsed_ns() >= before > 0
