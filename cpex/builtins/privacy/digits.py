"""Finds what is written in digits: cards, social security numbers, IPv4 addresses.

The text is read once for islands, where only digits and separators stand. `Shapes` tells which parts of an island
are worth a look, and what must hold there; here check digits are judged, and the words before nine digits.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from cpex.builtins.privacy.checks import luhn
from cpex.builtins.privacy.kinds import RANK, Candidate, PiiType
from cpex.builtins.privacy.shapes import Shapes
from cpex.builtins.privacy.windows import nine_fit

__all__ = ["DigitFinder"]

_ISLAND = re.compile(rb"0[0 .\x7f-]{5,}0")
_SAYS_SSN = re.compile(
    r"(?:ssn|social security(?: number| no\.?)?)[\"']?\s?(?:[:=#]|is)?\s{0,3}[\"']?\Z", re.IGNORECASE
)
_CARD = RANK[PiiType.CARD]
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
            run = island[0]
            windows = known.get(run)
            if windows is None:
                windows = work_out(run)
            if not windows:
                continue
            base, card_end = island.start(), 0
            for first, rank, last, fits in windows:
                start, end = base + first, base + last
                # The longest card from a place ends the search inside it.
                if start < card_end or fits(text, start) is None:
                    continue
                if rank == _CARD:
                    if not _is_checked(text[start:end]):
                        continue
                    card_end = end
                elif fits is nine_fit and not _is_said_to_be_ssn(text, start):
                    continue
                found.append((start, rank, end))


def _is_checked(card: str) -> bool:
    """Whether the check digit of a card number holds, which may have separators."""
    if not card.isdigit():
        # Three replacements of what is mostly absent take less time than one translation.
        card = card.replace(" ", "").replace("-", "").replace("\u200b", "")
    return luhn(card) and card != card[0] * len(card)


def _is_said_to_be_ssn(text: str, start: int) -> bool:
    """Whether the words before a place say that what comes is a social security number."""
    before = text[max(0, start - _BEFORE) : start]
    plain = before.casefold()
    return ("ssn" in plain or "social" in plain) and _SAYS_SSN.search(before) is not None
