"""Finds what is written in digits: cards, social security numbers, IPv4 addresses.

Each is looked for by its shape, which holds a fixed piece that is found at the speed of a memory scan; what must hold
at the place is one pattern of `windows`. Check digits are judged here.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from cpex.builtins.privacy.checks import luhn
from cpex.builtins.privacy.kinds import Finding, PiiType, new_tuple
from cpex.builtins.privacy.shapes import DIGIT, CardShapes
from cpex.builtins.privacy.sieve import CARD, IPV4, NINE, SSN
from cpex.builtins.privacy.windows import ipv4_fits, said_ssn_fits, ssn_fits

__all__ = ["DigitFinder"]

_CARD, _SSN, _IP = PiiType.CARD, PiiType.SSN, PiiType.IP
_CARD_RUN, _SSN_GROUPS = re.compile(rb"0000[0 \x7f-]{8,}"), re.compile(rb"000[ .\x7f-]00[ .\x7f-]0000")
_SSN_WORDS = (b"ssn", b"social security")
_DOTS = re.compile(rb"\.(?<=0\.)0{1,3}\.0{1,3}\.0")
"""All of an IPv4 address but the digits at its ends."""
_OCTET = 3
"""Digits of its numbers."""


class DigitFinder:
    """Finds those of its kinds that the sieve saw. Remembers shapes; may be shared between tasks."""

    def __init__(self) -> None:
        self._shapes = CardShapes()

    def find(self, text: str, plain: bytes, shape: bytes, sights: Collection[int], found: list[Finding]) -> None:
        """Add what was found; those of different types may overlap.

        Args:
            text: Folded.
            plain: Its `plain_bytes`.
            shape: Its shape.
            sights: What the sieve saw.
        """
        if CARD in sights:
            self._add_cards(text, shape, found)
        if SSN in sights:
            for groups in _SSN_GROUPS.finditer(shape):
                if ssn_fits(text, groups.start()):
                    found.append(new_tuple(Finding, (groups.start(), groups.end(), _SSN)))
        if NINE in sights:
            _add_named(text, plain.lower(), found)
        if IPV4 in sights:
            _add_addresses(text, shape, found)

    def _add_cards(self, text: str, shape: bytes, found: list[Finding]) -> None:
        known, work_out = self._shapes.known, self._shapes.work_out
        for match in _CARD_RUN.finditer(shape):
            run = match[0]
            windows = known.get(run)
            if windows is None:
                windows = work_out(run)
            if not windows:
                continue
            base, taken = match.start(), 0
            for first, last, fits in windows:
                start, end = base + first, base + last
                # The longest card from a place ends the search inside it.
                if start >= taken and fits(text, start) and _is_checked(text[start:end]):
                    taken = end
                    found.append(new_tuple(Finding, (start, end, _CARD)))


def _is_checked(card: str) -> bool:
    """Whether the check digit of a card number holds, which may have separators."""
    if not card.isdigit():
        # Three replacements of what is mostly absent take less time than one translation.
        card = card.replace(" ", "").replace("-", "").replace("\u200b", "")
    return luhn(card) and card.count(card[0]) < len(card)


def _add_named(text: str, lower: bytes, found: list[Finding]) -> None:
    """Add nine digits that words before them call a social security number."""
    for word in _SSN_WORDS:
        at = lower.find(word)
        while at >= 0:
            said = said_ssn_fits(text, at)
            if said:
                found.append(new_tuple(Finding, (*said.span(1), _SSN)))
            at = lower.find(word, at + 1)


def _add_addresses(text: str, shape: bytes, found: list[Finding]) -> None:
    taken = 0
    for dots in _DOTS.finditer(shape):
        before = shape[max(taken, dots.start() - _OCTET) : dots.start()]
        start = dots.start() - len(before) + len(before.rstrip(DIGIT))
        fit = ipv4_fits(text, start)
        if fit:
            taken = fit.end()
            found.append(new_tuple(Finding, (start, taken, _IP)))
