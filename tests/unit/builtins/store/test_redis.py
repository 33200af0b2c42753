from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from redis_servers import RedisServer, free_port, running_redis

from cpex.builtins.store.port import StoreError
from cpex.builtins.store.redis import RedisStore


async def test_a_server_that_is_away_is_an_error_without_credentials_and_comes_back() -> None:
    with running_redis() as server:
        store = RedisStore(f"redis://joe:hunter2@127.0.0.1:{server.port}/0?socket_timeout=5")
        server.kill()
        with pytest.raises(StoreError) as raised:
            await store.add("a", 1, now_s=0)
        assert str(raised.value).startswith(f"store `redis://127.0.0.1:{server.port}/0` did not answer: Error 111")
        store = RedisStore(f"redis://127.0.0.1:{server.port}/0")
        server.start()
        assert (await store.add("a", 1, now_s=0)).value == 1
        server.kill()
        server.start()
        assert (await store.add("a", 1, now_s=0)).value == 1, "the broken connection is replaced within the call"
        await store.close()


async def test_what_must_not_be_done_twice_is_not_sent_twice() -> None:
    with running_redis() as server:
        store = RedisStore(server.fresh_url())
        added = await store.add("a", 1, now_s=0)
        server.kill()
        server.start()
        with pytest.raises(StoreError):
            await store.subtract("a", 1, generation=added.generation, now_s=0)
        assert (await store.add("a", 1, now_s=0)).accepted
        await store.close()


async def test_a_server_that_does_not_answer_is_an_error_in_time(redis_server: RedisServer) -> None:
    busy, store = RedisStore(redis_server.fresh_url()), RedisStore(redis_server.fresh_url(), timeout_s=0.1)
    await busy._connected().execute_command("CLIENT", "PAUSE", 30_000, "WRITE")
    with pytest.raises(StoreError, match="did not answer: Timeout"):
        await store.add("a", 1, now_s=0)
    await busy._connected().execute_command("CLIENT", "UNPAUSE")
    await busy.close()
    await store.close()


async def test_keys_carry_a_hash_tag_and_leave_in_time(redis_server: RedisServer) -> None:
    store = RedisStore(redis_server.fresh_url(), prefix="mine")
    await store.add("a", 1, now_s=0, ttl_s=100)
    await store.add("b", 1, now_s=0)
    client = store._connected()
    assert sorted(await client.keys("*")) == ["mine:c:{a}", "mine:c:{b}"]
    assert 100_000 < await client.pttl("mine:c:{a}") <= 160_000
    assert await client.pttl("mine:c:{b}") == -1
    await store.close()


async def test_a_server_is_reached_over_a_unix_socket(tmp_path: Path) -> None:
    with running_redis("--unixsocket", str(tmp_path / "redis.sock")):
        store = RedisStore(f"unix://{tmp_path}/redis.sock")
        assert (await store.add("a", 1, now_s=0)).value == 1
        await store.close()


async def test_a_password_is_used_and_its_absence_is_an_error() -> None:
    with running_redis("--requirepass", "hunter2") as server:
        store = RedisStore(f"redis://:hunter2@127.0.0.1:{server.port}")
        assert (await store.add("a", 1, now_s=0)).value == 1
        await store.close()
        store = RedisStore(f"redis://127.0.0.1:{server.port}")
        with pytest.raises(StoreError, match="authenticat"):
            await store.add("a", 1, now_s=0)
        await store.close()


async def test_a_cluster_keeps_every_kind_of_state() -> None:
    # By default the bus takes the port's number and 10,000, which may be no port at all.
    bus = ["--cluster-port", str(free_port())]
    with running_redis("--cluster-enabled", "yes", "--databases", "1", *bus) as server:
        server.form_cluster()
        store = RedisStore(f"redis+cluster://127.0.0.1:{server.port}")
        for key in "abc":
            assert (await store.add(key, 2, now_s=0)).value == 2
            assert await store.compare_and_set(key, None, "text", now_s=0)
            assert await store.get(key, now_s=0) == "text"
        await store.close()


async def test_tls_is_checked_against_the_given_authority(tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path)
    options = ["--port", "0", "--tls-cert-file", certificate, "--tls-key-file", key, "--tls-auth-clients", "no"]
    with running_redis(*options, tls=True) as server:
        url = f"rediss://127.0.0.1:{server.port}/0"
        store = RedisStore(f"{url}?ssl_ca_certs={certificate}")
        assert (await store.add("a", 1, now_s=0)).value == 1
        await store.close()
        store = RedisStore(url)
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
