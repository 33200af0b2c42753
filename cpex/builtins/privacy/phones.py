"""Finds phone numbers: digits in groups that a numbering plan knows.

Where enough digits stand together, stretches of neighbouring groups are held against the plans, longest first. A
stretch is looked at only where a number could begin and end, and never has more groups or digits than a number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from cpex.builtins.privacy.numbering import is_international, plan_of

__all__ = ["PhoneFinder"]

_RUN = re.compile(r"[0-9](?:[ .()/\u200b-]{0,3}[0-9]){5,}+")
_GROUP = re.compile(r"[0-9]+")
_MIN_DIGITS = 6
"""Shorter numbers are services and house extensions, and look like any other number."""
_MAX_DIALLED = 20
"""Digits of a number with every prefix that is dialled before it."""
_MAX_GROUPS = 7
"""Groups that a number is written in; more are a table of numbers."""
_DATE = re.compile(
    r"(?<![0-9])(?:(?:19|20)[0-9]{2}([-./])[01]?[0-9]\1[0-3]?[0-9]|[0-3]?[0-9]([-./])[0-3]?[0-9]\2(?:19|20)[0-9]{2})"
    r"(?![0-9])"
)
_DECIMAL = re.compile(r"[0-9]+\.[0-9]+")
"""A fraction: `0.114…` would pass for `011`, the prefix of a call abroad."""
_EXTENSION = re.compile(r"(?:;ext=|,? {0,2}(?:ext(?:ension|n)?\.?|x|#)[ :.]{0,2})[0-9]{1,7}(?![0-9])", re.IGNORECASE)
_ID_BEFORE = re.compile(r"[0-9][A-Za-z]{0,4}-\Z")
"""What goes before the digits of an identifier such as `d753d9d-5293-4530`."""
_DEFAULT_REGIONS = ("US",)
_MARKS = frozenset("_*")


class _Group(NamedTuple):
    start: int
    end: int


class PhoneFinder:
    """Finds numbers in international form, and in the national form of some regions."""

    _is_prepared = False

    def __init__(self, regions: Sequence[str]) -> None:
        """Prepare for `regions`: two-letter codes whose numbers are recognised without a country code.

        Raises:
            ValueError: A region is not known to the library.
        """
        self._regions = tuple(regions)
        if self._regions != _DEFAULT_REGIONS:
            # Unknown regions stop the start; the default is known, and most text never needs the large library.
            self._prepare()

    def _prepare(self) -> None:
        self._plans = [plan_of(region) for region in self._regions]
        self._lengths = frozenset(length for plan in self._plans for length in plan.lengths)
        self._abroad = re.compile("|".join(plan.abroad.pattern for plan in self._plans) or "(?!)")
        self._is_prepared = True

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Spans of phone numbers, in order."""
        for run in _RUN.finditer(text):
            if not self._is_prepared:
                self._prepare()
            groups = [_Group(*match.span()) for match in _GROUP.finditer(text, *run.span())]
            first = 0
            while first < len(groups):
                last = self._number(text, groups, first)
                if last is None:
                    first += 1
                    continue
                end = groups[last].end
                start = _start(text, groups[first].start, end)
                extension = _EXTENSION.match(text, end)
                yield start, extension.end() if extension else end
                first = last + 1

    def _number(self, text: str, groups: Sequence[_Group], first: int) -> int | None:
        """The last group of the longest number that starts with the group `first`."""
        start = groups[first].start
        plus = text[start - 1 : start] == "+"
        if not plus and not (self._plans and _may_begin(text, groups, first)):
            return None
        abroad = plus or self._abroad.match(text, start) is not None
        digits, stretches = "", []
        for last in range(first, min(first + _MAX_GROUPS, len(groups))):
            digits += text[slice(*groups[last])]
            if len(digits) > _MAX_DIALLED:
                break
            if len(digits) >= _MIN_DIGITS and (abroad or len(digits) in self._lengths):
                stretches.append((last, digits))
        for last, digits in reversed(stretches):
            if not _may_end(text, groups, last) or not _stands_alone(text, start, groups[last].end):
                continue
            if plus:
                known = is_international(digits)
            elif _goes_on(text, groups, first, last):
                sizes = [end - begin for begin, end in groups[first : last + 1]]
                known = sizes.count(1) < 2 and any(
                    plan.is_national(digits) and plan.is_grouped(digits, sizes) for plan in self._plans
                )
            else:
                known = any(plan.is_national(digits) for plan in self._plans)
            if known:
                return last
        return None


def _may_begin(text: str, groups: Sequence[_Group], first: int) -> bool:
    """Whether a number could begin with that group: inside a run, only behind a blank or slash."""
    return first == 0 or _parts(text[groups[first - 1].end : groups[first].start])


def _may_end(text: str, groups: Sequence[_Group], last: int) -> bool:
    return last + 1 == len(groups) or _parts(text[groups[last].end : groups[last + 1].start])


def _goes_on(text: str, groups: Sequence[_Group], first: int, last: int) -> bool:
    """Whether blanks part the groups, and as well what comes before or after: then any of them may belong together."""
    return (
        first < last
        and any(
            text[left.end : right.start] == " "
            for left, right in zip(groups[first:last], groups[first + 1 : last + 1], strict=True)
        )
        and (first > 0 or last + 1 < len(groups))
    )


def _parts(gap: str) -> bool:
    return " " in gap or "/" in gap


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Whether the number is neither a part of a word, a fraction, a date nor masked, and does not go on."""
    if _DECIMAL.fullmatch(text, start, end) or _DATE.search(text, start, end):
        return False
    if start > 1 and text[start - 1] == "." and text[start - 2].isdigit():
        return False
    first = _start(text, start, end)
    before, after = text[first - 1 : first], text[end : end + 1]
    if before in _MARKS or (first == start and (before.isalnum() or _ID_BEFORE.search(text, max(0, start - 9), start))):
        return False
    if after.isalpha() and after.isascii():
        return _EXTENSION.match(text, end) is not None
    return not after.isdigit() and after not in _MARKS


def _start(text: str, start: int, end: int) -> int:
    """Where the number begins whose first digit stands there: with its plus sign, and a bracket if it is closed."""
    if text[start - 1 : start] == "+":
        start -= 1
    return start - 1 if text[start - 1 : start] == "(" and text.find(")", start, end) >= 0 else start
