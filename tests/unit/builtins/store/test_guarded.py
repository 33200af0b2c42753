from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cpex.builtins.store.guarded import GuardedStore, StoreSettings, store_key
from cpex.builtins.store.port import Count, Store
from cpex.framework import PluginViolation, clock


@pytest.fixture
def time() -> Iterator[clock.FixedClock]:
    with clock.use_clock(clock.FixedClock(datetime(2024, 5, 20, tzinfo=UTC))) as fixed:
        yield fixed


class Outage:
    """An SQLite file that is no database until it ends."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "state.db"
        self.path.write_text("no database" * 200)

    def end(self) -> None:
        self.path.unlink()


async def count_one(store: Store) -> Count:
    return await store.add("a", 1, now_s=0)


def guarded(path: Path, **settings: Any) -> GuardedStore:
    return GuardedStore("guard", StoreSettings(store=str(path), **settings))


@pytest.mark.usefixtures("time")
async def test_an_outage_has_no_answer_and_the_default_denies(tmp_path: Path) -> None:
    store = guarded(Outage(tmp_path).path)
    assert await store.ask(count_one) is None
    result = store.decide()
    await store.close()
    assert (result.continue_processing, result.metadata) == (False, {"guard": {"store_error": "deny"}})
    assert result.violation == PluginViolation(
        reason="The limits cannot be checked",
        description="The store that holds them does not answer; try again soon.",
        code="STORE_UNAVAILABLE",
        http_status_code=503,
        http_headers={"Retry-After": "1"},
    )


@pytest.mark.usefixtures("time")
async def test_an_outage_can_let_calls_through_or_count_them_here(tmp_path: Path) -> None:
    allowing = guarded(Outage(tmp_path).path, on_store_error="allow")
    assert await allowing.ask(count_one) is None
    assert allowing.decide().continue_processing
    assert allowing.decide().metadata == {"guard": {"store_error": "allow"}}
    local = guarded(Outage(tmp_path).path, on_store_error="local")
    answers = [await local.ask(count_one) for _ in range(2)]
    await allowing.close()
    await local.close()
    assert [answer.value for answer in answers if answer] == [1, 2]


async def test_an_outage_is_counted_per_call_and_logged_at_both_ends(
    tmp_path: Path, time: clock.FixedClock, caplog: pytest.LogCaptureFixture
) -> None:
    outage = Outage(tmp_path)
    store = guarded(outage.path)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            await store.ask(count_one)
        time.advance(1)
        await store.ask(count_one)
        outage.end()
        time.advance(1)
        assert await store.ask(count_one) is not None
        assert await store.ask(count_one) is not None
    await store.close()
    assert store.errors == 3
    assert [record.getMessage() for record in caplog.records] == [
        f"plugin `guard`: store `{outage.path}` did not answer: file is not a database;"
        " until it does, `on_store_error: deny` holds",
        "plugin `guard`: the store answers again, after 3 calls without it",
    ]


async def test_a_store_that_failed_is_left_alone_for_a_second(tmp_path: Path, time: clock.FixedClock) -> None:
    outage = Outage(tmp_path)
    store = guarded(outage.path)
    await store.ask(count_one)
    outage.end()
    time.advance(0.5)
    assert await store.ask(count_one) is None
    assert not outage.path.exists(), "it was not asked"
    time.advance(0.5)
    assert await store.ask(count_one) == Count(True, 1, *_rest(await store.ask(count_one)))
    await store.close()


def _rest(count: Count | None) -> tuple[str, None]:
    assert count is not None
    return count.generation, None


def test_settings_name_what_is_wrong() -> None:
    with pytest.raises(ValidationError, match="no store is of the kind `mysql`"):
        StoreSettings(store="mysql://x")
    with pytest.raises(ValidationError, match="on_store_error"):
        StoreSettings.model_validate({"on_store_error": "shrug"})


def test_no_error_quotes_a_password() -> None:
    pytest.importorskip("redis", reason="the library `redis` is not installed")
    with pytest.raises(ValidationError) as raised:
        StoreSettings(store="mysql://joe:hunter2@db")
    assert "hunter2" not in str(raised.value)
    with pytest.raises(ValueError) as unreadable:
        GuardedStore("guard", StoreSettings(store="redis://:hunter2/x@db"))
    assert str(unreadable.value) == (
        "the URL of the store cannot be read; write `redis://user:password@host:port/database`,"
        " with special characters percent-encoded"
    )


def test_keys_tell_parts_apart_and_show_nothing() -> None:
    keys = [store_key("a", "b"), store_key("ab"), store_key("a", None, "b"), store_key('a", "b'), store_key("a", "")]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 and set(key) <= set("0123456789abcdef") for key in keys)


async def test_a_file_made_by_a_newer_version_is_an_outage(tmp_path: Path) -> None:
    newer = sqlite3.connect(tmp_path / "state.db")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    store = guarded(tmp_path / "state.db")
    assert await store.ask(count_one) is None
    await store.close()
