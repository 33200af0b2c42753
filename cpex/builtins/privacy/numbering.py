"""Whether digits are a telephone number, by the numbering plans that come with the `phonenumbers` library.

The library reads a text at a tenth of a megabyte a second where there are digits, because it normalises, parses and
formats each candidate in many small steps. The plans themselves are a few patterns for each country, and asking those
is what takes the time here: some microseconds for a number and a country. That both agree is held by a test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from itertools import accumulate, product
from typing import Any

__all__ = ["Plan", "is_international", "plan_of"]

_KINDS = (
    "fixed_line",
    "mobile",
    "toll_free",
    "premium_rate",
    "shared_cost",
    "voip",
    "personal_number",
    "pager",
    "uan",
    "voicemail",
)
_GROUP = re.compile(r"\((.+?)\)")
_ANY_DIGIT = re.compile(r"\[[^]]+\]|(?<![{,0-9])[0-9](?![,}])")
"""What stands for one digit in the pattern of a format: some or a certain one; not how many there are."""
_MIN_DIGITS, _MAX_DIGITS = 6, 15
"""Of a number with its country code. Source: ITU-T E.164, clause 6.1; some services have six."""


class Plan:
    """The numbering plan of one country."""

    def __init__(self, metadata: Any) -> None:
        """Compile what the library has on it."""
        self.code = str(metadata.country_code)
        self._general = _pattern(metadata.general_desc)
        kinds = [pattern for kind in _KINDS if (pattern := _source(getattr(metadata, kind)))]
        self._kinds = re.compile("|".join(dict.fromkeys(kinds)) or "(?!)")
        self._leading = re.compile(metadata.leading_digits or "")
        self.abroad = re.compile(metadata.international_prefix or "(?!)")
        """What is dialled before a country code."""
        self._prefix = re.compile(metadata.national_prefix_for_parsing or "(?!)")
        rule = metadata.national_prefix_transform_rule
        self._transform: str | None = rule and re.sub(r"\\(\d)", r"\\g<\1>", rule)
        """What takes the place of the prefix, as `re.Match.expand` reads it."""
        self._formats = [_Format(format_) for format_ in metadata.number_format]
        # In one pattern, as some plans have dozens. What is matched last is the group around all of a format.
        self._written = re.compile("|".join(f"({format_.outline})" for format_ in self._formats) or "(?!)")
        groups = accumulate([1, *(re.compile(format_.outline).groups + 1 for format_ in self._formats)])
        self._format_of = dict(zip(groups, self._formats, strict=False))
        self.lengths = self._lengths(metadata)
        """How many digits a number may have as it is written in the country."""
        self._dialled = re.compile(self._outline())

    def _outline(self) -> str:
        """A pattern that all digits fit that are dialled in the country, and few others."""
        prefix, kinds = self._prefix.pattern, f"(?:{self._kinds.pattern})"
        dialled = f"(?:{prefix})?{kinds}"
        if self._transform:
            # Digits may go between the prefix and the number; where they are put in, no pattern tells.
            goes_out = re.fullmatch(r"\\g<\d>", self._transform) is not None
            dialled = f"(?:{kinds}|(?={prefix}){f'[0-9]{{0,9}}{kinds}' if goes_out else '[0-9]+'})"
        return f"(?:{self.code})?{dialled}"

    def _lengths(self, metadata: Any) -> frozenset[int]:
        lengths = set(metadata.general_desc.possible_length)
        code, prefix = len(self.code), len(metadata.national_prefix or "")
        return frozenset(length + more for length in lengths for more in (0, prefix, code, code + prefix))

    def is_valid(self, number: str) -> bool:
        """Whether digits without any prefix are a number of this plan."""
        if self._general.fullmatch(number) is None or self._kinds.fullmatch(number) is None:
            return False
        return self._leading.match(number) is not None

    def stripped(self, digits: str) -> str:
        """The digits without the national prefix, where taking it away leaves a number."""
        match = self._prefix.match(digits)
        if match is None:
            return digits
        rest = digits[match.end() :]
        if self._transform and match.lastindex and match[match.lastindex] is not None:
            rest = match.expand(self._transform) + rest
        if self._general.fullmatch(digits) and not self._general.fullmatch(rest):
            return digits
        return rest

    def may_have(self, digits: str) -> bool:
        """Whether `is_national` is worth asking, which takes a few times as long."""
        if len(digits) in self.lengths and self._dialled.fullmatch(digits) is not None:
            return True
        return self.abroad.match(digits) is not None

    def is_national(self, digits: str) -> bool:
        """Whether digits are a number as it is dialled in the country, in it or abroad."""
        if len(digits) in self.lengths and self._is_dialled(digits):
            return True
        abroad = self.abroad.match(digits)
        return abroad is not None and is_international(digits[abroad.end() :])

    def _is_dialled(self, digits: str) -> bool:
        number = self.stripped(digits)
        if self.is_valid(number):
            return number != digits or not self._needs_prefix(number)
        # As in `49 30 901820`: the country's own code, the plus sign forgotten.
        number = self.stripped(digits[len(self.code) :]) if digits.startswith(self.code) else ""
        return bool(number) and not self._general.fullmatch(digits) and self.is_valid(number)

    def is_grouped(self, digits: str, sizes: tuple[int, ...]) -> bool:
        """Whether a number that is written in groups of these sizes is grouped as is usual in the country."""
        format_ = self._format(self.stripped(digits))
        usual = format_.sizes(self.stripped(digits)) if format_ else ()
        # The first group may have the prefix before it, or the prefix stands alone.
        return sizes[-len(usual) + 1 :] == usual[1:] and len(sizes) - len(usual) in (0, 1)

    def groupings(self) -> frozenset[tuple[int, ...]]:
        """Digits in the groups after the first, of all ways to write numbers in groups: `is_grouped` knows no other."""
        return frozenset(sizes for format_ in self._formats for sizes in format_.rests())

    def _needs_prefix(self, number: str) -> bool:
        format_ = self._format(number)
        return format_ is not None and format_.needs_prefix

    def _format(self, number: str) -> _Format | None:
        """The first format that fits."""
        fit = self._written.fullmatch(number)
        return self._format_of[fit.lastindex] if fit and fit.lastindex else None


class _Format:
    """How some numbers of a plan are written."""

    def __init__(self, format_: Any) -> None:
        leading = format_.leading_digits_pattern
        self.outline = f"(?={leading[-1] if leading else ''}){format_.pattern}"
        """What a number fits that is written so."""
        self._pattern = re.compile(format_.pattern)
        rule = format_.national_prefix_formatting_rule or ""
        # `(\1)` and the like put brackets around the first group and no digit before it.
        has_prefix = re.fullmatch(r"\(?\\1\)?", rule) is None and bool(rule)
        self.needs_prefix = has_prefix and not format_.national_prefix_optional_when_formatting

    def sizes(self, number: str) -> tuple[int, ...]:
        """Digits in each group of a number that it fits."""
        match = self._pattern.fullmatch(number)
        return tuple(map(len, match.groups())) if match else ()

    def rests(self) -> Iterator[tuple[int, ...]]:
        """The same for all groups but the first, of any number that it could fit."""
        groups = [re.compile(_ANY_DIGIT.sub(r"\\d", group)) for group in _GROUP.findall(self._pattern.pattern)[1:]]
        return product(
            *([size for size in range(1, _MAX_DIGITS + 1) if group.fullmatch("0" * size)] for group in groups)
        )


def _source(desc: Any) -> str | None:
    pattern: str | None = desc.national_number_pattern if desc is not None else None
    return None if pattern in (None, "NA") else pattern


def _pattern(desc: Any) -> re.Pattern[str]:
    return re.compile(_source(desc) or "(?!)")


@cache
def plan_of(region: str) -> Plan:
    """The plan of a region by its two upper-case letters.

    Raises:
        ValueError: The library does not know the region.
    """
    # Most text never needs the numbering plans, and the library is large.
    import phonenumbers

    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region)
    if metadata is None:
        raise ValueError(f"unknown phone region `{region}`; write two upper-case letters, such as US or DE")
    return Plan(metadata)


@cache
def _plans_of_code(code: str) -> tuple[Plan, ...]:
    """The plans that share a country code; none when nobody has it."""
    import phonenumbers

    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE.get(int(code), ())
    metadata = [phonenumbers.PhoneMetadata.metadata_for_region_or_calling_code(int(code), region) for region in regions]
    return tuple(Plan(each) for each in metadata if each is not None)


def is_international(digits: str) -> bool:
    """Whether digits are a country code and a number of that country, as they stand behind a plus sign."""
    if not _MIN_DIGITS <= len(digits) <= _MAX_DIGITS + 1 or digits[0] == "0":
        # One more for the zero in brackets that some write behind the country code.
        return False
    return any(plan.is_valid(plan.stripped(digits[len(plan.code) :])) for plan in _plans_for(digits))


def _plans_for(digits: str) -> Iterator[Plan]:
    """Plans of the country code that the digits begin with; no code is the beginning of another."""
    for length in (1, 2, 3):
        if plans := _plans_of_code(digits[:length]):
            yield from plans
            return
