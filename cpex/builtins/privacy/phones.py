"""Finds phone numbers with the `phonenumbers` library, which knows the numbering plan of every country.

The library reads one or two megabytes a second where there are digits, so it is shown only the places where enough of
them stand together, and is loaded when the first such place is met.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["PhoneFinder"]

_MAX_DIGITS = 24
_CANDIDATE = re.compile(rf"(?:\+[ (]?|\()?[0-9](?:[ .()/\u200b-]{{0,3}}[0-9]){{5,{_MAX_DIGITS - 1}}}+")
"""Digits that stand together, up to a number of them: one phone number, or the beginning of several."""
_MAX_INTERNATIONAL = 15
"""Digits. Source: ITU-T E.164, clause 6.1."""
_DEFAULT_REGIONS = ("US",)
_GROUP = re.compile(r"[0-9]+")
_DECIMAL = re.compile(r"[0-9]+\.[0-9]+")
"""A fraction: `0.114…` would pass for `011`, the prefix of a call abroad."""
_MAX_GROUPS = 6
"""Groups that a number is written in; more are a table of numbers."""
_EXTENSION = 14
"""Characters after the digits in which an extension may follow."""


class PhoneFinder:
    """Finds numbers in international form, and in the national form of some regions."""

    def __init__(self, regions: Sequence[str]) -> None:
        """Prepare for `regions`: two-letter codes whose numbers are recognised without a country code.

        Raises:
            ValueError: A region is not known to the library.
        """
        self._regions = tuple(regions)
        self._library: Any = None
        self._lengths: frozenset[int] = frozenset()
        if self._regions != _DEFAULT_REGIONS:
            # Unknown regions stop the start; the default is known and need not be looked up yet.
            self._loaded()

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Spans of phone numbers, in order."""
        match = _CANDIDATE.search(text)
        while match is not None:
            start, end = match.span()
            spans = [span for span in self._in_candidate(text, start, end) if _bounded(text, *span)]
            yield from spans
            match = _CANDIDATE.search(text, max(spans[-1][1], end) if spans else _uncut(text, start, end))

    def _in_candidate(self, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        library = self._loaded()
        candidate = text[start:end]
        if not candidate.startswith(("+", "(+", "00", "011")) and not self._may_be_national(candidate):
            return
        window = text[start : end + _EXTENSION]
        for region in ("ZZ",) if candidate.startswith("+") or not self._regions else self._regions:
            found = [(start + match.start, start + match.end) for match in self._matches(library, window, region)]
            found = [span for span in found if span[0] < end]
            if found:
                yield from found
                return

    def _may_be_national(self, candidate: str) -> bool:
        """Whether some neighbouring groups have together as many digits as a number of a region has."""
        sizes = [len(group) for group in _GROUP.findall(candidate)]
        return any(
            sum(sizes[first:last]) in self._lengths
            for first in range(len(sizes))
            for last in range(first + 1, min(first + _MAX_GROUPS, len(sizes)) + 1)
        )

    @staticmethod
    def _matches(library: Any, window: str, region: str) -> Any:
        return library.PhoneNumberMatcher(window, region, leniency=library.Leniency.VALID, max_tries=50)

    def _loaded(self) -> Any:
        if self._library is None:
            # Most text never needs the numbering plans, and they are large.
            import phonenumbers

            lengths: set[int] = set()
            for region in self._regions:
                lengths |= _national_lengths(phonenumbers, region)
            self._lengths = frozenset(lengths)
            self._library = phonenumbers
        return self._library


def _uncut(text: str, start: int, end: int) -> int:
    """Where to look next: behind the candidate or, when it may have cut a number, at the number's first group."""
    groups = list(_GROUP.finditer(text, start, end))
    digits = 0
    if sum(len(group[0]) for group in groups) < _MAX_DIGITS:
        return end
    for group in reversed(groups[1:]):
        digits += len(group[0])
        if digits > _MAX_INTERNATIONAL:
            break
        end = group.start()
    return end


def _bounded(text: str, start: int, end: int) -> bool:
    """Whether the number is neither a part of a word, a fraction nor masked, and does not go on."""
    before, after = text[start - 1 : start], text[end : end + 1]
    if _DECIMAL.fullmatch(text, start, end):
        return False
    return not (before.isalnum() or before in ("_", "*")) and not (after.isdigit() or after in ("_", "*"))


def _national_lengths(library: Any, region: str) -> set[int]:
    """How many digits a number of the region has when it is written there, with and without the national prefix."""
    metadata = library.PhoneMetadata.metadata_for_region(region)
    if metadata is None:
        raise ValueError(f"unknown phone region `{region}`; write two upper-case letters, such as US or DE")
    lengths = set(metadata.general_desc.possible_length)
    code = len(str(metadata.country_code))
    return {length + more for length in lengths for more in (0, len(metadata.national_prefix or ""), code)}
