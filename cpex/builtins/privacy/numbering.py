"""Whether digits are a telephone number, by the numbering plans that come with the `phonenumbers` library.

The library reads a text at a tenth of a megabyte a second where there are digits, because it normalises, parses and
formats each candidate in many small steps. The plans themselves are a few patterns for each country, and asking those
is what takes the time here: some microseconds for a number and a country. That both agree is held by a test.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
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
        self._transform: str | None = metadata.national_prefix_transform_rule
        self._formats = [_Format(format_) for format_ in metadata.number_format]
        self.lengths = self._lengths(metadata)
        """How many digits a number may have as it is written in the country."""

    @property
    def outline(self) -> str:
        """A pattern that all digits fit that are dialled in the country, and few others."""
        prefix, general = f"(?:{self._prefix.pattern})?", self._general.pattern
        if self._transform:
            # Digits may go between the prefix and the number; where they are put in, no pattern tells.
            prefix = "[0-9]{0,9}" if re.fullmatch(r"\\\d", self._transform) else ""
            general = general if prefix else "[0-9]+"
        return f"(?:{self.code})?{prefix}(?:{general})"

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
            rest = match.expand(re.sub(r"\\(\d)", r"\\g<\1>", self._transform)) + rest
        if self._general.fullmatch(digits) and not self._general.fullmatch(rest):
            return digits
        return rest

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

    def is_grouped(self, digits: str, sizes: list[int]) -> bool:
        """Whether a number that is written in groups of these sizes is grouped as is usual in the country."""
        format_ = self._format(self.stripped(digits))
        usual = format_.sizes(self.stripped(digits)) if format_ else []
        # The first group may have the prefix before it, or the prefix stands alone.
        return sizes[-len(usual) + 1 :] == usual[1:] and len(sizes) - len(usual) in (0, 1)

    def _needs_prefix(self, number: str) -> bool:
        format_ = self._format(number)
        return format_ is not None and format_.needs_prefix

    def _format(self, number: str) -> _Format | None:
        return next((format_ for format_ in self._formats if format_.fits(number)), None)


class _Format:
    """How some numbers of a plan are written."""

    def __init__(self, format_: Any) -> None:
        leading = format_.leading_digits_pattern
        self._leading = re.compile(leading[-1] if leading else "")
        self._pattern = re.compile(format_.pattern)
        rule = format_.national_prefix_formatting_rule or ""
        # `(\1)` and the like put brackets around the first group and no digit before it.
        has_prefix = re.fullmatch(r"\(?\\1\)?", rule) is None and bool(rule)
        self.needs_prefix = has_prefix and not format_.national_prefix_optional_when_formatting

    def sizes(self, number: str) -> list[int]:
        """Digits in each group of a number that it fits."""
        match = self._pattern.fullmatch(number)
        return [len(group) for group in match.groups()] if match else []

    def fits(self, number: str) -> bool:
        return self._leading.match(number) is not None and self._pattern.fullmatch(number) is not None


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
