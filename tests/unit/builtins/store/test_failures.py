from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from cpex.builtins.store.failures import StoreFailure, observe_store_failures, store_failures
from cpex.builtins.store.guarded import GuardedStore, StoreSettings
from cpex.builtins.store.opening import store_kind
from cpex.builtins.store.port import Count, Store
from cpex.framework import clock


async def count_one(store: Store) -> Count:
    return await store.add("a", 1, now_s=0)


def away(directory: Path, plugin: str, policy: str) -> GuardedStore:
    """A store that cannot answer: its file is no database."""
    path = directory / "state.db"
    path.write_text("no database" * 200)
    return GuardedStore(plugin, StoreSettings.model_validate({"store": str(path), "on_store_error": policy}))


@pytest.mark.parametrize("policy", ["deny", "allow", "local"])
async def test_every_call_without_its_store_is_counted_for_the_process(tmp_path: Path, policy: str) -> None:
    failure = StoreFailure(f"counted-{policy}", "sqlite", policy)
    store = away(tmp_path, failure.plugin, policy)
    with clock.use_clock(clock.FixedClock(datetime(2024, 5, 20, tzinfo=UTC))) as time:
        await store.ask(count_one)
        await store.ask(count_one)
        time.advance(1)
        await store.ask(count_one)
    await store.close()
    # One asked in vain, one while the store was left alone, one asked again.
    assert store_failures()[failure] == store.errors == 3


async def test_an_observer_hears_of_failures_until_it_is_told_to_stop(tmp_path: Path) -> None:
    heard: list[StoreFailure] = []
    stop = observe_store_failures(heard.append)
    store = away(tmp_path, "observed", "deny")
    await store.ask(count_one)
    stop()
    stop()
    await store.ask(count_one)
    await store.close()
    assert [failure for failure in heard if failure.plugin == "observed"] == [
        StoreFailure("observed", "sqlite", "deny")
    ]
    assert store_failures()[StoreFailure("observed", "sqlite", "deny")] == 2


async def test_a_store_that_answers_counts_nothing(tmp_path: Path) -> None:
    store = GuardedStore("well", StoreSettings(store=str(tmp_path / "state.db")))
    assert await store.ask(count_one) is not None
    await store.close()
    assert not [failure for failure in store_failures() if failure.plugin == "well"]


def test_the_kind_of_a_store_tells_nothing_else_of_it() -> None:
    targets = [None, "/var/lib/limits.db", "redis://joe:hunter2@db", "unix:///run/redis.sock", "rediss+cluster://db"]
    assert [store_kind(target) for target in targets] == ["memory", "sqlite", "redis", "redis", "redis-cluster"]
