"""How large a payload is: the one byte budget of a hook call.

The content of a payload is the UTF-8 bytes of all strings in it (keys included), the length of byte strings, and eight
bytes for every other scalar, which every object is that is neither a container, a model nor a dataclass. Structure
costs nothing, and a container that appears twice counts once.
"""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Iterable
from dataclasses import is_dataclass
from itertools import chain
from types import SimpleNamespace
from typing import Any

from pydantic import BaseModel, SecretStr

from cpex.framework.models.contents import attributes_of

SCALAR_BYTES = 8
"""What every scalar that is not text costs."""
PROTOCOL = 5
"""Of the dumps that are measured; the first that writes sets and byte arrays as plain data."""
_NUMBERS = frozenset({int, float, bool, type(None)})


def fits(content: Any, limit: int) -> bool:
    """Whether the content is within `limit` bytes.

    The interpreter's own serialiser writes at least one byte for every eight that we count, so a small enough dump
    answers at C speed. Only what may be too large is counted exactly.
    """
    dump = _PlainDump(_Allowance(limit // SCALAR_BYTES), PROTOCOL)
    # Repeated objects are written in full, as repeated texts are counted. Structure that repeats itself many times over
    # would be written without end, but for the allowance.
    dump.fast = True
    try:
        dump.dump(content)
    # Too much, not plain data, cyclic, or nested too deeply for the serialiser.
    except (_NotTold, ValueError, RecursionError):
        return content_bytes(content, stop_after=limit) <= limit
    return True


class _NotTold(Exception):
    """The dump does not tell whether the content fits."""


class _PlainDump(pickle.Pickler):
    """Dumps plain data only: the code of foreign objects is not run for a question of size."""

    def reducer_override(self, obj: Any) -> Any:
        raise _NotTold


class _Allowance:
    """A file that takes so many bytes, forgets them, and refuses the rest."""

    __slots__ = ("_left",)

    def __init__(self, size: int) -> None:
        self._left = size

    def write(self, data: Any) -> int:
        self._left -= len(data)
        if self._left < 0:
            raise _NotTold
        return len(data)


def content_bytes(content: Any, stop_after: int | None = None) -> int:
    """Count the bytes of content exactly; with `stop_after`, give up as soon as the count is beyond it."""
    total = 0
    todo: list[Iterable[Any]] = [(content,)]
    # INVARIANT: every container is entered once, so that cycles end and shared structure cannot multiply.
    entered: set[int] = set()
    while todo:
        for item in todo.pop():
            kind = type(item)
            if kind is str:
                total += len(item) if item.isascii() else _text_bytes(item)
            elif kind in _NUMBERS:
                total += SCALAR_BYTES
            elif (inner := _inside(item)) is None:
                total += _scalar_bytes(item)
            elif id(item) not in entered:
                entered.add(id(item))
                todo.append(inner)
        if stop_after is not None and total > stop_after:
            return total
    return total


def _text_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def _scalar_bytes(item: Any) -> int:
    if isinstance(item, str):
        return _text_bytes(item)
    if isinstance(item, bytes | bytearray | memoryview):
        return len(item)
    if isinstance(item, SecretStr):
        return _text_bytes(item.get_secret_value())
    return SCALAR_BYTES


def _inside(item: Any) -> Iterable[Any] | None:
    """What a container holds, or `None` for a scalar."""
    if isinstance(item, dict):
        return chain(item, item.values())
    if isinstance(item, list | tuple | set | frozenset | deque):
        return item
    if isinstance(item, BaseModel):
        return chain(item.__dict__.values(), (item.__pydantic_extra__ or {}).values())
    if (is_dataclass(item) and not isinstance(item, type)) or isinstance(item, SimpleNamespace):
        # Declared to be data. What other objects refer to may be the whole program.
        return attributes_of(item).values()
    return None
