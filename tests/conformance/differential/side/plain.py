"""Values of either package as plain JSON, so that they can be compared."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from enum import Enum
from typing import Any

from pydantic import BaseModel, SecretStr

LONGEST_TEXT = 300
"""Characters; longer texts are told apart by length and digest."""
TOMBSTONE = "<deleted>"
"""Stands in shared state for a key that a plugin deleted, where deletions cannot be told otherwise. Never shown."""


def plain(value: Any) -> Any:
    """The value as JSON knows it; sets are sorted, secrets are shown, entries that hold a tombstone are left out."""
    if isinstance(value, SecretStr):
        return plain(value.get_secret_value())
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, str):
        return _text(value)
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, BaseModel):
        return plain(value.model_dump())
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items() if each != TOMBSTONE}
    if isinstance(value, set | frozenset):
        return sorted((plain(each) for each in value), key=repr)
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    return f"<{type(value).__name__}>"


def _text(text: str) -> str:
    # A subclass of `str` may print as something else than it is.
    text = str.__str__(text)
    if len(text) <= LONGEST_TEXT:
        return text
    return f"<{len(text)} characters, {hashlib.sha256(text.encode()).hexdigest()[:12]}>"
