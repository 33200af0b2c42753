"""Where the keys and values of a document stand."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

from cpex.framework.loader.faults import START, Path, Place

__all__ = ["Node", "SourceMap"]


@dataclass(slots=True, eq=False)
class Node:
    """One value of the document."""

    line: int
    column: int
    value: Any = None
    """The plain value, complete once the document has been read."""
    keys: dict[Any, tuple[Node, Node]] | None = None
    """For a mapping: the nodes of each key and of its value. Merged keys point to where they were written."""
    items: list[Node] | None = None
    """For a sequence."""
    source: str | None = None
    """For a scalar: the text as written, templates included. Safe to show."""
    templated: bool = False
    """The value came, in part or whole, from the environment."""
    failed: bool = False
    """A fault of the value itself has been reported, so what it now holds says nothing."""
    size: int = 1
    height: int = 1

    @property
    def place(self) -> Place:
        """Line and column, from 1."""
        return self.line, self.column


class SourceMap:
    """Where the keys and values of a document stand, by path.

    A path is a tuple of keys and list indexes, e.g. `("plugins", 2, "mode")`. A path that leads further than the
    document gives the place of the last part that exists.

    Attributes:
        scrub: Takes the values that came from the environment out of a message about the document.
    """

    def __init__(self, root: Node | None, scrub: Callable[[str], str] = str) -> None:
        self._root = root
        self.scrub = scrub

    def node(self, path: Path) -> Node | None:
        """The node at exactly that path."""
        node = self._root
        for part in path:
            node = None if node is None else _child(node, part)
        return node

    def place(self, path: Path) -> Place:
        """Line and column of a value."""
        node = self._root
        if node is None:
            return START
        for part in path:
            inner = _child(node, part)
            if inner is None:
                break
            node = inner
        return node.place

    def key_place(self, path: Path) -> Place:
        """Line and column of the key that leads to a value; of the value itself in a list."""
        parent = self.node(path[:-1]) if path else None
        if parent is not None and parent.keys is not None and path[-1] in parent.keys:
            return parent.keys[path[-1]][0].place
        return self.place(path)


def _child(node: Node, part: Any) -> Node | None:
    if node.keys is not None:
        pair = node.keys.get(part) if isinstance(part, Hashable) else None
        return None if pair is None else pair[1]
    if node.items is not None and isinstance(part, int) and 0 <= part < len(node.items):
        return node.items[part]
    return None
