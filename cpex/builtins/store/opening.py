"""From what a configuration says to a store: nothing, a path, or a URL."""

from __future__ import annotations

from urllib.parse import urlsplit

from cpex.builtins.store.memory import MemoryStore
from cpex.builtins.store.port import Store

__all__ = ["check_target", "open_store", "store_kind"]

_REDIS = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster")


def check_target(target: str) -> str:
    """The target, if it names a kind of store that there is.

    Raises:
        ValueError: It is blank, or a URL of another kind.
    """
    if not target.strip():
        raise ValueError("a store has a name; give a path or a Redis URL, or leave `store` out")
    if "://" in target and urlsplit(target).scheme not in _REDIS:
        known = ", ".join(f"{scheme}://" for scheme in _REDIS)
        raise ValueError(f"no store is of the kind `{target.partition(':')[0]}`; give a path, or one of {known}")
    return target


def store_kind(target: str | None) -> str:
    """What kind of store a configuration names: `memory`, `sqlite`, `redis` or `redis-cluster`."""
    if target is None:
        return "memory"
    scheme, separator, _ = target.partition("://")
    if not separator:
        return "sqlite"
    return "redis-cluster" if scheme.endswith("+cluster") else "redis"


def open_store(target: str | None, *, max_entries: int = 100_000) -> Store:
    """The store that a configuration names; it connects on first use.

    Args:
        target: `None` is this process's memory, a `redis://`, `rediss://` or `unix://` URL a server, with `+cluster` a
            cluster; anything else is the path of an SQLite file.
        max_entries: What a store in memory keeps.

    Raises:
        ValueError: The URL is of no known kind, or the file's directory does not exist.
        ModuleNotFoundError: The library for this kind is not installed; the message names the extra.
    """
    if target is None:
        return MemoryStore(max_entries=max_entries)
    if "://" in check_target(target):
        from cpex.builtins.store.redis import RedisStore

        return RedisStore(target)
    from cpex.builtins.store.sqlite import SqliteStore

    return SqliteStore(target)
