"""What every store must do; each test runs against each implementation."""

from __future__ import annotations

import asyncio

from cpex.builtins.store.port import Count, Rate, Store, Taken

NOW = 1_716_163_200.25


async def test_an_addition_is_made_whole_or_not_at_all(store: Store) -> None:
    answers = [await store.add("a", amount, now_s=NOW, limit=10) for amount in (6, 5, 4, 1)]
    assert [(answer.accepted, answer.value) for answer in answers] == [(True, 6), (False, 6), (True, 10), (False, 10)]
    assert (await store.add("b", 10, now_s=NOW, limit=10)).accepted, "counters are apart"
    assert (await store.add("a", 5, now_s=NOW)).value == 15, "without a limit everything is accepted"


async def test_a_refused_addition_does_not_start_a_counter(store: Store) -> None:
    assert await store.add("a", 11, now_s=NOW, limit=10, ttl_s=60) == Count(False, 0)
    assert (await store.add("a", 1, now_s=NOW + 50, limit=10, ttl_s=60)).expires_in_s == 60


async def test_the_life_of_a_counter_begins_with_its_first_addition(store: Store) -> None:
    first = await store.add("a", 10, now_s=NOW, limit=10, ttl_s=60)
    refused = await store.add("a", 1, now_s=NOW + 30, limit=10, ttl_s=60)
    assert (refused.accepted, refused.expires_in_s, refused.generation) == (False, 30, first.generation)
    second = await store.add("a", 10, now_s=NOW + 60, limit=10, ttl_s=60)
    assert (second.accepted, second.value, second.expires_in_s) == (True, 10, 60)
    assert second.generation not in ("", first.generation)


async def test_a_counter_without_ttl_stays(store: Store) -> None:
    assert (await store.add("a", 1, now_s=NOW)).expires_in_s is None
    assert (await store.add("a", 1, now_s=NOW + 1e9)).value == 2


async def test_what_was_taken_back_can_be_added_again(store: Store) -> None:
    added = await store.add("a", 10, now_s=NOW, limit=10, ttl_s=60)
    assert await store.subtract("a", 4, generation=added.generation, now_s=NOW + 1)
    assert (await store.add("a", 4, now_s=NOW + 2, limit=10)).value == 10
    assert await store.subtract("a", 99, generation=added.generation, now_s=NOW + 3)
    again = await store.add("a", 0, now_s=NOW + 4)
    assert (again.value, again.expires_in_s) == (0, 56), "never below zero, and for no longer than before"


async def test_nothing_is_taken_back_from_another_life_of_a_counter(store: Store) -> None:
    earlier = await store.add("a", 10, now_s=NOW, ttl_s=60)
    assert not await store.subtract("a", 1, generation=earlier.generation, now_s=NOW + 60)
    await store.add("a", 10, now_s=NOW + 60, ttl_s=60)
    assert not await store.subtract("a", 1, generation=earlier.generation, now_s=NOW + 61)
    assert not await store.subtract("a", 1, generation="", now_s=NOW + 61)
    assert not await store.subtract("never", 1, generation=earlier.generation, now_s=NOW)
    assert not await store.subtract("never", 1, generation="", now_s=NOW)


async def test_a_bucket_gives_what_it_holds_and_then_what_comes_back(store: Store) -> None:
    rate = Rate.per_minute(60, capacity=3)
    answers = [await store.take("a", rate, now_s=NOW) for _ in range(4)]
    assert answers == [
        Taken(True, 2, 0.0, 1.0),
        Taken(True, 1, 0.0, 2.0),
        Taken(True, 0, 0.0, 3.0),
        Taken(False, 0, 1.0, 3.0),
    ]
    assert await store.take("a", rate, now_s=NOW + 0.75) == Taken(False, 0, 0.25, 2.25)
    assert await store.take("a", rate, now_s=NOW + 1) == Taken(True, 0, 0.0, 3.0)
    assert (await store.take("a", rate, now_s=NOW + 3600)).remaining == 2, "it never holds more than its capacity"
    assert (await store.take("b", rate, now_s=NOW)).remaining == 2, "buckets are apart"


async def test_whoever_waits_as_long_as_told_is_served(store: Store) -> None:
    rate = Rate.per_minute(7, capacity=1)
    now = NOW
    for _ in range(20):
        assert (await store.take("a", rate, now_s=now)).accepted
        wait_s = (await store.take("a", rate, now_s=now)).retry_after_s
        assert wait_s is not None
        now += wait_s


async def test_several_tokens_are_taken_together_or_not_at_all(store: Store) -> None:
    rate = Rate.per_minute(60, capacity=3)
    assert await store.take("a", rate, now_s=NOW, amount=4) == Taken(False, 3, None, 0.0)
    assert (await store.take("a", rate, now_s=NOW, amount=2)).remaining == 1
    assert await store.take("a", rate, now_s=NOW, amount=2) == Taken(False, 1, 1.0, 2.0)


async def test_a_clock_that_goes_back_gives_no_tokens(store: Store) -> None:
    rate = Rate.per_minute(60, capacity=2)
    await store.take("a", rate, now_s=NOW, amount=2)
    assert await store.take("a", rate, now_s=NOW - 5) == Taken(False, 0, 6.0, 7.0)


async def test_no_stretch_of_a_window_has_more_than_its_slots(store: Store) -> None:
    async def taken(at: float, limit: int = 2) -> Taken:
        return await store.take_slot("a", limit=limit, window_s=10, now_s=NOW + at)

    assert [await taken(at) for at in (0, 4)] == [Taken(True, 1, 0.0, 10.0), Taken(True, 0, 0.0, 10.0)]
    assert await taken(5) == Taken(False, 0, 5.0, 9.0)
    assert await taken(5, limit=1) == Taken(False, 0, 9.0, 9.0), "two must leave before one may enter"
    assert await taken(5, limit=0) == Taken(False, 0, None, 9.0)
    assert await taken(10) == Taken(True, 0, 0.0, 10.0)
    assert await taken(13) == Taken(False, 0, 1.0, 7.0)
    assert (await taken(13.5, limit=3)).accepted
    assert await store.take_slot("empty", limit=0, window_s=10, now_s=NOW) == Taken(False, 0, None, 0.0)


async def test_members_of_a_set_leave_one_by_one(store: Store) -> None:
    assert await store.put_member("s", "x", now_s=NOW, ttl_s=10)
    assert not await store.put_member("s", "x", now_s=NOW, ttl_s=20)
    assert await store.put_member("s", "y", now_s=NOW, ttl_s=10)
    assert await store.put_member("s", "z", now_s=NOW)
    assert await store.members("s", now_s=NOW + 9) == {"x", "y", "z"}
    assert await store.members("s", now_s=NOW + 10) == {"x", "z"}
    assert await store.put_member("s", "y", now_s=NOW + 10, ttl_s=1), "it had left"
    assert await store.drop_member("s", "z", now_s=NOW + 10)
    assert not await store.drop_member("s", "z", now_s=NOW + 10)
    assert not await store.drop_member("s", "y", now_s=NOW + 11)
    assert await store.members("s", now_s=NOW + 20) == frozenset()
    assert await store.members("never", now_s=NOW) == frozenset()


async def test_the_last_member_of_a_set_can_leave(store: Store) -> None:
    await store.put_member("s", "x", now_s=NOW)
    assert await store.drop_member("s", "x", now_s=NOW)
    assert await store.members("s", now_s=NOW) == frozenset()


async def test_a_text_is_set_only_if_it_is_as_expected(store: Store) -> None:
    assert await store.compare_and_set("k", None, "one", now_s=NOW)
    assert not await store.compare_and_set("k", None, "two", now_s=NOW)
    assert not await store.compare_and_set("k", "two", "three", now_s=NOW)
    assert await store.compare_and_set("k", "one", "zwei ☃ \x00", now_s=NOW)
    assert await store.get("k", now_s=NOW) == "zwei ☃ \x00"
    assert await store.compare_and_set("k", "zwei ☃ \x00", None, now_s=NOW)
    assert await store.get("k", now_s=NOW) is None
    assert not await store.compare_and_set("k", "", "four", now_s=NOW), "no text is not the empty text"


async def test_a_text_that_expired_is_no_text(store: Store) -> None:
    await store.compare_and_set("k", None, "one", now_s=NOW, ttl_s=5)
    assert await store.get("k", now_s=NOW + 4.9) == "one"
    assert await store.get("k", now_s=NOW + 5) is None
    assert await store.compare_and_set("k", None, "two", now_s=NOW + 5)
    assert await store.get("k", now_s=NOW + 500) == "two", "the old time to live went with the old text"


async def test_kinds_of_state_do_not_meet_under_one_key(store: Store) -> None:
    key = "{odd} key:*\n☃"
    assert (await store.add(key, 1, now_s=NOW)).value == 1
    assert (await store.take(key, Rate(1, 1_000_000), now_s=NOW)).accepted
    assert (await store.take_slot(key, limit=1, window_s=1, now_s=NOW)).accepted
    assert await store.put_member(key, "m", now_s=NOW)
    assert await store.compare_and_set(key, None, "t", now_s=NOW)
    assert (await store.add(key, 1, now_s=NOW)).value == 2


async def test_tasks_that_take_at_once_get_no_more_than_there_is(store: Store) -> None:
    answers = await asyncio.gather(*(store.take("a", Rate.per_minute(1, 10), now_s=NOW) for _ in range(50)))
    assert sum(answer.accepted for answer in answers) == 10


async def test_a_closed_store_opens_again_with_what_it_had(store: Store) -> None:
    await store.close()
    await store.add("a", 1, now_s=NOW)
    await store.close()
    await store.close()
    assert (await store.add("a", 1, now_s=NOW)).value == 2
