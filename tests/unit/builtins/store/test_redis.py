from __future__ import annotations

import asyncio
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from redis_servers import PROGRAMS, RedisServer, running_cluster, running_redis

from cpex.builtins.store.port import Rate, StoreError
from cpex.builtins.store.redis import RedisStore

on_each_make = pytest.mark.parametrize("program", PROGRAMS)


@on_each_make
async def test_a_server_that_is_away_is_an_error_without_credentials_and_comes_back(program: str) -> None:
    with running_redis(program=program) as server:
        store = RedisStore(f"redis://joe:hunter2@127.0.0.1:{server.port}/0?socket_timeout=60")
        server.kill()
        with pytest.raises(StoreError) as raised:
            await store.add("a", 1, now_s=0)
        assert str(raised.value).startswith(f"store `redis://127.0.0.1:{server.port}/0` did not answer: Error 111")
        store = RedisStore(f"redis://127.0.0.1:{server.port}/0", timeout_s=60)
        server.start()
        assert (await store.add("a", 1, now_s=0)).value == 1
        server.kill()
        server.start()
        assert (await store.add("a", 1, now_s=0)).value == 1, "the broken connection is replaced within the call"
        await store.close()


@on_each_make
async def test_what_must_not_be_done_twice_is_not_sent_twice(program: str) -> None:
    with running_redis(program=program) as server:
        store = RedisStore(server.fresh_url(), timeout_s=60)
        added = await store.add("a", 1, now_s=0)
        server.kill()
        server.start()
        with pytest.raises(StoreError):
            await store.subtract("a", 1, generation=added.generation, now_s=0)
        assert (await store.add("a", 1, now_s=0)).accepted
        await store.close()


async def test_a_server_that_does_not_answer_is_an_error_in_time(redis_server: RedisServer) -> None:
    busy, store = (RedisStore(redis_server.fresh_url(), timeout_s=seconds) for seconds in (60, 0.1))
    await busy._connected().execute_command("CLIENT", "PAUSE", 30_000, "WRITE")
    with pytest.raises(StoreError, match="did not answer: Timeout"):
        await store.add("a", 1, now_s=0)
    await busy._connected().execute_command("CLIENT", "UNPAUSE")
    await busy.close()
    await store.close()


async def test_keys_carry_a_hash_tag_and_leave_in_time(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.fresh_url(), prefix="mine", timeout_s=60)
    await store.add("a", 1, now_s=0, ttl_s=100)
    await store.add("b", 1, now_s=0)
    client = store._connected()
    assert sorted(await client.keys("*")) == ["mine:c:{a}", "mine:c:{b}"]
    assert 100_000 < await client.pttl("mine:c:{a}") <= 160_000
    assert await client.pttl("mine:c:{b}") == -1
    await store.close()


@on_each_make
async def test_a_server_is_reached_over_a_unix_socket(program: str, tmp_path: Path) -> None:
    with running_redis("--unixsocket", str(tmp_path / "redis.sock"), program=program):
        store = RedisStore(f"unix://{tmp_path}/redis.sock", timeout_s=60)
        assert (await store.add("a", 1, now_s=0)).value == 1
        await store.close()


@on_each_make
async def test_a_password_is_used_and_its_absence_is_an_error(program: str) -> None:
    with running_redis("--requirepass", "hunter2", program=program) as server:
        store = RedisStore(f"redis://:hunter2@127.0.0.1:{server.port}", timeout_s=60)
        assert (await store.add("a", 1, now_s=0)).value == 1
        await store.close()
        store = RedisStore(f"redis://127.0.0.1:{server.port}", timeout_s=60)
        with pytest.raises(StoreError, match="authenticat"):
            await store.add("a", 1, now_s=0)
        await store.close()


@on_each_make
async def test_a_cluster_goes_on_when_a_node_dies(program: str) -> None:
    with running_cluster(program) as cluster:
        store = RedisStore(cluster.url, timeout_s=60)
        keys = [f"key {number}" for number in range(12)]
        for key in keys:
            assert (await store.add(key, 1, now_s=0)).value == 1
        masters = {(await store._connected()).get_node_from_key(f"cpex:c:{{{key}}}").port for key in keys}
        assert masters == {master.port for master in cluster.masters}, "the keys lie on all nodes"
        cluster.await_replication()
        cluster.masters[0].kill()
        cluster.await_failover()
        for key in keys:
            assert await _answer(store, key) == 2, "the replica had every count, and took its master's place"
        cluster.masters[2].kill()
        answers = [await _either(store, key) for key in keys]
        assert {type(answer) for answer in answers} == {int, StoreError}, (
            "without a replica its keys are away, no others"
        )
        cluster.masters[2].start()
        assert [await _answer(store, key) >= 1 for key in keys] == [True] * len(keys)
        await store.close()


@on_each_make
async def test_tasks_are_served_while_keys_move_to_another_node(program: str) -> None:
    with running_cluster(program) as cluster:
        store = RedisStore(cluster.url, timeout_s=60)
        keys = [f"key {number}" for number in range(12)]
        assert (await store.take("warm", Rate(1, 1), now_s=0)).accepted
        for key in keys:
            cluster.give(f"cpex:b:{{{key}}}", cluster.masters[2])
        takes = [store.take(key, Rate.per_minute(1, 3), now_s=0) for key in keys * 5]
        answers = await asyncio.gather(*takes)
        assert sum(answer.accepted for answer in answers) == 3 * len(keys)
        await store.close()


async def _either(store: RedisStore, key: str) -> int | StoreError:
    try:
        return (await store.add(key, 1, now_s=0)).value
    except StoreError as error:
        return error


async def _answer(store: RedisStore, key: str) -> int:
    """What the store counts, as soon as it answers: a client learns of another node by asking the wrong one."""
    deadline_s = time.monotonic() + 240
    while True:
        answer = await _either(store, key)
        if isinstance(answer, int):
            return answer
        assert time.monotonic() < deadline_s, answer


@on_each_make
async def test_tls_is_checked_against_the_given_authority(program: str, tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    options = ["--port", "0", "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no"]
    with running_redis(*options, tls=True, program=program) as server:
        url = f"rediss://127.0.0.1:{server.port}/0"
        store = RedisStore(f"{url}?ssl_ca_certs={certificate}", timeout_s=60)
        assert (await store.add("a", 1, now_s=0)).value == 1
        await store.close()
        store = RedisStore(url, timeout_s=60)
        with pytest.raises(StoreError, match="certificate verify failed"):
            await store.add("a", 1, now_s=0)
        await store.close()


def _certificate(directory: Path) -> tuple[str, str]:
    if shutil.which("openssl") is None:
        pytest.skip("`openssl` is not installed")
    certificate, key = str(directory / "server.crt"), str(directory / "server.key")
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", "-x509", "-days", "2", *made, *name], check=True, capture_output=True)
    return certificate, key


def test_without_the_library_the_message_names_the_extra() -> None:
    # A module that is `None` in `sys.modules` is one that cannot be imported; a fresh interpreter spares the others.
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from cpex.builtins.store.redis import RedisStore\n"
        "try: RedisStore('redis://localhost')\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == (
        "a store in Redis needs the library `redis`; install it with `pip install 'cpex[redis]'`\n"
    ), run.stderr
