"""Finds phone numbers with the `phonenumbers` library, which knows the numbering plan of every country.

The library reads one or two megabytes a second where there are digits, so it is shown only the places where enough of
them stand together, and is loaded when the first such place is met.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

__all__ = ["PhoneFinder"]

_CANDIDATE = re.compile(r"(?:\+[ (]?|\()?[0-9](?:[ .()/\u200b-]{0,3}[0-9]){5,23}+")
_DEFAULT_REGIONS = ("US",)
_GROUP = re.compile(r"[0-9]+")
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
        taken = 0
        for match in _CANDIDATE.finditer(text):
            start, end = match.span()
            if start < taken or not _bounded(text, start, end):
                continue
            for span in self._in_candidate(text, start, end):
                taken = span[1]
                yield span

    def _in_candidate(self, text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
        library = self._loaded()
        # The window goes further than the candidate: to an extension, and to the rest of a number that it has cut.
        window = text[start : end + _EXTENSION]
        if not window.startswith(("+", "(+", "00", "011")) and not self._may_be_national(window):
            return
        for region in ("ZZ",) if window.startswith("+") or not self._regions else self._regions:
            found = [(start + match.start, start + match.end) for match in self._matches(library, window, region)]
            found = [span for span in found if span[0] < end]
            if found:
                yield from found
                return

    def _may_be_national(self, window: str) -> bool:
        """Whether some neighbouring groups have together as many digits as a number of a region has."""
        sizes = [len(group) for group in _GROUP.findall(window)]
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


def _bounded(text: str, start: int, end: int) -> bool:
    """Whether the digits are neither the tail of a word nor masked, and no longer number goes on behind them."""
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (before.isalnum() or before in ("_", "*")) and not (after.isdigit() or after in ("_", "*"))


def _national_lengths(library: Any, region: str) -> set[int]:
    """How many digits a number of the region has when it is written there, with and without the national prefix."""
    metadata = library.PhoneMetadata.metadata_for_region(region)
    if metadata is None:
        raise ValueError(f"unknown phone region `{region}`; write two upper-case letters, such as US or DE")
    lengths = set(metadata.general_desc.possible_length)
    code = len(str(metadata.country_code))
    return {length + more for length in lengths for more in (0, len(metadata.national_prefix or ""), code)}
