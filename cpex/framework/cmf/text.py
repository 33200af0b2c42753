"""Every text inside a message, wherever it is nested.

For plugins that scan: what a view shows as `content` leaves out names, descriptions, annotations, error texts, media
and the messages inside a prompt's result. `iter_text` leaves out nothing but ids and the names of kinds. Plugins that
put other texts in their place use `cpex.framework.cmf.rewrite`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Set
from types import SimpleNamespace
from typing import Any, NamedTuple

from pydantic import BaseModel

from cpex.framework.cmf.leaves import TextLeaf, below, fields_of, included, is_source, text_of

__all__ = ["TextLeaf", "iter_text"]


class _Todo(NamedTuple):
    value: Any
    path: str
    key: str
    is_name: bool = False


def iter_text(value: Any, path: str = "") -> Iterator[TextLeaf]:
    """Every text in a message, a part or any other value, in reading order, dict keys included.

    Numbers and objects that are no containers are given as their text. Bytes, base64 data and `data:` URLs that hold
    UTF-8 text are given as that text, a few other bytes in between as lone surrogates; base64 data and URLs as they
    stand, too. A container that occurs twice, or inside itself, is entered once. Nesting may be of any depth.

    Args:
        path: What the paths start with.
    """
    todo = [_Todo(value, path, "")]
    entered: dict[int, Any] = {}
    while todo:
        value, path, key, is_name = todo.pop()
        if (children := _children(value, path, key)) is None:
            if (text := text_of(value)) is not None:
                yield TextLeaf(path, text, value, key, is_name)
        elif id(value) not in entered:
            # Kept, not only remembered by its id: ids of what is gone are given out again.
            entered[id(value)] = value
            todo.extend(reversed(children))


def _children(value: Any, path: str, key: str) -> list[_Todo] | None:
    """What stands inside a value, in reading order; `None` when it is no container."""
    if isinstance(value, BaseModel):
        return _of_model(value, path)
    if isinstance(value, Mapping):
        return [child for name, item in value.items() for child in _of_entry(name, item, path, key)]
    if isinstance(value, list | tuple | Set):
        return [_Todo(item, f"{path}[{index}]", key) for index, item in enumerate(value)]
    if isinstance(value, SimpleNamespace):
        return [_Todo(item, below(path, name), name) for name, item in vars(value).items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [each.name for each in dataclasses.fields(value)]
        return [_Todo(getattr(value, name, None), below(path, name), name) for name in names]
    return None


def _of_model(model: BaseModel, path: str) -> list[_Todo]:
    children = [_Todo(field.value, below(path, field.name), field.name, field.is_name) for field in fields_of(model)]
    if is_source(model) and (data := included(model)):
        children.append(_Todo(data, f"{below(path, 'data')}[decoded]", "data"))
    return children


def _of_entry(name: Any, item: Any, path: str, key: str) -> Iterator[_Todo]:
    if isinstance(name, str):
        yield _Todo(name, f"{path}[key]", "")
    yield _Todo(item, below(path, name), name if isinstance(name, str) else key)
