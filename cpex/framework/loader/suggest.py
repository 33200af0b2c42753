"""Words for error texts: the nearest known name, and user text made fit to be shown in a message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

__all__ = ["closest", "did_you_mean", "join_names", "shown"]

_LONGEST_COMPARED = 100
"""Characters. Nobody mistypes a name that long, and comparing costs the product of both lengths."""

_LONGEST_LIST = 12


def closest(word: object, known: Iterable[str]) -> str | None:
    """The known name that `word` was probably meant to be, or `None` when none is near."""
    text = str(word)
    if len(text) > _LONGEST_COMPARED:
        return None
    names = {name.lower(): name for name in known}
    near = difflib.get_close_matches(text.lower(), list(names), n=1, cutoff=0.6)
    return names[near[0]] if near else None


def did_you_mean(word: object, known: Sequence[str]) -> str:
    """A help line for an unknown name: the nearest one when there is one, and the names that exist."""
    near = closest(word, known)
    listed = f"known: {join_names(known)}"
    return f"did you mean `{near}`? {listed}" if near else listed


def join_names(names: Sequence[str]) -> str:
    """Names separated by commas; a long list is cut and says how many are missing."""
    text = ", ".join(names[:_LONGEST_LIST])
    return text if len(names) <= _LONGEST_LIST else f"{text} and {len(names) - _LONGEST_LIST} more"


def shown(value: object, limit: int = 60) -> str:
    """User text between backticks, on one line and at most `limit` characters long.

    Control characters and line breaks appear as escapes, so a value cannot forge lines of a message or of a log.
    """
    text = str(value)
    cut = text if len(text) <= limit else text[: limit - 1] + "…"
    return "`" + "".join(each if each.isprintable() else ascii(each)[1:-1] for each in cut) + "`"
