"""Decisions kept for a while."""

from __future__ import annotations

from typing import Any

import pytest

from cpex.framework.clock import FixedClock
from cpex.framework.pdp import CachingResolver, PdpError, PdpResolver, PdpResult


class Counting(PdpResolver):
    """A resolver in memory: the port's second implementation."""

    def __init__(self, *results: PdpResult | PdpError) -> None:
        self.results = list(results)
        self.asked = 0
        self.closed = False

    async def resolve(self, input_data: dict[str, Any]) -> PdpResult:
        self.asked += 1
        result = self.results.pop(0) if len(self.results) > 1 else self.results[0]
        if isinstance(result, PdpError):
            raise result
        return result

    async def close(self) -> None:
        self.closed = True


async def test_an_answer_holds_until_its_time_is_over(cpex_clock: FixedClock) -> None:
    behind = Counting(PdpResult(True, latency_ms=3), PdpResult(False, "changed"))
    resolver = CachingResolver(behind, ttl_s=60)
    first = await resolver.resolve({"a": 1, "b": 2})
    cpex_clock.advance(59)
    again = await resolver.resolve({"b": 2, "a": 1})
    assert (first.from_cache, again.from_cache, again.allowed, again.latency_ms) == (False, True, True, 0.0)
    cpex_clock.advance(1)
    assert (await resolver.resolve({"a": 1, "b": 2})).reason == "changed"
    assert behind.asked == 2


async def test_other_questions_are_asked_and_the_one_unused_longest_goes_first(cpex_clock: FixedClock) -> None:
    behind = Counting(PdpResult(True))
    resolver = CachingResolver(behind, ttl_s=60, max_entries=2)
    for question in (1, 2, 1, 3, 1, 2):
        await resolver.resolve({"q": question})
    assert behind.asked == 4
    resolver.forget()
    await resolver.resolve({"q": 2})
    assert behind.asked == 5


async def test_what_is_no_decision_is_not_kept(cpex_clock: FixedClock) -> None:
    behind = Counting(PdpError("down", "http://x"), PdpResult(True, "OPA timeout, fail-open"), PdpResult(False))
    resolver = CachingResolver(behind, ttl_s=60)
    with pytest.raises(PdpError):
        await resolver.resolve({})
    assert (await resolver.resolve({})).allowed
    assert not (await resolver.resolve({})).allowed
    assert (await resolver.resolve({})).from_cache


async def test_questions_that_are_no_json_go_through(cpex_clock: FixedClock) -> None:
    behind = Counting(PdpResult(False))
    resolver = CachingResolver(behind, ttl_s=60)
    await resolver.resolve({"x": {1}})
    await resolver.resolve({"x": {1}})
    await resolver.close()
    assert (behind.asked, behind.closed) == (2, True)


def test_limits_must_be_positive() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        CachingResolver(Counting(PdpResult(True)), ttl_s=0)


async def test_what_a_caller_does_to_an_answer_is_not_seen_by_the_next() -> None:
    resolver = CachingResolver(Counting(PdpResult(True, context={"advice": ["mask"]})), ttl_s=60)
    for _ in range(3):
        result = await resolver.resolve({"subject": "ann"})
        assert result.context == {"advice": ["mask"]}
        result.context["advice"].append("leaked")


async def test_no_question_is_kept(cpex_clock: FixedClock) -> None:
    resolver = CachingResolver(Counting(PdpResult(True)), ttl_s=60)
    await resolver.resolve({"args": {"password": "hunter2"}})
    assert "hunter2" not in repr(vars(resolver))
    assert (await resolver.resolve({"args": {"password": "hunter2"}})).from_cache
