"""How large a payload is: the one byte budget of a hook call.

The content of a payload is the UTF-8 bytes of all strings in it (keys included), the length of byte strings, and eight
bytes for every other scalar. Structure costs nothing, and a container that appears twice counts once.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable
from itertools import chain
from typing import Any

from pydantic import BaseModel, SecretStr

SCALAR_BYTES = 8
"""What every scalar that is not text costs."""
_NUMBERS = frozenset({int, float, bool, type(None)})


def fits(content: Any, limit: int) -> bool:
    """Whether the content is within `limit` bytes.

    The interpreter's own serialiser writes at least one byte for every eight that we count, so a small enough dump
    answers at C speed. Only what may be too large is counted exactly.
    """
    try:
        # Version 2 writes repeated objects in full, as we count them; later versions write references.
        if SCALAR_BYTES * len(marshal.dumps(content, 2)) <= limit:
            return True
    except ValueError:
        # Something that is not plain data, or nested too deeply for the serialiser.
        pass
    return content_bytes(content, stop_after=limit) <= limit


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
    if isinstance(item, list | tuple | set | frozenset):
        return item
    if isinstance(item, BaseModel):
        return chain(item.__dict__.values(), (item.__pydantic_extra__ or {}).values())
    return None
