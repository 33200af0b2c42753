from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis_servers import RedisCluster, RedisServer, running_cluster, running_redis

from cpex.builtins.store.memory import MemoryStore
from cpex.builtins.store.port import Store
from cpex.builtins.store.redis import RedisStore
from cpex.builtins.store.sqlite import SqliteStore


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A server of our own, for the whole run."""
    with running_redis() as server:
        yield server


@pytest.fixture(scope="session")
def valkey_server() -> Iterator[RedisServer]:
    """The same, of the other make."""
    with running_redis(program="valkey-server") as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """A cluster of our own, for the whole run; nobody may harm it."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(params=["memory", "sqlite", "redis", "valkey", "cluster"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    """Each implementation in turn, empty."""
    made: Store
    if request.param in ("redis", "valkey"):
        made = RedisStore(request.getfixturevalue(f"{request.param}_server").fresh_url(), timeout_s=60)
    elif request.param == "cluster":
        cluster: RedisCluster = request.getfixturevalue("redis_cluster")
        made = RedisStore(cluster.url, prefix=cluster.fresh_prefix(), timeout_s=60)
    else:
        made = MemoryStore() if request.param == "memory" else SqliteStore(tmp_path / "state.db")
    yield made
    await made.close()
