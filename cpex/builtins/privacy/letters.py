"""Finds what is written in letters and digits: e-mail addresses, bank account numbers, IPv6 addresses.

Each pattern starts at a character that is rare, so that most of a text is skipped at the speed of a memory scan.
"""

from __future__ import annotations

import re
import string

from cpex.builtins.privacy.borders import stands_alone
from cpex.builtins.privacy.checks import IBAN_LENGTHS, is_iban, is_ipv6
from cpex.builtins.privacy.kinds import Finding, PiiType, new_tuple
from cpex.builtins.privacy.shapes import DIGIT, LETTER, OTHER

__all__ = ["emails", "ibans", "ipv6_addresses"]

_EMAIL, _IBAN_CODE, _IP = PiiType.EMAIL, PiiType.IBAN, PiiType.IP

_MAX_LOCAL = 64
_LOCAL_ASCII = (string.ascii_letters + string.digits + "_.%+'-").encode()
_LOCAL_BACKWARDS = re.compile(rf"[\w.%+'-]{{1,{_MAX_LOCAL}}}")
_NEVER_FIRST = ".%'-"
_DOMAIN = re.compile(r"(?:\w[\w-]{0,62}+(?<!-)\.){1,8}(?:xn--[A-Za-z0-9-]{2,59}|[^\W\d_]{2,24})")
_DOMAIN_ASCII = re.compile(_DOMAIN.pattern, re.ASCII)
"""The same, in two thirds of the time."""

_IBAN_START = LETTER * 2 + DIGIT * 2
_WORD = LETTER + DIGIT
_IBAN = re.compile(rb"[A-Za-z]{2}[0-9]{2}[ \x7f-]?[A-Za-z0-9](?:[ \x7f-]?[A-Za-z0-9]){9,39}+")
_IBAN_JOINTS = b" -\x7f"

_HEX = "[0-9A-Fa-f]"
_OCTETS = r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}"
# What is looked at last is what is seldom: that no third colon stands before.
_GROUP = f"{_HEX}{{1,4}}+"
_SIGHT = re.compile(rf":(?:(?=:(?!:))|({f'{_GROUP}:' * 5}(?:{_GROUP}:{_GROUP}|{_OCTETS})))(?<!::)")
"""What an address cannot do without: two colons in a row, or, as a group, all that follows its first colon."""
_IPV6 = re.compile(rf"(?:{_HEX}{{0,4}}:){{2,7}}(?:{_OCTETS}|{_HEX}{{0,4}})")
_HEX_DIGITS = "0123456789abcdefABCDEF"
_MAX_GROUP = 4
_MAX_BEFORE = 7 * (_MAX_GROUP + 1)
"""Characters of an address before its two colons in a row."""
_GROUP_BEFORE = re.compile(rf"(?:^|\W){_HEX}{{1,{_MAX_GROUP}}}:\Z|::\Z")
"""What goes before with a colon and could be a group, which a label such as that of `client:2001:db8::1` could not."""


def emails(text: str, plain: bytes, _shape: bytearray, found: list[Finding]) -> None:
    """Add addresses with a dotted domain; quoted local parts and literal IP domains are not looked for."""
    at, taken = text.find("@"), 0
    is_ascii = text.isascii()
    domain_at = (_DOMAIN_ASCII if is_ascii else _DOMAIN).match
    while at >= 0:
        domain = domain_at(text, at + 1)
        if domain:
            limit = max(taken, at - _MAX_LOCAL)
            begin = limit + len(plain[limit:at].rstrip(_LOCAL_ASCII))
            if not is_ascii and plain[begin - 1 : begin] == OTHER:
                begin = _local_begin(text, limit, at)
            while begin < at and text[begin] in _NEVER_FIRST:
                begin += 1
            if begin < at:
                taken = domain.end()
                found.append(new_tuple(Finding, (begin, taken, _EMAIL)))
        at = text.find("@", at + 1)


def _local_begin(text: str, limit: int, at: int) -> int:
    """Where the name in an address begins whose `@` stands there; that place itself, when there is none."""
    backwards = _LOCAL_BACKWARDS.match(text[limit:at][::-1])
    return at - backwards.end() if backwards else at


def ibans(text: str, plain: bytes, shape: bytearray, found: list[Finding]) -> None:
    """Add account numbers of the countries in the IBAN registry, in any case, together or in groups.

    They are blanked out in the shape, as their digits are nothing else.
    """
    start = shape.find(_IBAN_START)
    while start >= 0:
        goes_on = start > 0 and shape[start - 1] in _WORD
        end = 0 if goes_on else _iban_end(plain, start)
        if end and stands_alone(text, start, end):
            found.append(new_tuple(Finding, (start, end, _IBAN_CODE)))
            shape[start:end] = OTHER * (end - start)
        else:
            end = start + 4
        start = shape.find(_IBAN_START, end)


def _iban_end(plain: bytes, start: int) -> int:
    """Where the IBAN that starts there ends; 0 when there is none."""
    length = IBAN_LENGTHS.get(plain[start : start + 2])
    if length is None:
        return 0
    end = start + length
    compact = plain[start:end]
    if not compact.isalnum():
        # In groups of four, as they are printed.
        end += (length - 1) // 4
        compact = plain[start:end].replace(b" ", b"")
        if len(compact) != length or not compact.isalnum():
            end, compact = _parted(plain, start, length)
    return end if is_iban(compact) else 0


def _parted(plain: bytes, start: int, length: int) -> tuple[int, bytes]:
    """Where so many letters and digits end that separators part in another way, and what they are."""
    match = _IBAN.match(plain, start)
    compact = match[0].translate(None, _IBAN_JOINTS) if match else b""
    return (_end_of(plain, start, length), compact[:length]) if len(compact) >= length else (start, b"")


def _end_of(plain: bytes, start: int, length: int) -> int:
    """Where `length` letters and digits from `start` on end, separators not counted."""
    end = start
    while length:
        length -= plain[end] not in _IBAN_JOINTS
        end += 1
    return end


def ipv6_addresses(text: str, _plain: bytes, _shape: bytearray, found: list[Finding]) -> None:
    """Add IPv6 addresses in every textual form, without zone or prefix length."""
    taken = 0
    sight = _SIGHT.search(text)
    while sight is not None:
        first = sight.start()
        if sight.lastindex:
            start, end = _before(text, max(taken, first - _MAX_GROUP), first, _HEX_DIGITS), sight.end()
        else:
            start, end = _around(text, max(taken, first - _MAX_BEFORE), first)
        if start < end and _is_address(text, start, end):
            taken = end
            found.append(new_tuple(Finding, (start, end, _IP)))
        sight = _SIGHT.search(text, max(taken, first + 1))


def _before(text: str, limit: int, place: int, chars: str) -> int:
    """Where the run of some characters begins that ends at a place."""
    return limit + len(text[limit:place].rstrip(chars))


def _around(text: str, limit: int, colons: int) -> tuple[int, int]:
    """Span of what stands around two colons in a row; an empty one when it is no address."""
    start = _before(text, limit, colons, _HEX_DIGITS + ":")
    if start < colons and text[start] == ":":
        # The colon of a label, as in `client:2001:db8::1`.
        start += 1
    match = _IPV6.match(text, start)
    return start, match.end() if match else start


def _is_address(text: str, start: int, end: int) -> bool:
    if text[end : end + 1] == ":" or not stands_alone(text, start, end):
        return False
    if text[start - 1 : start] == ":" and _GROUP_BEFORE.search(text[max(0, start - _MAX_GROUP - 2) : start]):
        return False
    return is_ipv6(text[start:end])
