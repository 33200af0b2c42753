"""Finds personal data in text: cards, e-mail addresses, phone and social security numbers, IBANs, IP addresses.

Each kind has one recogniser, a function from text to spans. Every one of them is linear in the length of the text:
the patterns start at a rare character, repeat possessively or within bounds, and check digits are judged on spans of
bounded length. `find` runs those that are wanted and settles overlaps. What becomes of a finding is the caller's
business.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from cpex.builtins.privacy.checks import is_card, is_iban_start, is_ipv4, is_ipv6, is_ssn
from cpex.builtins.privacy.phones import PhoneFinder

__all__ = ["Finding", "PiiType", "Recognisers", "is_ssn_key"]


class PiiType(StrEnum):
    """Kinds of personal data. Where spans overlap, the kind that comes first in this list wins."""

    EMAIL = "email"
    IBAN = "iban"
    CARD = "card"
    SSN = "ssn"
    IP = "ip"
    PHONE = "phone"


class Finding(NamedTuple):
    """One piece of personal data: `text[start:end]`."""

    start: int
    end: int
    type: PiiType


Spans = Iterator[tuple[int, int]]

_HINT = re.compile(r"[0-9@:]")
"""What every recogniser needs to see at least one of."""

_SHORTEST = 6
"""Characters of the shortest finding, an address such as `a@b.co`."""

# Folding maps character to character, so that spans in the folded text are spans in the original.
_ODD = re.compile("[^\\D0-9]|[\u00a0\u00ad\u2000-\u200d\u2010-\u2015\u202f\u2060\u2212\u3000\ufe6b\ufeff\uff01-\uff5e]")
_FOLDED = {
    **dict.fromkeys((0xA0, *range(0x2000, 0x200B), 0x202F, 0x3000), " "),
    **dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-"),
    **dict.fromkeys((0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF), "\u200b"),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    0xFE6B: "@",
}
_OTHER_DIGIT = re.compile(r"[^\D0-9]")

_CARD_RUN = re.compile(r"[0-9](?:[ \u200b-]?[0-9])*+")
_GROUP = re.compile(r"[0-9]+")
_IBAN = re.compile(r"[A-Za-z]{2}[0-9]{2}[ \u200b-]?[A-Za-z0-9](?:[ \u200b-]?[A-Za-z0-9]){9,39}+")
_SEPARATORS = re.compile(r"[ \u200b-]")
_SSN = re.compile(r"[0-9]{3}([ .\u200b-])[0-9]{2}\1[0-9]{4}")
_PLAIN_SSN = re.compile(
    r"(?:ssn|social security(?: number| no\.?)?)[\"']?\s?(?:[:=#]|is)?\s{0,3}[\"']?([0-9]{9})(?![0-9])", re.I
)
_SSN_WORD = re.compile(r"ssn|social[ _-]?security", re.I)
_SSN_KEY = re.compile(r"(?:^|[^A-Za-z])(?i:ssn)(?![A-Za-z])|(?<=[a-z])S(?:SN|sn)(?![a-z])|(?i:social[ _-]?security)")
_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_IPV6 = re.compile(r"(?:[0-9A-Fa-f]{0,4}:){2,7}(?:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f]{0,4})")
_DOMAIN = re.compile(r"(?:\w(?:[\w-]{0,61}\w)?\.){1,8}(?:xn--[A-Za-z0-9-]{2,59}|[^\W\d_]{2,24})")
_LOCAL = frozenset("._%+'-")
_MAX_LOCAL = 64


def fold(text: str) -> str:
    """Give look-alikes their plain form, character by character: other digits, wide forms, blanks, dashes."""
    if text.isascii() or _ODD.search(text) is None:
        return text
    return _OTHER_DIGIT.sub(lambda match: str(int(match[0])), text.translate(_FOLDED))


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether no word, longer number or mask goes on at either side of the span."""
    if start and (text[start - 1].isalnum() or text[start - 1] in "_*"):
        return False
    return end == len(text) or not (text[end].isalnum() or text[end] in "_*")


def _within_number(text: str, start: int, end: int, joints: str = ".-") -> bool:
    """Whether the span is a part of something like `1-123-45-6789` or `1.2.3.4.5`."""
    if start > 1 and text[start - 1] in joints and text[start - 2].isdigit():
        return True
    return end + 1 < len(text) and text[end] in joints and text[end + 1].isdigit()


def emails(text: str) -> Spans:
    """Addresses with a dotted domain; quoted local parts and literal IP domains are not looked for."""
    at, taken = text.find("@"), 0
    while at >= 0:
        start, floor = at, max(taken, at - _MAX_LOCAL)
        while start > floor and (text[start - 1].isalnum() or text[start - 1] in _LOCAL or text[start - 1] == "_"):
            start -= 1
        while start < at and not text[start].isalnum() and text[start] not in "_+":
            start += 1
        if start < at and (domain := _DOMAIN.match(text, at + 1)):
            taken = domain.end()
            yield start, taken
        at = text.find("@", at + 1)


def cards(text: str) -> Spans:
    """Card numbers of 13 to 19 digits, together or in groups parted by a single blank or dash."""
    for run in _CARD_RUN.finditer(text):
        if run.end() - run.start() >= 13:
            yield from _cards_in(text, run)


def _cards_in(text: str, run: re.Match[str]) -> Spans:
    """Windows over the groups of one run, since numbers beside a card may look like a part of it."""
    groups = [match.span() for match in _GROUP.finditer(text, run.start(), run.end())]
    first = 0
    while first < len(groups):
        last = _card_end(text, groups, first)
        if last is None:
            first += 1
            continue
        yield groups[first][0], groups[last][1]
        first = last + 1


def _card_end(text: str, groups: Sequence[tuple[int, int]], first: int) -> int | None:
    """The last group of the longest card that starts with the group `first`."""
    if groups[first][1] - groups[first][0] < 4:
        return None
    digits, found = "", None
    for last in range(first, len(groups)):
        digits += text[slice(*groups[last])]
        if len(digits) > 19:
            break
        start, end = groups[first][0], groups[last][1]
        if is_card(digits) and _stands_alone(text, start, end) and not _within_number(text, start, end, "."):
            found = last
    return found


def ibans(text: str) -> Spans:
    """Bank account numbers of the countries in the IBAN registry, in any case, together or in groups."""
    match = _IBAN.search(text)
    while match is not None:
        start, end = match.start(), _iban_end(text, match)
        if end:
            yield start, end
        # What merely begins like one may have swallowed the real one: the search goes on right behind its first letter.
        match = _IBAN.search(text, end or start + 1)


def _iban_end(text: str, match: re.Match[str]) -> int:
    """Where the IBAN that starts with the match ends; 0 when there is none."""
    compact = _SEPARATORS.sub("", match[0]).upper()
    length = is_iban_start(compact)
    end = _end_of(text, match.start(), length) if length else 0
    return end if end and _stands_alone(text, match.start(), end) else 0


def _end_of(text: str, start: int, length: int) -> int:
    """Where `length` letters and digits from `start` on end, separators not counted."""
    end = start
    while length:
        length -= text[end].isalnum()
        end += 1
    return end


def ssns(text: str) -> Spans:
    """US social security numbers: grouped 3-2-4, or nine digits right after the words for one."""
    for match in _SSN.finditer(text):
        start, end = match.span()
        assigned = is_ssn(match[0][:3] + match[0][4:6] + match[0][7:])
        if assigned and _stands_alone(text, start, end) and not _within_number(text, start, end):
            yield start, end
    if _SSN_WORD.search(text):
        yield from (match.span(1) for match in _PLAIN_SSN.finditer(text) if is_ssn(match[1]))


def ips(text: str) -> Spans:
    """IPv4 addresses in four groups and IPv6 addresses in every textual form, without zone or prefix length."""
    if "." in text:
        for match in _IPV4.finditer(text):
            start, end = match.span()
            if is_ipv4(match[0]) and _stands_alone(text, start, end) and not _within_number(text, start, end, "."):
                yield start, end
    if text.count(":") >= 2:
        for match in _IPV6.finditer(text):
            start, end = match.span()
            alone = _stands_alone(text, start, end) and ":" not in (text[start - 1 : start], text[end : end + 1])
            if alone and is_ipv6(match[0]):
                yield start, end


class Recognisers:
    """The recognisers of some types, ready to run."""

    def __init__(self, types: Collection[PiiType], phone_regions: Sequence[str] = ("US",)) -> None:
        """Prepare those of `types`. `phone_regions`: see `PhoneFinder`."""
        self.types = frozenset(types)
        known: dict[PiiType, Callable[[str], Spans]] = {
            PiiType.EMAIL: emails,
            PiiType.IBAN: ibans,
            PiiType.CARD: cards,
            PiiType.SSN: ssns,
            PiiType.IP: ips,
        }
        self._spans = {type_: known[type_] for type_ in PiiType if type_ in types and type_ in known}
        self._phones = PhoneFinder(phone_regions) if PiiType.PHONE in types else None

    def find(self, text: str, key: str = "") -> list[Finding]:
        """Every piece of personal data in `text`, in order and without overlap.

        Args:
            text: Of any length; the time grows linearly with it.
            key: The key that the text stands under, if any: nine digits under `ssn` are a social security number.
        """
        if len(text) < _SHORTEST:
            return []
        if not text.isascii():
            text = fold(text)
        if _HINT.search(text) is None:
            return []
        found: list[Finding] = []
        for type_, spans in self._spans.items():
            if type_ is not PiiType.EMAIL or "@" in text:
                found += [Finding(start, end, type_) for start, end in spans(text)]
        if PiiType.SSN in self._spans and _is_keyed_ssn(text, key):
            found.append(Finding(0, len(text), PiiType.SSN))
        found = _settle(found)
        if self._phones is None:
            return found
        phones = [Finding(start, end, PiiType.PHONE) for start, end in self._phones.find(_without(text, found))]
        return _settle(found + phones) if phones else found


def _is_keyed_ssn(text: str, key: str) -> bool:
    return len(text) == 9 and text.isdigit() and is_ssn(text) and is_ssn_key(key)


def is_ssn_key(key: str) -> bool:
    """Whether a key says that a social security number stands under it, such as `ssn` or `social_security_no`."""
    return bool(key) and _SSN_KEY.search(key) is not None


def _settle(found: list[Finding]) -> list[Finding]:
    """Drop what overlaps a finding of a type that goes before, and put the rest in order."""
    if len(found) < 2:
        return found
    rank = {type_: number for number, type_ in enumerate(PiiType)}
    kept: list[Finding] = []
    for finding in sorted(found, key=lambda item: (item.start, rank[item.type])):
        if kept and finding.start < kept[-1].end:
            if rank[finding.type] < rank[kept[-1].type]:
                kept[-1] = finding
            continue
        kept.append(finding)
    return kept


def _without(text: str, found: Sequence[Finding]) -> str:
    """The text with every finding blanked out by as many characters that belong to nothing."""
    if not found:
        return text
    parts, end = [], 0
    for finding in found:
        parts += [text[end : finding.start], "\0" * (finding.end - finding.start)]
        end = finding.end
    return "".join([*parts, text[end:]])
