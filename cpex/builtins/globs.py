"""Globs of settings, held against names and texts: `*` is any text, `?` any character, `[abc]` one of these."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from fnmatch import fnmatchcase, translate
from typing import Any

__all__ = ["glob_matcher", "matches_any"]


def glob_matcher(globs: Iterable[str]) -> Callable[[str], Any]:
    """One compiled test for all globs, with the meaning of `fnmatch.fnmatchcase`."""
    joined = "|".join(translate(glob) for glob in globs)
    # An empty alternation would match the empty name.
    return re.compile(joined or r"(?!)").match


def matches_any(text: str, globs: Collection[str]) -> bool:
    """Whether a text, in any case, is one of some globs that are in small letters."""
    text = text.casefold()
    return any(fnmatchcase(text, glob) for glob in globs)
