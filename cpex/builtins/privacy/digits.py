"""Finds what is written in digits: cards, social security numbers, IPv4 addresses.

The text is read once for islands, where only digits and separators stand. `Shapes` tells which parts of an island
are worth a look; here their digits are judged, and what stands around them.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from cpex.builtins.privacy.borders import stands_alone, within_number
from cpex.builtins.privacy.checks import is_card, is_ipv4, is_ssn
from cpex.builtins.privacy.kinds import RANK, Candidate, PiiType
from cpex.builtins.privacy.shapes import Shapes, Window

__all__ = ["DigitFinder"]

_ISLAND = re.compile(rb"0[0 .\x7f-]{6,}+")
_BLANKS = b" .\x7f-"
_SAYS_SSN = re.compile(
    r"(?:ssn|social security(?: number| no\.?)?)[\"']?\s?(?:[:=#]|is)?\s{0,3}[\"']?\Z", re.IGNORECASE
)
_CARD, _IP = RANK[PiiType.CARD], RANK[PiiType.IP]
_BEFORE = 36
"""Characters before nine digits in which words may say that they are a social security number."""


class DigitFinder:
    """Finds those of its types that are asked for."""

    def __init__(self, types: Collection[PiiType]) -> None:
        """Prepare for `types`; those that are written with more than digits are left to others."""
        self._shapes = Shapes(types)
        self.wanted = not {PiiType.CARD, PiiType.SSN, PiiType.IP}.isdisjoint(types)
        """Whether there is anything to look for."""

    def find(self, text: str, shape: bytes, found: list[Candidate]) -> None:
        """Add what was found; candidates of different types may overlap.

        Args:
            text: Folded.
            shape: Its shape.
        """
        known, work_out = self._shapes.known, self._shapes.work_out
        for island in _ISLAND.finditer(shape):
            run = island[0].rstrip(_BLANKS)
            windows = known.get(run)
            if windows is None:
                windows = work_out(run)
            if windows:
                _look(text, island.start(), windows, found)


def _look(text: str, base: int, windows: tuple[Window, ...], found: list[Candidate]) -> None:
    """Judge the windows of one island; the longest card from a place ends the search for others inside it."""
    card_end = 0
    for first, rank, last in windows:
        start, end = base + first, base + last
        if rank == _CARD:
            if start < card_end or not is_card(_digits(text, start, end)) or not _may_be_card(text, start, end):
                continue
            card_end = end
        elif rank == _IP:
            if not is_ipv4(text[start:end]) or within_number(text, start, end, "."):
                continue
            if not stands_alone(text, start, end):
                continue
        elif not _may_be_ssn(text, start, end):
            continue
        found.append((start, rank, end))


def _digits(text: str, start: int, end: int) -> str:
    # Three replacements of what is mostly absent take less time than one translation.
    return text[start:end].replace(" ", "").replace("-", "").replace("\u200b", "")


def _may_be_card(text: str, start: int, end: int) -> bool:
    """Whether nothing around the digits says that they are something else, a phone number with its `+` for one."""
    if text[start - 1 : start] == "+" or within_number(text, start, end, "."):
        return False
    return stands_alone(text, start, end)


def _may_be_ssn(text: str, start: int, end: int) -> bool:
    """Whether groups of 3-2-4 digits stand alone, or the words before nine digits say what they are."""
    if end - start == 9:
        return is_ssn(text[start:end]) and _SAYS_SSN.search(text[max(0, start - _BEFORE) : start]) is not None
    return (
        is_ssn(text[start : start + 3] + text[start + 4 : start + 6] + text[start + 7 : end])
        and stands_alone(text, start, end)
        and not within_number(text, start, end)
    )
