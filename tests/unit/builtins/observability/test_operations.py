"""Which halves of hook calls belong to one operation, and when it is over."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cpex.builtins.observability._operations import Half, Key, Operation, Operations, family_of, is_over, partner_of
from cpex.framework import clock

PRE, POST = "tool_pre_invoke", "tool_post_invoke"
KEY = Key("r1", PRE, "search")


def table(forgotten: list[str], limit: int = 10) -> Operations[str]:
    return Operations(limit=limit, max_age_s=60, forget=forgotten.append)


@pytest.mark.parametrize(
    ("pre", "post"),
    [
        (PRE, POST),
        ("prompt_pre_fetch", "prompt_post_fetch"),
        ("http_pre_request", "http_post_request"),
        ("cmf.tool_pre_invoke", "cmf.tool_post_invoke"),
        ("cmf.llm_input", "cmf.llm_output"),
    ],
)
def test_pre_and_post_hooks_are_one_family(pre: str, post: str) -> None:
    assert family_of(pre) == family_of(post)
    assert (partner_of(pre), partner_of(post)) == (post, None)


def test_hooks_without_a_partner_stand_alone() -> None:
    assert family_of("http_auth_check_permission") == "http_auth_check_permission"
    assert partner_of("evaluate") is None


@pytest.mark.parametrize("late", [0, 1, 2, 3])
def test_an_operation_is_over_when_every_half_has_come_in_any_order(late: int) -> None:
    halves: list[tuple[str, Half]] = [(PRE, "turn"), (PRE, "decision"), (POST, "turn"), (POST, "decision")]
    last = halves.pop(late)
    operation = Operation(KEY, "span", 0.0)
    for each in halves:
        operation.seen.add(each)
        assert not is_over(operation, [PRE, POST])
    operation.seen.add(last)
    assert is_over(operation, [PRE, POST])


def test_a_denied_operation_is_over_without_its_post_hook() -> None:
    operation = Operation(KEY, "span", 0.0, {(PRE, "turn"), (PRE, "decision")})
    assert not is_over(operation, [PRE, POST])
    operation.ended_by.add(PRE)
    assert is_over(operation, [PRE, POST])


def test_an_operation_does_not_wait_for_a_hook_that_is_not_watched() -> None:
    operation = Operation(KEY, "span", 0.0, {(PRE, "turn"), (PRE, "decision")})
    assert is_over(operation, [PRE])


def test_parallel_calls_of_one_request_are_taken_in_order() -> None:
    operations = table([])
    first, second = operations.open(KEY, "first"), operations.open(KEY, "second")
    first.seen.add((PRE, "turn"))
    assert operations.find(KEY, PRE, "turn") is second
    assert operations.find(KEY, POST, "turn") is first
    operations.close(first)
    assert operations.find(KEY, POST, "turn") is second
    assert operations.find(Key("r2", PRE, "search"), POST, "turn") is None


def test_the_oldest_operation_is_given_up_when_there_are_too_many() -> None:
    forgotten: list[str] = []
    operations = table(forgotten, limit=2)
    for name in ("a", "b", "c"):
        operations.open(KEY, name)
    assert (forgotten, len(operations)) == (["a"], 2)


def test_an_operation_that_is_too_old_is_given_up() -> None:
    forgotten: list[str] = []
    operations = table(forgotten)
    with clock.use_clock(clock.FixedClock(datetime(2030, 1, 1, tzinfo=UTC))) as now:
        operations.open(KEY, "a")
        now.advance(60)
        operations.open(KEY, "b")
        now.advance(1)
        operations.open(KEY, "c")
    assert (forgotten, len(operations)) == (["a"], 2)
    operations.give_up_all()
    assert (forgotten, len(operations)) == (["a", "b", "c"], 0)
