"""Finds and rewrites the strings inside a payload, wherever they are nested.

Both walks go through dicts, lists, tuples, sets, deques, pydantic models, dataclasses and simple namespaces, and into
bytes that are text, what exceptions say, and objects that stand for a text, such as paths and URLs. They stop at a
depth and a number of values, because a plugin may be handed anything, also structures that contain themselves. What is
looked for, and what becomes of it, is the caller's business.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import UserList, UserString, deque
from collections.abc import Iterator, Mapping, Set, ValuesView
from enum import Enum
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import PurePath
from types import SimpleNamespace
from typing import Any, NamedTuple, Protocol

from pydantic import AnyUrl, BaseModel, PostgresDsn

from cpex.framework.models.bytetext import bytes_of_text, text_in_bytes

__all__ = ["MAX_DEPTH", "MAX_VALUES", "Leaf", "StructureTooLargeError", "TextChange", "leaves", "rewrite"]

MAX_DEPTH = 100
"""Levels of nesting that are walked."""
MAX_VALUES = 1_000_000
"""Values that are walked in one structure; a value that is referred to twice counts twice."""
_KEY_SHOWN = 64
"""Characters of a dict key that a path shows."""

# Objects that a text is made into, and that are written as it again. The bases of pydantic's URLs have no public name.
_SPOKEN = (PurePath, UserString, IPv4Address, IPv4Interface, IPv6Address, IPv6Interface)
_URLS = tuple({AnyUrl.__mro__[-2], PostgresDsn.__mro__[-2]})

Trail = tuple[Any, Any] | None
"""Where a value stands, innermost first: `(trail of the parent, key or index)`."""


class StructureTooLargeError(ValueError):
    """A structure is nested deeper than `MAX_DEPTH`, contains itself, or holds more than `MAX_VALUES` values."""


class Leaf(NamedTuple):
    """One string of a structure: a value, or the key of a dict."""

    text: str
    trail: Trail
    is_key: bool = False
    place: str = ""
    """Where it stands, for whoever knows it without a trail."""

    @property
    def path(self) -> str:
        """Where it stands, as `args.query` or `result[0]['odd key']`; a key is shown by its dict: `args[key]`."""
        if self.place:
            return self.place
        steps: list[str] = ["[key]"] if self.is_key else []
        trail = self.trail
        while trail is not None:
            trail, step = trail
            steps.append(_step(step))
        return "".join(reversed(steps)).removeprefix(".")


def _step(step: Any) -> str:
    if isinstance(step, int):
        return f"[{step}]"
    text = str(step)[:_KEY_SHOWN]
    return f".{text}" if text.isidentifier() else f"[{text!r}]"


def leaves(value: Any, name: str) -> Iterator[Leaf]:
    """Every string in `value`, parents before children; the keys of a dict come before its values.

    Args:
        value: Anything; what cannot hold text is passed over.
        name: What the paths start with.

    Raises:
        StructureTooLargeError: At the value that goes beyond the bounds; everything before it was delivered.
    """
    stack: list[tuple[Any, Trail, int]] = [(value, (None, name), 0)]
    budget = MAX_VALUES
    while stack:
        value, trail, depth = stack.pop()
        if (budget := budget - 1) < 0:
            raise _too_large()
        if isinstance(value, str):
            yield Leaf(value, trail)
        elif value is None or isinstance(value, int | float):
            continue
        elif isinstance(value, bytes | bytearray | memoryview):
            if (text := text_in_bytes(value)) is not None:
                yield Leaf(text, trail)
        elif isinstance(value, BaseException):
            yield Leaf(_said(value), trail)
        elif (children := _children(value)) is not None:
            if depth >= MAX_DEPTH:
                raise _too_deep()
            if isinstance(value, Mapping):
                yield from (Leaf(key, trail, is_key=True) for key in value if isinstance(key, str))
            stack.extend((child, (trail, key), depth + 1) for key, child in reversed(children))
        elif (text := _spoken(value)) is not None:
            yield Leaf(text, trail)


def _children(value: Any) -> list[tuple[Any, Any]] | None:
    """The named or numbered parts of a container; `None` for what is not one."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, _ROWS):
        return list(enumerate(value))
    if isinstance(value, BaseModel):
        return [*value.__dict__.items(), *(value.__pydantic_extra__ or {}).items()]
    if isinstance(value, SimpleNamespace):
        return list(vars(value).items())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)]
    return None


_ROWS = (list, tuple, Set, deque, UserList, ValuesView)


def _spoken(value: Any) -> str | None:
    """The text that an object stands for; `None` for one that stands for none."""
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str) else None
    return str(value) if isinstance(value, _SPOKEN + _URLS) else None


def _said(error: BaseException, depth: int = 0) -> str:
    """What an exception says, the notes that were added to it, and what the exceptions in it say."""
    inner = error.exceptions if isinstance(error, BaseExceptionGroup) else ()
    if inner and depth >= MAX_DEPTH:
        raise _too_deep()
    said = [str(error), *getattr(error, "__notes__", ())]
    return "\n".join([*said, *(_said(each, depth + 1) for each in inner)])


class TextChange(Protocol):
    """What becomes of the scalars of a structure. It does not know where they stand, apart from the nearest key."""

    def text(self, text: str, key: str) -> str | int:
        """What is to stand instead; the same object when nothing changes. `key`: of the nearest dict, or empty."""

    def number(self, number: int, key: str) -> int | str:
        """The same for an integer."""


def rewrite(value: Any, change: TextChange, *, keys: bool = False) -> Any:
    """Apply `change` to every string and integer in `value`.

    Nothing is edited in place: containers on the way to a change are new, everything else is shared with `value`, and
    `value` itself comes back when nothing changed. Dicts of other classes come back as plain ones.

    Args:
        value: Anything; what cannot hold text is passed over.
        change: Asked once for each scalar.
        keys: Whether the keys of dicts are changed too. Two that become the same are told apart by `#2`, `#3`, ...

    Raises:
        StructureTooLargeError: The structure goes beyond the bounds.
    """
    return _Rewriting(change, keys).value(value, "", 0)


class _Rewriting:
    """One run of `rewrite`."""

    def __init__(self, change: TextChange, keys: bool) -> None:
        self._change = change
        self._keys = keys
        self._budget = MAX_VALUES

    def value(self, value: Any, key: str, depth: int) -> Any:
        self._budget -= 1
        if self._budget < 0:
            raise _too_large()
        if isinstance(value, str):
            return self._change.text(value, key)
        if value is None or isinstance(value, bool | float):
            return value
        if isinstance(value, int):
            return self._change.number(value, key)
        if isinstance(value, bytes | bytearray | memoryview):
            return self._bytes(value, key)
        if isinstance(value, BaseException):
            return self._exception(value, key)
        return self._container(value, key, depth)

    def _exception(self, error: BaseException, key: str) -> BaseException:
        text = _said(error)
        changed = self._change.text(text, key)
        if changed is text:
            return error
        # A tool that failed has failed still; of what class it was is kept where that class takes a text.
        try:
            new = type(error)(changed)
        # The constructor of a foreign class runs here.
        except Exception:
            return RuntimeError(f"{type(error).__name__}: {changed}")
        return new if str(new) == str(changed) else RuntimeError(f"{type(error).__name__}: {changed}")

    def _bytes(self, data: bytes | bytearray | memoryview, key: str) -> Any:
        text = text_in_bytes(data)
        if text is None:
            return data
        changed = self._change.text(text, key)
        return data if changed is text else type(data)(bytes_of_text(str(changed)))

    def _container(self, value: Any, key: str, depth: int) -> Any:
        children = _children(value)
        if children is None:
            return self._object_of_text(value, key)
        if depth >= MAX_DEPTH:
            raise _too_deep()
        if isinstance(value, Mapping):
            return self._mapping(value, key, depth)
        if isinstance(value, _ROWS):
            return self._sequence(value, key, depth)
        return self._object(value, children, depth)

    def _object_of_text(self, value: Any, key: str) -> Any:
        text = _spoken(value)
        if text is None:
            return value
        # What stands instead may be no path, no address: a text it stays.
        changed = self._change.text(text, key)
        return value if changed is text else changed

    def _mapping(self, value: Mapping[Any, Any], key: str, depth: int) -> Any:
        same = True
        new: dict[Any, Any] = {}
        for name, child in value.items():
            named = self._named(name)
            changed = self.value(child, name if isinstance(name, str) else key, depth + 1)
            same = same and named is name and changed is child
            new[named if named is name else _unused(named, new, value)] = changed
        return value if same else new

    def _named(self, name: Any) -> Any:
        if not self._keys or not isinstance(name, str):
            return name
        changed = self._change.text(name, "")
        # A key stays a text, so that it can be numbered and written as JSON.
        return changed if changed is name else str(changed)

    def _sequence(self, value: Any, key: str, depth: int) -> Any:
        new = [self.value(child, key, depth + 1) for child in value]
        if all(left is right for left, right in zip(value, new, strict=True)):
            return value
        if isinstance(value, list | UserList | ValuesView):
            return new
        if isinstance(value, deque):
            return deque(new, value.maxlen)
        make = getattr(type(value), "_make", None)
        return make(new) if make else tuple(new) if isinstance(value, tuple) else _as_set(value, new)

    def _object(self, value: Any, children: list[tuple[Any, Any]], depth: int) -> Any:
        if isinstance(value, BaseModel):
            return self._model(value, depth)
        pairs = ((name, child, self.value(child, name, depth + 1)) for name, child in children)
        changes = {name: changed for name, child, changed in pairs if changed is not child}
        if not changes:
            return value
        if isinstance(value, SimpleNamespace):
            new = copy.copy(value)
            vars(new).update(changes)
            return new
        return dataclasses.replace(value, **changes)

    def _model(self, value: BaseModel, depth: int) -> BaseModel:
        pairs = ((name, child, self.value(child, name, depth + 1)) for name, child in value.__dict__.items())
        changes = {name: changed for name, child, changed in pairs if changed is not child}
        extra = value.__pydantic_extra__
        new_extra = self._mapping(extra, "", depth) if extra else extra
        if not changes and new_extra is extra:
            return value
        new = value.model_copy(update=changes)
        if new_extra is not extra:
            # A frozen model refuses assignment, and `model_copy` cannot take a key away.
            object.__setattr__(new, "__pydantic_extra__", new_extra)
        return new


def _as_set(value: Any, items: list[Any]) -> Any:
    return set(items) if isinstance(value, set) else frozenset(items)


def _unused(name: str, taken: dict[Any, Any], old: Mapping[Any, Any]) -> str:
    """`name`, numbered when another key already is, or will be, called that."""
    candidate, number = name, 1
    while candidate in taken or candidate in old:
        number += 1
        candidate = f"{name}#{number}"
    return candidate


def _too_deep() -> StructureTooLargeError:
    return StructureTooLargeError(
        f"content is nested deeper than {MAX_DEPTH} levels or contains itself; pass flatter values to the hook"
    )


def _too_large() -> StructureTooLargeError:
    return StructureTooLargeError(f"content holds more than {MAX_VALUES} values; pass fewer values to the hook")
