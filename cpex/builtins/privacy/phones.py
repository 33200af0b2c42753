"""Finds phone numbers: digits in groups that a numbering plan knows.

Where enough digits stand together, stretches of neighbouring groups are held against the plans, longest first. A
stretch is looked at only where a number could begin and end, and never has more groups or digits than a number.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence

from cpex.builtins.privacy.numbering import Plan, is_international, plan_of

__all__ = ["PhoneFinder"]

_RUN = re.compile(r"[0-9](?:[ .()/\u200b-]{0,3}[0-9]){5,}+")
_PIECES = re.compile(r"([0-9]+)([^0-9]*)")
_MIN_DIGITS = 6
"""Shorter numbers are services and house extensions, and look like any other number."""
_MAX_DIALLED = 20
"""Digits of a number with every prefix that is dialled before it."""
_ANY_LENGTH = range(_MIN_DIGITS, _MAX_DIALLED + 1)
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


class _Run:
    """Digits in groups, and what may part two numbers in it. Read once, as most places in it are looked at again."""

    __slots__ = ("before", "begins", "blank", "digits", "ends", "sizes", "starts")

    def __init__(self, text: str, start: int, end: int) -> None:
        starts, ends, before, begins, blank, sizes = [], [], [0], [True], [], []
        pieces = _PIECES.findall(text, start, end)
        count = 0
        for group, gap in pieces:
            starts.append(start)
            start += len(group)
            ends.append(start)
            start += len(gap)
            count += len(group)
            before.append(count)
            begins.append(" " in gap or "/" in gap)
            blank.append(gap == " ")
            sizes.append(len(group))
        begins[-1] = True
        digits = "".join([group for group, _ in pieces])
        self.starts, self.ends, self.digits = starts, ends, digits
        self.sizes = sizes
        """Digits of each group."""
        self.blank = blank
        """Whether one blank stands after a group."""
        self.before = before
        """Digits before each group, and at the end of them."""
        self.begins = begins
        """Whether a number could begin with a group, and so end with the one before: at the ends of the run, and where
        a blank or slash stands between."""

    def __len__(self) -> int:
        return len(self.starts)

    def number(self, first: int, last: int) -> str:
        """The digits of some groups."""
        return self.digits[self.before[first] : self.before[last + 1]]

    def stretches(self, first: int, lengths: Sequence[int]) -> list[int]:
        """Last groups of all stretches from a group on that have so many digits and could end there."""
        before, begins = self.before, self.begins
        begun, stop = before[first], min(first + _MAX_GROUPS, len(self.starts)) + 1
        least, most = begun + lengths[0], begun + lengths[-1]
        if before[stop - 1] < least:
            return []
        stretches = []
        for after in range(bisect_left(before, least, first + 1, stop), stop):
            if before[after] > most:
                break
            if begins[after] and before[after] - begun in lengths:
                stretches.append(after - 1)
        return stretches


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
        lengths = {length for plan in self._plans for length in plan.lengths}
        self._lengths = sorted(length for length in lengths if length >= _MIN_DIGITS) or [_MAX_DIALLED]
        self._abroad = re.compile(f"(?:{'|'.join({plan.abroad.pattern: 0 for plan in self._plans}) or '(?!)'})")
        self._grouping: dict[tuple[int, ...], list[Plan]] = {}
        for plan in self._plans:
            for sizes in plan.groupings():
                self._grouping.setdefault(sizes, []).append(plan)
        self._is_prepared = True

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Spans of phone numbers, in order."""
        for match in _RUN.finditer(text):
            if not self._is_prepared:
                self._prepare()
            run = _Run(text, *match.span())
            first = 0
            while first < len(run):
                last = self._number(text, run, first)
                if last is None:
                    first += 1
                    continue
                start, end = _start(text, run.starts[first], run.ends[last]), run.ends[last]
                extension = _EXTENSION.match(text, end)
                yield start, extension.end() if extension else end
                first = last + 1

    def _number(self, text: str, run: _Run, first: int) -> int | None:
        """The last group of the longest number that starts with the group `first`."""
        start = run.starts[first]
        plus = text[start - 1 : start] == "+"
        if not plus and not (self._plans and run.begins[first]):
            return None
        abroad = plus or self._abroad.match(text, start) is not None
        for last in reversed(run.stretches(first, _ANY_LENGTH if abroad else self._lengths)):
            if self._is_number(text, run, first, last, plus=plus):
                return last
        return None

    def _is_number(self, text: str, run: _Run, first: int, last: int, *, plus: bool) -> bool:
        """Whether groups are a number; what costs little is asked first."""
        start, end = run.starts[first], run.ends[last]
        if plus:
            return _stands_alone(text, start, end) and is_international(run.number(first, last))
        sizes = tuple(run.sizes[first : last + 1]) if _goes_on(run, first, last) else ()
        digits, stands = run.number(first, last), False
        for plan in self._grouped(sizes) if sizes else self._plans:
            if plan.may_have(digits):
                stands = stands or _stands_alone(text, start, end)
                if not stands:
                    return False
                if plan.is_national(digits) and (not sizes or plan.is_grouped(digits, sizes)):
                    return True
        return False

    def _grouped(self, sizes: tuple[int, ...]) -> Sequence[Plan]:
        """The plans that write some of their numbers in groups of these sizes."""
        if sizes.count(1) > 1:
            return ()
        # The prefix may be a group of its own.
        return [*self._grouping.get(sizes[1:], ()), *self._grouping.get(sizes[2:], ())]


def _goes_on(run: _Run, first: int, last: int) -> bool:
    """Whether blanks part the groups, and as well what comes before or after: then any of them may belong together."""
    return first < last and (first > 0 or last + 1 < len(run)) and True in run.blank[first:last]


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
