"""A message with other texts in it, wherever they are nested.

The counterpart of `iter_text` for plugins that redact: the same walk, and what the plugin answers stands in the place
of what it was shown. Nothing is edited in place; what lies beside a change is shared with the original.
"""

from __future__ import annotations

import base64
import copy
import dataclasses
from collections.abc import Callable, Generator, Mapping, Set
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote

from pydantic import BaseModel

from cpex.framework.cmf.leaves import Source, TextLeaf, below, fields_of, included, is_source, text_of
from cpex.framework.cmf.message import ContentPart, Message, Resource
from cpex.framework.models.bytetext import bytes_of_text

__all__ = ["rewrite_text"]

Root = TypeVar("Root", bound=Message | ContentPart)


def rewrite_text(message: Root, change: Callable[[TextLeaf], str], *, keys: bool = True, names: bool = False) -> Root:
    """A message or part with each text replaced by what `change` makes of it; the same object when nothing changed.

    `change` is asked for each text that may be replaced, and gives the same text back where nothing is to change.
    Numbers and objects that are no containers are shown as their text; another answer is put there as text. Bytes,
    base64 data and `data:` URLs that hold text, as `iter_text` has it, are shown as that text and written back in their
    encoding; base64 data and URLs as they stand, too. A resource whose content changes loses the size it was said to
    have. Nesting may be of any depth.

    Args:
        keys: Whether keys of dicts are shown. Two that become the same are told apart by `#2`, `#3`, ...
        names: Whether texts with `is_name` are shown: a changed one calls or fetches something else.

    Raises:
        TypeError: `change` returned something else than a text.
        ValueError: There is something to change in a structure that contains itself.
    """
    rewritten: Root = _Rewriting(change, keys, names).run(message)
    return rewritten


class _Todo(NamedTuple):
    value: Any
    path: str
    key: str


Walk = Generator[_Todo, Any, Any]
"""Asks what becomes of the containers in a container, and returns what becomes of that one."""


class _Rewriting:
    """One run of `rewrite_text`."""

    def __init__(self, change: Callable[[TextLeaf], str], keys: bool, names: bool) -> None:
        self._change = change
        self._keys = keys
        self._names = names
        self._open: set[int] = set()
        self._done: dict[tuple[int, str], tuple[Any, Any]] = {}
        self._knot: str | None = None

    def run(self, root: Any) -> Any:
        """Walk with a stack in place of recursion: a message may be nested more deeply than calls may be."""
        walks = [self._walk(_Todo(root, "", ""))]
        answer: Any = None
        while walks:
            try:
                wanted = walks[-1].send(answer)
            except StopIteration as end:
                walks.pop()
                answer = end.value
            else:
                walks.append(self._walk(wanted))
                answer = None
        if self._knot is not None and answer is not root:
            # SECURITY: the way round the knot still leads to the old texts.
            raise ValueError(
                f"`{self._knot}` contains itself, so its texts cannot be replaced; pass it without the loop"
            )
        return answer

    def _walk(self, todo: _Todo) -> Walk:
        seen = (id(todo.value), todo.key)
        if seen in self._done:
            return self._done[seen][1]
        if id(todo.value) in self._open:
            self._knot = todo.path
            return todo.value
        self._open.add(id(todo.value))
        new = yield from self._inside(todo)
        self._open.discard(id(todo.value))
        # Kept with its value: ids of what is gone are given out again.
        self._done[seen] = (todo.value, new)
        return new

    def _inside(self, todo: _Todo) -> Walk:
        value, path, key = todo
        if isinstance(value, BaseModel):
            return (yield from self._model(value, path))
        if isinstance(value, Mapping):
            return (yield from self._mapping(value, path, key))
        if isinstance(value, list | tuple | Set):
            return (yield from self._sequence(value, path, key))
        return (yield from self._object(value, path))

    def _child(self, value: Any, path: str, key: str) -> Walk:
        if _is_container(value):
            return (yield _Todo(value, path, key))
        text = text_of(value)
        if text is None or (answer := self._ask(TextLeaf(path, text, value, key))) == text:
            return value
        return bytes_of_text(answer) if isinstance(value, bytes | bytearray) else answer

    def _ask(self, leaf: TextLeaf) -> str:
        answer = self._change(leaf)
        if not isinstance(answer, str):
            raise TypeError(f"the change of `{leaf.path}` must be a text, got {type(answer).__name__}")
        return answer

    def _model(self, model: BaseModel, path: str) -> Walk:
        update: dict[str, Any] = {}
        for name, value, is_name in fields_of(model):
            if is_name:
                new = self._name(value, below(path, name), name)
            elif name == "data" and is_source(model):
                new = self._data(model, below(path, name))
            else:
                new = yield from self._child(value, below(path, name), name)
            if new is not value:
                update[name] = new
        if isinstance(model, Resource) and update.keys() & {"content", "blob"}:
            update["size_bytes"] = None
        return model.model_copy(update=update) if update else model

    def _name(self, value: Any, path: str, key: str) -> Any:
        # Numbers among the names, such as sizes and ranges, are typed as numbers.
        if not self._names or not isinstance(value, str):
            return value
        answer = self._ask(TextLeaf(path, value, value, key, is_name=True))
        return value if answer == value else answer

    def _data(self, source: Source, path: str) -> str:
        """What a source includes: as it stands, which may be no encoding at all, and then the text that it encodes."""
        as_it_stands = source.data
        if (answer := self._ask(TextLeaf(path, as_it_stands, as_it_stands, "data"))) != as_it_stands:
            return answer
        data = included(source)
        text = text_of(data) if data else None
        if text is None or (answer := self._ask(TextLeaf(f"{path}[decoded]", text, data, "data"))) == text:
            return as_it_stands
        return _encoded(source, answer)

    def _mapping(self, value: Mapping[Any, Any], path: str, key: str) -> Walk:
        same = True
        new: dict[Any, Any] = {}
        for name, item in value.items():
            is_text = isinstance(name, str)
            named = self._ask(TextLeaf(f"{path}[key]", name, name)) if is_text and self._keys else name
            changed = yield from self._child(item, below(path, name), name if is_text else key)
            same = same and named == name and changed is item
            new[name if named == name else _unused(named, new, value)] = changed
        return value if same else new

    def _sequence(self, value: Any, path: str, key: str) -> Walk:
        items = list(value)
        new = []
        for index, item in enumerate(items):
            new.append((yield from self._child(item, f"{path}[{index}]", key)))
        if all(left is right for left, right in zip(items, new, strict=True)):
            return value
        if isinstance(value, list):
            return new
        if isinstance(value, tuple):
            make = getattr(type(value), "_make", None)
            return make(new) if make else tuple(new)
        return set(new) if isinstance(value, set) else frozenset(new)

    def _object(self, value: Any, path: str) -> Walk:
        update: dict[str, Any] = {}
        for name in _names_in(value):
            item = getattr(value, name, None)
            new = yield from self._child(item, below(path, name), name)
            if new is not item:
                update[name] = new
        if not update:
            return value
        changed = copy.copy(value)
        for name, new in update.items():
            # A frozen dataclass refuses assignment, and its copy is not anybody else's yet.
            object.__setattr__(changed, name, new)
        return changed


def _is_container(value: Any) -> bool:
    if isinstance(value, BaseModel | Mapping | list | tuple | Set | SimpleNamespace):
        return True
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _names_in(value: Any) -> list[str]:
    if isinstance(value, SimpleNamespace):
        return list(vars(value))
    return [each.name for each in dataclasses.fields(value)]


def _encoded(source: Source, text: str) -> str:
    if source.type == "base64":
        return base64.b64encode(bytes_of_text(text)).decode()
    head, _, _ = source.data.partition(",")
    data = bytes_of_text(text)
    body = base64.b64encode(data).decode() if head.lower().endswith(";base64") else quote(data)
    return f"{head},{body}"


def _unused(name: str, taken: Mapping[Any, Any], old: Mapping[Any, Any]) -> str:
    """`name`, numbered when another key already is, or will be, called that."""
    candidate, number = name, 1
    while candidate in taken or candidate in old:
        number += 1
        candidate = f"{name}#{number}"
    return candidate
