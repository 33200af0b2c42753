"""Finds what is written in letters and digits: e-mail addresses, bank account numbers, IPv6 addresses.

Each pattern starts at a character that is rare, so that most of a text is skipped at the speed of a memory scan.
"""

from __future__ import annotations

import re

from cpex.builtins.privacy.borders import stands_alone
from cpex.builtins.privacy.checks import iban_length, is_iban, is_ipv6
from cpex.builtins.privacy.kinds import RANK, Candidate, PiiType
from cpex.builtins.privacy.shapes import DIGIT, LETTER

__all__ = ["emails", "ibans", "ipv6_addresses"]

_EMAIL, _IBAN_CODE, _IP = RANK[PiiType.EMAIL], RANK[PiiType.IBAN], RANK[PiiType.IP]

_MAX_LOCAL = 64
_LOCAL_BACKWARDS = re.compile(rf"[\w.%+'-]{{1,{_MAX_LOCAL}}}")
_NEVER_FIRST = ".%'-"
_DOMAIN = re.compile(r"(?:\w(?:[\w-]{0,61}\w)?\.){1,8}(?:xn--[A-Za-z0-9-]{2,59}|[^\W\d_]{2,24})")

_IBAN_START = LETTER * 2 + DIGIT * 2
_WORD = LETTER + DIGIT
_IBAN = re.compile(r"[A-Za-z]{2}[0-9]{2}[ \u200b-]?[A-Za-z0-9](?:[ \u200b-]?[A-Za-z0-9]){9,39}+")

_CLOCK = r"[0-5][0-9]:[0-5][0-9](?![0-9A-Fa-f:])"
_COLONS = re.compile(rf":(?!{_CLOCK})[0-9A-Fa-f]{{0,4}}:")
"""The first two colons of an address, those of a time of day left out."""
_HEX_BACKWARDS = re.compile(r"[0-9A-Fa-f]{0,4}")
_IPV6 = re.compile(r"(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]{0,4})")


def emails(text: str, found: list[Candidate]) -> None:
    """Add addresses with a dotted domain; quoted local parts and literal IP domains are not looked for."""
    at, taken = text.find("@"), 0
    while at >= 0:
        backwards = _LOCAL_BACKWARDS.match(text[max(taken, at - _MAX_LOCAL) : at][::-1])
        local = backwards[0][::-1].lstrip(_NEVER_FIRST) if backwards else ""
        if local and (domain := _DOMAIN.match(text, at + 1)):
            taken = domain.end()
            found.append((at - len(local), _EMAIL, taken))
        at = text.find("@", at + 1)


def ibans(text: str, shape: bytes, found: list[Candidate]) -> None:
    """Add account numbers of the countries in the IBAN registry, in any case, together or in groups."""
    start = shape.find(_IBAN_START)
    while start >= 0:
        goes_on = start > 0 and shape[start - 1] in _WORD
        length = 0 if goes_on else iban_length(text[start : start + 2].upper())
        end = _iban_end(text, start, length) if length else 0
        if end:
            found.append((start, _IBAN_CODE, end))
        start = shape.find(_IBAN_START, end or start + 1)


def _iban_end(text: str, start: int, length: int) -> int:
    """Where the IBAN of so many letters and digits that starts there ends; 0 when there is none."""
    end = start + length
    compact = text[start:end]
    if not compact.isalnum():
        # In groups of four, as they are printed.
        end += (length - 1) // 4
        compact = text[start:end].replace(" ", "")
    if len(compact) != length or not (compact.isalnum() and compact.isascii()):
        match = _IBAN.match(text, start)
        compact = match[0].replace(" ", "").replace("-", "").replace("\u200b", "") if match else ""
        end = _end_of(text, start, length) if len(compact) >= length else start
    return end if is_iban(compact[:length].upper()) and stands_alone(text, start, end) else 0


def _end_of(text: str, start: int, length: int) -> int:
    """Where `length` letters and digits from `start` on end, separators not counted."""
    end = start
    while length:
        length -= text[end].isalnum()
        end += 1
    return end


def ipv6_addresses(text: str, found: list[Candidate]) -> None:
    """Add IPv6 addresses in every textual form, without zone or prefix length."""
    colons = _COLONS.search(text)
    while colons is not None:
        first = colons.start()
        backwards = _HEX_BACKWARDS.match(text[max(0, first - 4) : first][::-1])
        start = first - (backwards.end() if backwards else 0)
        match = _IPV6.match(text, start)
        end = match.end() if match else colons.end()
        if match and _is_address(text, start, end):
            found.append((start, _IP, end))
        colons = _COLONS.search(text, end)


def _is_address(text: str, start: int, end: int) -> bool:
    if not stands_alone(text, start, end) or ":" in (text[start - 1 : start], text[end : end + 1]):
        return False
    return is_ipv6(text[start:end])
