"""Patterns that no text can stall: one by itself, and many as one automaton that tells which of them occur."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

__all__ = ["PatternSet", "compile_linear", "idle_border"]

_MAX_MEMORY = 64 << 20
"""Bytes that the automaton may cache states in."""


# A border of words right before or behind a letter beyond ASCII, where nothing on its other side could make it hold.
_IDLE_BORDER = re.compile(
    r"(?<![\w\\\])}*+?.])\\b(?:\[|\((?:\?(?:[a-zA-Z-]*:|P?<\w+>))?)*([^\W\x00-\x7f])"
    r"|([^\W\x00-\x7f])[\])?+*]*\\b(?=$|[\s)|])"
)


def idle_border(pattern: str) -> str:
    """The letter beside a `\\b` that never holds, as the engine knows ASCII letters only; empty when there is none."""
    match = _IDLE_BORDER.search(pattern)
    return (match[1] or match[2]) if match else ""


class PatternSet:
    """Patterns in RE2 syntax, found anywhere in a text. Immutable; may be shared between tasks."""

    def __init__(self, patterns: Iterable[str], *, case_sensitive: bool = True) -> None:
        """Compile the patterns.

        Raises:
            re2.error: A pattern is not in RE2 syntax, or all together are too large.
        """
        # The engine is a compiled library of its own; it is loaded by those who have patterns.
        import re2

        options = re2.Options()
        options.case_sensitive = case_sensitive
        # Groups serve no purpose here, and equal names in two patterns would keep them from being joined.
        options.never_capture = True
        # RE2 would write its own complaints to standard error.
        options.log_errors = False
        options.max_mem = _MAX_MEMORY
        self._set: Any = re2.Set.SearchSet(options)
        self._size = 0
        for pattern in patterns:
            self._set.Add(pattern)
            self._size += 1
        # INVARIANT: the end of the text is always found. An engine that has run out of memory says that nothing was.
        self._set.Add(r"\z")
        self._set.Compile()

    def __len__(self) -> int:
        return self._size

    def found_in(self, data: bytes) -> list[int]:
        """Numbers of the patterns that occur in UTF-8 text, from 0, in order.

        Raises:
            MemoryError: The engine gave up, so it is not known what occurs.
        """
        found = sorted(self._set.Match(data) or ())
        if not found or found[-1] != self._size:
            raise MemoryError(f"{self._size} patterns outgrew the memory of their automaton; use fewer or simpler ones")
        return found[:-1]

    def finds_any(self, data: bytes) -> bool:
        """Whether any of the patterns occurs.

        Raises:
            MemoryError: The engine gave up, so it is not known whether one does.
        """
        return bool(self.found_in(data))


def compile_linear(pattern: str) -> Any:
    """One pattern, for `search`, `finditer` and `sub` on bytes of UTF-8.

    In bytes, because a search in text would count its characters anew for every match.

    Raises:
        ValueError: It is not RE2 syntax, said so that it can stand behind "the pattern is".
    """
    import re2

    options = re2.Options()
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError("not RE2 syntax; look-around and back-references have no linear-time form") from error
