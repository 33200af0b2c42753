"""Limits on what execution records may hold.

Hosts know these names, underscores included, as names of `cpex.framework.models`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MAX_STRING_LEN = 256
"""UTF-8 bytes."""
_MAX_CONFIG_KEYS = 64
_ELLIPSIS = "…"


def _truncate(s: str, max_len: int = _MAX_STRING_LEN) -> str:
    """Cut a text to at most `max_len` UTF-8 bytes, a closing `…` included; never inside a character."""
    # Lone surrogates, which UTF-8 cannot express, must not make a record fail: they become question marks.
    data = s.encode("utf-8", "replace")
    if len(data) <= max_len:
        return data.decode("utf-8")
    room = max_len - len(_ELLIPSIS.encode())
    return data[: max(0, room)].decode("utf-8", "ignore") + _ELLIPSIS


def _truncate_opt(s: str | None) -> str | None:
    """As `_truncate`; `None` stays `None`."""
    return None if s is None else _truncate(s)


def _collect_config_keys(config: Mapping[Any, Any] | None) -> list[str]:
    """The first 64 names of a plugin's settings, each cut; never a value."""
    return [_truncate(str(key)) for key in list(config or ())[:_MAX_CONFIG_KEYS]]
