"""The table of plugin contexts that a hook call returns.

Most plugins never touch their context, and most entries are never read. For those the table only notes the plugin; the
context is made when somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cpex.framework.memory.views import ContextSource
from cpex.framework.models.context import PluginContext


class ContextTable(dict[str, PluginContext]):
    """A dictionary of contexts, some of which are still only noted.

    Every Python-level reader sees all entries. `dict(table)` makes an ordinary dictionary of them.
    """

    __slots__ = ("_request_id", "_source", "owed")

    def __init__(self, request_id: str, source: ContextSource) -> None:
        self._request_id = request_id
        self._source = source
        self.owed: list[str] = []
        """Ids of plugins whose contexts nobody has touched yet. Stays the same list, for whoever appends to it."""

    def _fill(self) -> None:
        for uuid in self.owed:
            key = self._request_id + uuid
            if not dict.__contains__(self, key):
                dict.__setitem__(self, key, self._source.fresh())
        self.owed.clear()

    def __getitem__(self, key: str) -> PluginContext:
        self._fill()
        return dict.__getitem__(self, key)

    def __setitem__(self, key: str, value: PluginContext) -> None:
        self._fill()
        dict.__setitem__(self, key, value)

    def __delitem__(self, key: str) -> None:
        self._fill()
        dict.__delitem__(self, key)

    def __contains__(self, key: object) -> bool:
        self._fill()
        return dict.__contains__(self, key)

    def __iter__(self) -> Iterator[str]:
        self._fill()
        return dict.__iter__(self)

    def __reversed__(self) -> Iterator[str]:
        self._fill()
        return dict.__reversed__(self)

    def __len__(self) -> int:
        self._fill()
        return dict.__len__(self)

    def __eq__(self, other: object) -> bool:
        self._fill()
        return dict.__eq__(self, dict(other) if isinstance(other, dict) else other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    # Mutable, as every dictionary.
    __hash__ = None

    def __repr__(self) -> str:
        self._fill()
        return dict.__repr__(self)

    # Narrower than dict's overloads: what it accepts is the same.
    def __or__(self, other: Any) -> dict[Any, Any]:
        return dict(self) | dict(other) if isinstance(other, Mapping) else NotImplemented

    def __ror__(self, other: Any) -> dict[Any, Any]:
        return dict(other) | dict(self) if isinstance(other, Mapping) else NotImplemented

    def __reduce_ex__(self, protocol: Any) -> Any:
        return dict, (dict(self),)

    def __copy__(self) -> dict[str, PluginContext]:
        return dict(self)


def _filled(name: str) -> Any:
    method = getattr(dict, name)

    def call(self: ContextTable, *args: Any, **kwargs: Any) -> Any:
        self._fill()
        return method(self, *args, **kwargs)

    call.__name__ = name
    call.__doc__ = method.__doc__
    return call


for _name in ("get", "keys", "values", "items", "pop", "popitem", "setdefault", "update", "clear", "copy", "__ior__"):
    setattr(ContextTable, _name, _filled(_name))
