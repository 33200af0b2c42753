from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cpex.builtins.store.port import StoreError
from cpex.builtins.store.sqlite import SqliteStore


async def test_counts_survive_the_store_that_made_them(tmp_path: Path) -> None:
    for expected in (1, 2):
        store = SqliteStore(tmp_path / "state.db")
        assert (await store.add("a", 1, now_s=0)).value == expected
        await store.close()


async def test_the_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.add("a", 1, now_s=0)
    modes = {stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    await store.close()
    assert modes == {0o600}


async def test_the_file_has_a_write_ahead_log(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.add("a", 1, now_s=0)
    assert (tmp_path / "state.db-wal").exists()
    reader = sqlite3.connect(tmp_path / "state.db")
    assert reader.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    reader.close()
    await store.close()


async def test_closing_ends_the_thread_and_leaves_one_file(tmp_path: Path) -> None:
    before = set(threading.enumerate())
    store = SqliteStore(tmp_path / "state.db")
    await store.add("a", 1, now_s=0)
    # Threads of stores that other tests closed may be about to end.
    (worker,) = [each for each in threading.enumerate() if each.name.startswith("cpex-store") and each not in before]
    await store.close()
    worker.join(60)
    assert not worker.is_alive()
    assert [file.name for file in tmp_path.iterdir()] == ["state.db"]


async def test_a_file_that_another_writer_holds_is_an_error_and_blocks_no_other_task(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db", timeout_s=0.2)
    await store.add("a", 1, now_s=0)
    other = sqlite3.connect(tmp_path / "state.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    waiting = asyncio.ensure_future(store.add("a", 1, now_s=0))
    await asyncio.sleep(0)
    assert not waiting.done()
    with pytest.raises(StoreError) as raised:
        await waiting
    assert str(raised.value) == f"store `{tmp_path}/state.db` did not answer: database is locked"
    assert await store.members("s", now_s=0) == frozenset(), "who only reads does not wait"
    other.execute("COMMIT")
    other.close()
    assert (await store.add("a", 1, now_s=0)).value == 2
    await store.close()


async def test_many_may_make_the_file_at_once(tmp_path: Path) -> None:
    for number in range(10):
        stores = [SqliteStore(tmp_path / f"{number}.db", timeout_s=60) for _ in range(8)]
        counts = await asyncio.gather(*(store.add("a", 1, now_s=0) for store in stores))
        await asyncio.gather(*(store.close() for store in stores))
        assert sorted(count.value for count in counts) == list(range(1, 9))


async def test_a_file_with_something_else_in_it_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "theirs.db"
    theirs = sqlite3.connect(path)
    theirs.execute("CREATE TABLE entries (name TEXT)")
    theirs.close()
    (tmp_path / "text.db").write_text("not a database, but long enough to be read as the header of one" * 20)
    for name, reason in (
        ("theirs.db", "the file holds something else; name a file of its own"),
        ("text.db", "file is not a database"),
    ):
        store = SqliteStore(tmp_path / name)
        with pytest.raises(StoreError, match=reason):
            await store.add("a", 1, now_s=0)
        await store.close()


async def test_what_has_expired_is_swept_out(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    for number in range(300):
        await store.add(f"old {number}", 1, now_s=0, ttl_s=1)
    for _ in range(300):
        await store.add("new", 1, now_s=2)
    await store.close()
    with sqlite3.connect(tmp_path / "state.db") as left:
        assert left.execute("SELECT key FROM entries").fetchall() == [("c:new",)]
    left.close()


@pytest.mark.parametrize("path", ["missing/state.db", "."])
def test_a_place_that_cannot_hold_the_file_is_refused_at_once(tmp_path: Path, path: str) -> None:
    with pytest.raises(ValueError) as raised:
        SqliteStore(tmp_path / path)
    assert str(raised.value) == (
        f"store `{tmp_path / path}` cannot be a file there; name a file in a directory that exists"
    )


async def test_a_forked_child_opens_the_file_anew(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    await store.add("a", 1, now_s=0)
    child = os.fork()
    if child == 0:
        # No exception may reach pytest's copy in the child.
        status = 1
        try:
            work = store.add("a", 1, now_s=0)
            loop = _loop_of_its_own()
            status = 0 if loop.run_until_complete(work).value == 2 else 2
        finally:
            os._exit(status)
    _, status = await asyncio.to_thread(os.waitpid, child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert (await store.add("a", 1, now_s=0)).value == 3
    await store.close()


FORKING = """
import asyncio, os, sys
from cpex.builtins.store.sqlite import SqliteStore

store, amounts = SqliteStore(sys.argv[1], timeout_s=60), [1, 10, 100]
asyncio.run(store.add("a", 1000, now_s=0))
reports, report = os.pipe()
starts, start = os.pipe()
for amount in amounts:
    if os.fork() == 0:
        try:
            asyncio.run(store.add("a", amount, now_s=0))
            os.write(report, b"1")
            os.read(starts, 1)
            asyncio.run(store.add("a", amount, now_s=0))
            os.write(report, b"2")
        finally:
            os._exit(0)
os.close(report)
[os.read(reports, 1) for _ in amounts]
# With its parent the last one closes that knew of the file before the children did.
asyncio.run(store.close())
os.write(start, b"." * len(amounts))
ends = [os.waitpid(-1, 0)[1] for _ in amounts]
total = asyncio.run(SqliteStore(sys.argv[1]).add("a", 0, now_s=0)).value
print(ends, os.read(reports, 10), total)
"""


def test_what_forked_children_count_outlives_the_store_of_their_parent(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FORKING, str(tmp_path / "state.db")]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout == "[0, 0, 0] b'222' 1222\n", run.stderr


def _loop_of_its_own() -> asyncio.AbstractEventLoop:
    # The child still counts as inside the parent's running loop.
    asyncio._set_running_loop(None)
    return asyncio.new_event_loop()
