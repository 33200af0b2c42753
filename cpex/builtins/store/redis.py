"""The store of many machines: a Redis or Valkey server, or a cluster of them.

Each operation is one Lua script on one key, so it is atomic without locks and stays on one node of a cluster; the part
of the key in braces decides on which. Expiry goes by the time that callers pass. The server's own clock only clears
away what has long expired.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from cpex.builtins.store import scripts
from cpex.builtins.store.entries import microseconds, new_generation, refused_for, seconds_left
from cpex.builtins.store.port import US_PER_S, Count, Rate, StoreError, Taken

__all__ = ["RedisStore"]

_CLUSTER = "+cluster"
_MAY_BE_REPEATED = frozenset({scripts.ADD, scripts.TAKE, scripts.TAKE_SLOT, scripts.MEMBERS, scripts.GET})
"""Operations that, done twice, make no limit larger and answer no question wrongly."""


class RedisStore:
    """Keeps state in Redis or Valkey, under `prefix:kind:{key}`.

    When a connection breaks, additions, takes and reads are sent once more, on a fresh one; nothing else is. So a count
    may come out too high, and a limit too strict, never the other way.
    """

    def __init__(self, url: str, *, prefix: str = "cpex", timeout_s: float = 1.0) -> None:
        """Name the server.

        Args:
            url: `redis://`, `rediss://` (TLS) or `unix://`, with what redis-py takes in the query, such as
                `ssl_ca_certs`; `redis+cluster://` and `rediss+cluster://` for a cluster.
            timeout_s: For connecting, and for each answer; `socket_timeout` in the URL's query goes before it.

        Raises:
            ModuleNotFoundError: The library is not installed; the message names the extra.
            ValueError: The URL cannot be read.
        """
        try:
            self._redis: Any = import_module("redis.asyncio")
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "a store in Redis needs the library `redis`; install it with `pip install 'cpex[redis]'`", name="redis"
            ) from error
        try:
            import_module("redis.asyncio.connection").parse_url(url.replace(_CLUSTER, "", 1))
        except ValueError:
            # SECURITY: the parser's message quotes what it took for a port, which may be half of a password.
            raise ValueError(
                "the URL of the store cannot be read; write `redis://user:password@host:port/database`,"
                " with special characters percent-encoded"
            ) from None
        self._url = url
        self._prefix = prefix
        self._timeout_s = timeout_s
        self._client: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def close(self) -> None:
        """Close all connections."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.aclose()

    async def add(
        self, key: str, amount: int, *, now_s: float, limit: int | None = None, ttl_s: float | None = None
    ) -> Count:
        """See `Store.add`."""
        now_us = microseconds(now_s)
        arguments = (amount, _or_none(limit), now_us, _duration(ttl_s), new_generation())
        accepted, value, generation, expires_us = await self._run(scripts.ADD, "c", key, *arguments)
        return Count(accepted == 1, value, generation, seconds_left(None if expires_us < 0 else expires_us, now_us))

    async def subtract(self, key: str, amount: int, *, generation: str, now_s: float) -> bool:
        """See `Store.subtract`."""
        return bool(await self._run(scripts.SUBTRACT, "c", key, amount, generation, microseconds(now_s)))

    async def take(self, key: str, rate: Rate, *, now_s: float, amount: int = 1) -> Taken:
        """See `Store.take`."""
        cost_us, capacity_us = amount * rate.interval_us, rate.capacity * rate.interval_us
        arguments = (cost_us, capacity_us, microseconds(now_s))
        filling_us, over_us = await self._run(scripts.TAKE, "b", key, *arguments)
        return Taken(
            over_us <= 0,
            remaining=max(0, (capacity_us - filling_us) // rate.interval_us),
            retry_after_s=0.0 if over_us <= 0 else refused_for(over_us, cost_us, capacity_us),
            full_after_s=filling_us / US_PER_S,
        )

    async def take_slot(self, key: str, *, limit: int, window_s: float, now_s: float) -> Taken:
        """See `Store.take_slot`."""
        arguments = (limit, microseconds(window_s), microseconds(now_s), new_generation())
        accepted, remaining, wait_us, full_us = await self._run(scripts.TAKE_SLOT, "w", key, *arguments)
        return Taken(accepted == 1, remaining, None if wait_us < 0 else wait_us / US_PER_S, full_us / US_PER_S)

    async def put_member(self, key: str, member: str, *, now_s: float, ttl_s: float | None = None) -> bool:
        """See `Store.put_member`."""
        return bool(await self._run(scripts.PUT, "s", key, member, _duration(ttl_s), microseconds(now_s)))

    async def drop_member(self, key: str, member: str, *, now_s: float) -> bool:
        """See `Store.drop_member`."""
        return bool(await self._run(scripts.DROP, "s", key, member, microseconds(now_s)))

    async def members(self, key: str, *, now_s: float) -> frozenset[str]:
        """See `Store.members`."""
        return frozenset(await self._run(scripts.MEMBERS, "s", key, microseconds(now_s)))

    async def get(self, key: str, *, now_s: float) -> str | None:
        """See `Store.get`."""
        found = await self._run(scripts.GET, "v", key, microseconds(now_s))
        return None if found is None else str(found)

    async def compare_and_set(
        self, key: str, expected: str | None, value: str | None, *, now_s: float, ttl_s: float | None = None
    ) -> bool:
        """See `Store.compare_and_set`."""
        arguments = (*_optional(expected), *_optional(value), _duration(ttl_s), microseconds(now_s))
        return bool(await self._run(scripts.COMPARE_AND_SET, "v", key, *arguments))

    async def _run(self, script: str, kind: str, key: str, *arguments: int | str) -> Any:
        # The text goes along each time: a server that was replaced or restarted does not know it by its digest.
        command = (script, 1, f"{self._prefix}:{kind}:{{{key}}}", *arguments)
        try:
            try:
                return await self._connected().eval(*command)
            except import_module("redis").ConnectionError:
                # Most likely the server closed an idle connection; the pool does not notice before it is used.
                if script not in _MAY_BE_REPEATED:
                    raise
                return await self._connected().eval(*command)
        except (import_module("redis").RedisError, OSError, TimeoutError) as error:
            raise StoreError(
                f"store `{_address(self._url)}` did not answer: {str(error) or type(error).__name__}"
            ) from error

    def _connected(self) -> Any:
        loop = asyncio.get_running_loop()
        # Connections belong to the loop that opened them; a plugin may outlive a loop, as in tests and after a fork.
        if self._client is None or self._loop is not loop:
            self._client, self._loop = self._connect(), loop
        return self._client

    def _connect(self) -> Any:
        # The library would send anything again, and so make a refund twice.
        once = import_module("redis.asyncio.retry").Retry(import_module("redis.backoff").NoBackoff(), 0)
        options: dict[str, Any] = {
            "retry": once,
            "decode_responses": True,
            "socket_timeout": self._timeout_s,
            "socket_connect_timeout": self._timeout_s,
        }
        if urlsplit(self._url).scheme.endswith(_CLUSTER):
            # When keys move, the library would close all connections now and then, those that others wait on, too.
            options["reinitialize_steps"] = 0
            return self._redis.RedisCluster.from_url(self._url.replace(_CLUSTER, "", 1), **options)
        return self._redis.Redis.from_url(self._url, **options)


def _address(url: str) -> str:
    """A URL without user, password and query."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{place}{parts.path}"


def _or_none(number: int | None) -> int:
    """A number for a script, where -1 stands for none."""
    return -1 if number is None else number


def _duration(seconds: float | None) -> int:
    return -1 if seconds is None else microseconds(seconds)


def _optional(text: str | None) -> tuple[int, str]:
    return (0, "") if text is None else (1, text)
