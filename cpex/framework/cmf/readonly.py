"""Containers that can be read like any other and refuse to be edited.

What a view hands out of a message is made of these, so that an edit that would reach the message, or nobody, fails
loudly. They are real dicts and lists whose contents every reader sees; copies of them are plain again.
"""

from __future__ import annotations

import copy
from typing import Any, NoReturn, SupportsIndex

__all__ = ["ReadOnlyDict", "ReadOnlyList", "read_only"]


def _refuse(self: Any, *args: Any, **kwargs: Any) -> NoReturn:
    raise TypeError("a view of a message is read-only; edit a copy, and put it into the message with `view.replace`")


class ReadOnlyDict(dict[Any, Any]):
    """A dict that refuses edits with a `TypeError`; `dict(...)`, `copy()` and `copy.deepcopy` make plain ones."""

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def copy(self) -> dict[Any, Any]:
        """A plain dict with the same entries; containers inside are still read-only."""
        return dict(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> dict[Any, Any]:
        plain = memo[id(self)] = {}
        plain.update((key, copy.deepcopy(value, memo)) for key, value in self.items())
        return plain

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return dict, (), None, None, iter(self.items())


class ReadOnlyList(list[Any]):
    """A list that refuses edits with a `TypeError`; `list(...)`, `copy()` and `copy.deepcopy` make plain ones."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
    append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def copy(self) -> list[Any]:
        """A plain list of the same items; containers inside are still read-only."""
        return list(self)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> list[Any]:
        plain = memo[id(self)] = []
        plain.extend(copy.deepcopy(value, memo) for value in self)
        return plain

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[Any, ...]:
        return list, (), None, iter(self)


def read_only(value: Any) -> Any:
    """The value with every dict and list in it, at any depth, as one that refuses edits; the value itself if none is.

    Structures that contain themselves stay so. Objects of other classes, and what is inside of them, are shared.
    """
    made: dict[int, Any] = {}
    todo: list[Any] = []

    def begun(item: Any) -> Any:
        if isinstance(item, dict):
            kind: Any = ReadOnlyDict
        elif isinstance(item, list):
            kind = ReadOnlyList
        else:
            return tuple(map(begun, item)) if type(item) is tuple and item else item
        if id(item) not in made:
            made[id(item)] = kind()
            todo.append(item)
        return made[id(item)]

    result = begun(value)
    while todo:
        item = todo.pop()
        if isinstance(item, dict):
            dict.update(made[id(item)], {key: begun(inner) for key, inner in item.items()})
        else:
            list.extend(made[id(item)], map(begun, item))
    return result
