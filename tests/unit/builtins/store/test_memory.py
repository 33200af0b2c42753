from __future__ import annotations

from cpex.builtins.store.memory import MemoryStore
from cpex.builtins.store.port import Rate


async def test_beyond_the_cap_the_entry_idle_longest_is_forgotten() -> None:
    store = MemoryStore(max_entries=2)
    for key in ("a", "b"):
        await store.add(key, 10, now_s=0)
    await store.add("a", 1, now_s=0, limit=10)
    await store.add("c", 10, now_s=0)
    assert (len(store), store.forgotten) == (2, 1)
    assert (await store.add("a", 0, now_s=0)).value == 10, "a refused addition is use, too"
    assert (await store.add("b", 0, now_s=0)).value == 0


async def test_an_expired_entry_that_makes_room_is_not_missed() -> None:
    store = MemoryStore(max_entries=1)
    rate = Rate.per_minute(60, 1)
    await store.take("a", rate, now_s=0)
    await store.take("b", rate, now_s=1)
    assert (len(store), store.forgotten) == (1, 0)
    await store.take("c", rate, now_s=1)
    assert store.forgotten == 1
