"""The texts of a call up to a number of characters, and what becomes of a call that has more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, Field

from cpex.builtins.text import Leaf, StructureTooLargeError
from cpex.framework import PluginResult, PluginViolation

__all__ = ["CODE_TOO_LARGE", "BoundedSettings", "Texts", "gathered", "too_large"]

CODE_TOO_LARGE = "CONTENT_TOO_LARGE"


class BoundedSettings(BaseModel, extra="forbid", frozen=True):
    """How much is searched."""

    max_text_chars: int = Field(default=1_000_000, ge=1)
    """Characters that are searched in one payload."""
    on_oversize: Literal["deny", "allow"] = "deny"
    """What becomes of a payload with more; `allow` searches the first ones and says so in the metadata."""


class Texts(NamedTuple):
    """What there is to search."""

    leaves: list[Leaf]
    excess: str
    """What there is too much of; empty when everything is searched."""


def gathered(leaves: Iterable[Leaf], max_chars: int) -> Texts:
    """The texts up to a number of characters; the last one is cut."""
    found: list[Leaf] = []
    left = max_chars
    try:
        for leaf in leaves:
            found.append(leaf if len(leaf.text) <= left else leaf._replace(text=leaf.text[:left]))
            left -= len(leaf.text)
            if left < 0:
                return Texts(found, f"more than {max_chars} characters of text")
    except StructureTooLargeError as error:
        return Texts(found, str(error))
    return Texts(found, "")


def too_large(searcher: str, what: str, max_chars: int) -> PluginResult[Any]:
    """The denial of a call that was not searched in full.

    Args:
        searcher: What the reason calls the plugin, such as `content policy`.
        what: What there was too much of.
    """
    violation = PluginViolation(
        reason=f"Content too large for the {searcher}",
        description=f"Content that was not searched in full is not passed on: {what}.",
        code=CODE_TOO_LARGE,
        details={"max_text_chars": max_chars},
    )
    return PluginResult(continue_processing=False, violation=violation)
