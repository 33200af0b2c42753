"""Dictionaries and lists that leave their original alone and tell what was done to them.

For hosts and plugins that want to offer a container for editing and see the edits. The pipeline itself hands out plain
containers (`views.py`).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any, SupportsIndex, TypeVar

K = TypeVar("K")
V = TypeVar("V")
_MISSING = object()


class CopyOnWriteDict(dict[K, V]):
    """A dictionary that starts with the contents of another, never changes it, and tracks its own changes.

    Compiled readers see the true contents: it is filled when it is made. It compares with any mapping by content.
    """

    __slots__ = ("_deleted", "_written")

    def __init__(self, original: Mapping[K, V]) -> None:
        super().__init__(original)
        self._written: set[K] = set()
        self._deleted: set[K] = set()

    def get_modifications(self) -> dict[K, V]:
        """Keys written and still present, with their values; writing an equal value counts."""
        return {key: self[key] for key in self if key in self._written}

    def get_deleted(self) -> set[K]:
        """Keys removed and not written again."""
        return set(self._deleted)

    def has_modifications(self) -> bool:
        """Whether anything was written or removed."""
        return bool(self._written or self._deleted)

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        self._written.add(key)
        self._deleted.discard(key)

    def __delitem__(self, key: K) -> None:
        super().__delitem__(key)
        self._deleted.add(key)
        self._written.discard(key)

    def pop(self, key: K, *default: Any) -> Any:
        """Remove a key and return its value, or the default."""
        if len(default) > 1:
            raise TypeError(f"pop expected at most 2 arguments, got {1 + len(default)}")
        if key in self:
            value = self[key]
            del self[key]
            return value
        if default:
            return default[0]
        raise KeyError(key)

    def popitem(self) -> tuple[K, V]:
        """Remove the last item and return it."""
        if not self:
            raise KeyError("popitem(): dictionary is empty")
        key = next(reversed(self))
        return key, self.pop(key)

    def clear(self) -> None:
        """Remove everything."""
        for key in list(self):
            del self[key]

    # The signature is narrower than dict's overloads: what it accepts is the same.
    def update(self, other: Any = None, /, **values: Any) -> None:
        """Write the items of a mapping or of pairs, then those given by name."""
        items: Iterable[Any] = ()
        if other is not None:
            items = ((key, other[key]) for key in other) if hasattr(other, "keys") else other
        for key, value in items:
            self[key] = value
        for name, value in values.items():
            # Keyword names are strings, whatever the declared key type is.
            self[name] = value  # type: ignore[index]

    def setdefault(self, key: K, default: Any = None) -> Any:
        """The value of a key, written first when it is missing."""
        if key not in self:
            self[key] = default
        return self[key]

    # Narrower than the overloads of `dict`: what it accepts is the same.
    def __ior__(self, other: Any) -> CopyOnWriteDict[K, V]:  # type: ignore[override]
        self.update(other)
        return self

    def __or__(self, other: Any) -> dict[Any, Any]:
        return dict(self) | dict(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return dict(other) | dict(self) if isinstance(other, Mapping) else NotImplemented

    def copy(self) -> dict[K, V]:
        """A plain dictionary of the present contents."""
        return dict(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mapping):
            return NotImplemented
        return dict.__eq__(dict(self), dict(other))

    def __ne__(self, other: object) -> bool:
        equal = self.__eq__(other)
        return equal if equal is NotImplemented else not equal

    __hash__ = None

    def _rebuild(self, contents: Mapping[K, V]) -> CopyOnWriteDict[K, V]:
        result = CopyOnWriteDict(contents)
        result._written, result._deleted = set(self._written), set(self._deleted)
        return result

    def __copy__(self) -> CopyOnWriteDict[K, V]:
        return self._rebuild(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> CopyOnWriteDict[K, V]:
        return self._rebuild({key: copy.deepcopy(value, memo) for key, value in self.items()})

    # Pickle calls the class with the contents, then hands the tracking to `__setstate__`.
    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return CopyOnWriteDict, (dict(self),), (set(self._written), set(self._deleted))

    def __setstate__(self, state: tuple[set[K], set[K]]) -> None:
        self._written, self._deleted = state

    @classmethod
    def fromkeys(cls, keys: Iterable[Any], value: Any = None) -> CopyOnWriteDict[Any, Any]:
        """A tracked dictionary that starts with these keys."""
        return cls(dict.fromkeys(keys, value))

    def __repr__(self) -> str:
        return f"CopyOnWriteDict({dict.__repr__(self)})"


class CopyOnWriteList(list[V]):
    """A list that starts with the contents of another, never changes it, and knows whether it was edited."""

    __slots__ = ("_modified",)

    def __init__(self, original: Iterable[V]) -> None:
        super().__init__(original)
        self._modified = False

    def has_modifications(self) -> bool:
        """Whether any mutating method was called, even one that then failed."""
        return self._modified

    def copy(self) -> list[V]:
        """A plain list of the present contents."""
        return list(self)

    def __eq__(self, other: object) -> bool:
        return list.__eq__(self, other) if isinstance(other, list) else NotImplemented

    __hash__ = None

    def __copy__(self) -> CopyOnWriteList[V]:
        result = CopyOnWriteList(self)
        result._modified = self._modified
        return result

    def __deepcopy__(self, memo: dict[int, Any]) -> CopyOnWriteList[V]:
        result: CopyOnWriteList[V] = CopyOnWriteList(copy.deepcopy(list(self), memo))
        result._modified = self._modified
        return result

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        return CopyOnWriteList, (list(self),), self._modified

    def __setstate__(self, state: bool) -> None:
        self._modified = state

    def __repr__(self) -> str:
        return f"CopyOnWriteList({list.__repr__(self)})"


def _tracked(name: str) -> Any:
    mutate = getattr(list, name)

    def method(self: CopyOnWriteList[Any], *args: Any, **kwargs: Any) -> Any:
        self._modified = True
        return mutate(self, *args, **kwargs)

    method.__name__ = name
    method.__doc__ = mutate.__doc__
    return method


for _name in ("append", "extend", "insert", "pop", "remove", "clear", "sort", "reverse"):
    setattr(CopyOnWriteList, _name, _tracked(_name))
for _name in ("__setitem__", "__delitem__", "__iadd__", "__imul__"):
    setattr(CopyOnWriteList, _name, _tracked(_name))


def copyonwrite(original: Any) -> Any:
    """Wrap a dict or a list.

    Raises:
        TypeError: The value is neither.
    """
    if isinstance(original, dict):
        return CopyOnWriteDict(original)
    if isinstance(original, list):
        return CopyOnWriteList(original)
    raise TypeError(f"No copy-on-write wrapper available for {type(original).__name__}; known: dict, list")
