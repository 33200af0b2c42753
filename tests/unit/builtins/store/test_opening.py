from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from cpex.builtins.store.memory import MemoryStore
from cpex.builtins.store.opening import check_target, open_store
from cpex.builtins.store.redis import RedisStore
from cpex.builtins.store.sqlite import SqliteStore


def test_the_target_tells_the_kind_of_store(tmp_path: Path) -> None:
    assert isinstance(open_store(None), MemoryStore)
    assert isinstance(open_store(str(tmp_path / "state.db")), SqliteStore)
    pytest.importorskip("redis", reason="the library `redis` is not installed")
    assert isinstance(open_store("rediss://cache.example:6380/1"), RedisStore)
    assert isinstance(open_store("redis+cluster://cache.example"), RedisStore)


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (" ", "a store has a name; give a path or a Redis URL, or leave `store` out"),
        (
            "postgres://joe:hunter2@db/x",
            "no store is of the kind `postgres`; give a path, or one of redis://, rediss://, unix://,"
            " redis+cluster://, rediss+cluster://",
        ),
    ],
)
def test_what_names_no_store_is_refused(target: str, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        check_target(target)
    assert str(raised.value) == message


def test_a_store_in_memory_loads_neither_database() -> None:
    code = "import sys; from cpex.builtins.store.opening import open_store; open_store(None);"
    code += "print([name for name in ('sqlite3', 'redis') if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == "[]\n"


def test_a_store_serves_one_event_loop_after_another(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "state.db"))

    async def count() -> int:
        value = (await store.add("a", 1, now_s=0)).value
        await store.close()
        return value

    assert [asyncio.run(count()) for _ in range(2)] == [1, 2]
