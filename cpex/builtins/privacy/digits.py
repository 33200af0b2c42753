"""Finds what is written in digits: cards, social security numbers, IPv4 addresses.

Each is looked for by its shape, which holds a fixed piece that is found at the speed of a memory scan; what must hold
at the place is one pattern of `windows`. Check digits are judged here.
"""

from __future__ import annotations

import re

from cpex.builtins.privacy.checks import luhn
from cpex.builtins.privacy.kinds import Finding, PiiType, new_tuple
from cpex.builtins.privacy.shapes import CardShapes
from cpex.builtins.privacy.windows import ipv4_fits, said_ssn_fits, ssn_fits

__all__ = ["CardFinder", "ipv4_addresses", "named_ssns", "ssns"]

_CARD, _SSN, _IP = PiiType.CARD, PiiType.SSN, PiiType.IP
# A date with a time takes more time to judge than to pass over, and many a log line starts with one.
_CARD_RUN = re.compile(rb"0000(?!-00-00 00:)[0 \x7f-]{8,}")
_CARD_JOINTS = b" -\x7f"
_SSN_GROUPS = re.compile(rb"000[ .\x7f-]00[ .\x7f-]0000")
_SSN_WORDS = (b"ssn", b"social security")
_DOTS = re.compile(rb"\.(?<=0\.)0{1,3}\.0{1,3}\.0")
"""All of an IPv4 address but the digits at its ends."""


class CardFinder:
    """Finds cards. Remembers shapes; may be shared between tasks."""

    def __init__(self) -> None:
        self._windows = CardShapes()

    def find(self, text: str, plain: bytes, shape: bytearray, found: list[Finding]) -> None:
        """Add card numbers whose check digit holds; the longest from a place ends the search inside it."""
        windows_of = self._windows
        for run in _CARD_RUN.finditer(shape):
            windows = windows_of[run[0]]
            if not windows:
                continue
            base, taken = run.start(), 0
            for first, last, fits in windows:
                start = base + first
                if start >= taken and fits(text, start) and _is_checked(plain[start : base + last]):
                    taken = base + last
                    found.append(new_tuple(Finding, (start, taken, _CARD)))


def _is_checked(card: bytes) -> bool:
    """Whether the check digit of a card number holds, which may have separators."""
    digits = card.translate(None, _CARD_JOINTS)
    return luhn(digits) and digits.count(digits[0]) < len(digits)


def ssns(text: str, _plain: bytes, shape: bytearray, found: list[Finding]) -> None:
    """Add social security numbers in groups."""
    for groups in _SSN_GROUPS.finditer(shape):
        start = groups.start()
        if ssn_fits(text, start):
            found.append(new_tuple(Finding, (start, groups.end(), _SSN)))


def named_ssns(text: str, plain: bytes, _shape: bytearray, found: list[Finding]) -> None:
    """Add nine digits that words before them call a social security number."""
    lower = plain.lower()
    for word in _SSN_WORDS:
        at = lower.find(word)
        while at >= 0:
            said = said_ssn_fits(text, at)
            if said:
                found.append(new_tuple(Finding, (*said.span(1), _SSN)))
            at = lower.find(word, at + 1)


def ipv4_addresses(text: str, _plain: bytes, shape: bytearray, found: list[Finding]) -> None:
    """Add IPv4 addresses."""
    for dots in _DOTS.finditer(shape):
        dot = dots.start()
        start = dot - (3 if shape[dot - 3 : dot] == b"000" else 2 if shape[dot - 2 : dot] == b"00" else 1)
        fit = ipv4_fits(text, start)
        if fit:
            found.append(new_tuple(Finding, (start, fit.end(), _IP)))
