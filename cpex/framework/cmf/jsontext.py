"""JSON of values that may be no JSON.

Arguments and results are whatever a host put into a message: dates, bytes, objects, structures that contain themselves.
Both functions give an answer for all of them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Set
from enum import Enum
from typing import Any

from pydantic import BaseModel

__all__ = ["MAX_DEPTH", "json_ready", "json_text"]

MAX_DEPTH = 100
"""Levels of nesting that are converted; what is deeper becomes text."""


def json_text(value: Any, *, ensure_ascii: bool = True) -> str:
    """The JSON of a value as `json.dumps` writes it, or its `str()` when it has none. Never raises.

    Args:
        ensure_ascii: Whether `é` is written as an escape.
    """
    try:
        return json.dumps(value, ensure_ascii=ensure_ascii)
    # The value's own code may run here, and no value may stop a scan.
    except Exception:
        return _plain_text(value)


def json_ready(value: Any) -> Any:
    """A copy of a value that every JSON writer takes; JSON values stay as they are. Never raises.

    Models become dicts, sets and tuples lists; bytes, everything unknown and numbers that JSON cannot write (`nan`,
    infinities) become text.
    """
    return _ready(value, MAX_DEPTH)


def _ready(value: Any, depth: int) -> Any:
    if value is None or type(value) in (bool, int, str):
        return value
    if isinstance(value, Enum):
        return _ready(value.value, depth - 1) if depth else _plain_text(value)
    if isinstance(value, str | int | float):
        return _scalar(value)
    if depth == 0:
        # A structure that contains itself ends here too.
        return f"<{type(value).__name__}>"
    if isinstance(value, BaseModel):
        value = value.__dict__
    if isinstance(value, Mapping):
        return {_key(key): _ready(item, depth - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_ready(item, depth - 1) for item in value]
    if isinstance(value, Set):
        return [_ready(item, depth - 1) for item in sorted(value, key=_plain_text)]
    if isinstance(value, bytes | bytearray):
        return bytes(value).decode("utf-8", errors="backslashreplace")
    return _plain_text(value)


def _scalar(value: str | int | float) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else _plain_text(value)
    return str(value) if isinstance(value, str) else int(value)


def _key(key: Any) -> str:
    """A key as `json.dumps` writes it, and text for what it refuses."""
    if isinstance(key, Enum):
        key = key.value
    if isinstance(key, str):
        return str(key)
    return json_text(key) if key is None or isinstance(key, bool | int | float) else _plain_text(key)


def _plain_text(value: Any) -> str:
    try:
        return str(value)
    # A foreign object's own code runs here; deep nesting and very long numbers end here too.
    except Exception:
        return f"<{type(value).__name__}>"
