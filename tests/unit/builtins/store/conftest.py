from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis_servers import RedisServer, running_redis

from cpex.builtins.store.memory import MemoryStore
from cpex.builtins.store.port import Store
from cpex.builtins.store.redis import RedisStore
from cpex.builtins.store.sqlite import SqliteStore


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A server of our own, for the whole run."""
    with running_redis() as server:
        yield server


@pytest.fixture(params=["memory", "sqlite", "redis"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each implementation in turn, empty."""
    if request.param == "redis":
        made: Store = RedisStore(request.getfixturevalue("redis_server").fresh_url())
    else:
        made = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "state.db")
    yield made
    await made.close()
