"""What of a payload goes on record: all of it as plain JSON, chosen parts, or only its outline."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any
from uuid import UUID

from pydantic import BaseModel, RootModel, SecretBytes, SecretStr

from cpex.framework.secrets import MASK, SECRET_KEYS, is_secret_key, normal_key

MAX_DEPTH = 32
MAX_INT_BITS = 1024
OUTLINE_KEYS = 64
"""How many names of one object an outline lists."""

_NODE_COST = 2
_AS_TEXT = (datetime, date, time, Decimal, UUID, PurePath)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{0,63}\Z")


class TooLarge(Exception):
    """A value does not fit the number of bytes that it may take."""


def plain(value: Any, *, max_bytes: int, secret_keys: Set[str] = SECRET_KEYS) -> Any:
    """Anything as plain JSON: dicts with string keys, lists, strings, finite numbers, booleans and `None`.

    Values under secret keys, and secret types, become a fixed mask. What has no JSON form becomes `<its type>`.

    Args:
        max_bytes: Bound on the UTF-8 bytes of all text plus a little for each value. The walk stops there.
        secret_keys: In the form of `normal_key`.

    Raises:
        TooLarge: The bound was reached.
    """
    return _Walk(max_bytes, secret_keys).convert(value, 0)


class _Walk:
    def __init__(self, max_bytes: int, secret_keys: Set[str]) -> None:
        self._left = max_bytes
        self._secret_keys = secret_keys

    def _spend(self, count: int) -> None:
        self._left -= count
        if self._left < 0:
            raise TooLarge

    def convert(self, value: Any, depth: int) -> Any:
        self._spend(_NODE_COST)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, Enum):
            return self.convert(value.value, depth)
        if isinstance(value, str):
            self._spend(len(value.encode("utf-8", "backslashreplace")))
            return str(value)
        if isinstance(value, int):
            return int(value) if value.bit_length() <= MAX_INT_BITS else f"<int of {value.bit_length()} bits>"
        if isinstance(value, float):
            return float(value) if math.isfinite(value) else repr(float(value))
        return self._convert_other(value, depth)

    def _convert_other(self, value: Any, depth: int) -> Any:
        if isinstance(value, SecretStr | SecretBytes):
            return MASK
        if isinstance(value, bytes | bytearray | memoryview):
            return f"<{len(value)} bytes>"
        if isinstance(value, _AS_TEXT):
            return self.convert(str(value), depth)
        if depth >= MAX_DEPTH:
            return "<nested too deeply>"
        if isinstance(value, RootModel):
            return self.convert(value.root, depth)
        if (members := _members(value)) is not None:
            return {key: self._convert_member(key, each, depth) for key, each in members}
        if isinstance(value, Sequence | Set):
            return [self.convert(each, depth + 1) for each in value]
        return f"<{type(value).__name__}>"

    def _convert_member(self, key: str, value: Any, depth: int) -> Any:
        self._spend(len(key))
        if value is not None and (normal_key(key) in self._secret_keys or _is_secret_text(key, value)):
            return MASK
        return self.convert(value, depth + 1)


def _is_secret_text(key: str, value: Any) -> bool:
    """Whether a name that holds the name of a secret, as `delegated_token` does, stands for text. A count is none."""
    return isinstance(value, str | bytes) and is_secret_key(key)


def _members(value: Any) -> Iterator[tuple[str, Any]] | None:
    """Names and values of anything that reads as a JSON object, else `None`."""
    if isinstance(value, Mapping):
        return ((_key(key), each) for key, each in value.items())
    if isinstance(value, BaseModel):
        names = (*type(value).model_fields, *(value.model_extra or ()))
        return ((name, getattr(value, name)) for name in names)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return ((each.name, getattr(value, each.name)) for each in dataclasses.fields(value))
    return None


def _key(key: Any) -> str:
    return str(key) if isinstance(key, str | int | float | bool | None) else f"<{type(key).__name__}>"


def select(tree: Any, paths: Iterable[Sequence[str]]) -> Any:
    """The parts of a plain JSON tree that lie on or below one of the paths; `None` when there are none.

    A path is a list of keys, `*` standing for any key. Lists are passed through: a path goes on in each element.
    """
    wanted = list(paths)
    if any(not path for path in wanted):
        return tree
    if isinstance(tree, list):
        return [found for each in tree if (found := select(each, wanted)) is not None] or None
    if not isinstance(tree, dict):
        return None
    chosen = {}
    for key, value in tree.items():
        rest = [path[1:] for path in wanted if path[0] in (key, "*")]
        if rest and (found := select(value, rest)) is not None:
            chosen[key] = found
    return chosen or None


def outline(value: Any) -> Any:
    """The shape of a payload: names of its fields and of the keys below them, and words for their types. No values.

    SECURITY: a key may itself be data (`{"ann@example.com": …}`). Only keys that look like identifiers are written; the
    others are counted under `*`.
    """
    members = _members(value.root if isinstance(value, RootModel) else value)
    if members is None:
        return _word(value)
    return {key: _outline_member(each) for key, each in members}


def _outline_member(value: Any) -> Any:
    members = _members(value.root if isinstance(value, RootModel) else value)
    if members is None:
        return _word(value)
    listed: dict[str, Any] = {}
    others = 0
    for key, each in members:
        if len(listed) < OUTLINE_KEYS and _IDENTIFIER.match(key):
            listed[key] = _word(each)
        else:
            others += 1
    return {**listed, "*": others} if others else listed


def _word(value: Any) -> str:
    """The JSON type of a value, with the number of elements of an array or object."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, str):
        return "string"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, Mapping):
        return f"object[{len(value)}]"
    if isinstance(value, Sequence | Set) and not isinstance(value, bytes | bytearray):
        return f"array[{len(value)}]"
    return "object" if isinstance(value, BaseModel) else f"<{type(value).__name__}>"
