"""The numbering plans answer as the library does that they come from."""

from __future__ import annotations

import random

import phonenumbers
import pytest

from cpex.builtins.privacy.numbering import is_international, plan_of

REGIONS = ("US", "GB", "DE", "FR", "IT", "BR", "AR", "IN", "JP", "MX", "AU", "RU", "IL", "NL", "CH", "ES")


def examples() -> list[str]:
    """Numbers of every region and kind with their country code, without the plus sign."""
    found: list[str] = []
    for region in phonenumbers.SUPPORTED_REGIONS:
        for kind in phonenumbers.PhoneNumberType.values():
            number = phonenumbers.example_number_for_type(region, kind)
            if number is not None:
                found.append(phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)[1:])
    return sorted(set(found))


def is_valid(digits: str) -> bool:
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse("+" + digits)))
    except phonenumbers.NumberParseException:
        return False


def test_every_kind_of_number_of_every_country_is_known() -> None:
    assert len(examples()) > 500
    assert [number for number in examples() if not is_international(number)] == []


def test_numbers_that_differ_in_a_few_digits_are_judged_as_the_library_judges_them() -> None:
    choice = random.Random(7)
    differing: list[str] = []
    for number in choice.sample(examples(), 300):
        for _ in range(3):
            place = choice.randrange(len(number))
            other = number[:place] + str(choice.randrange(10)) + number[place + 1 :]
            if is_international(other) != is_valid(other):
                differing.append(other)
    assert len(differing) <= 9, differing


@pytest.mark.parametrize("region", REGIONS)
def test_national_numbers_are_known_as_they_are_dialled_at_home(region: str) -> None:
    for kind in (phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.MOBILE):
        number = phonenumbers.example_number_for_type(region, kind)
        written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
        assert plan_of(region).is_national("".join(filter(str.isdigit, written))), written


@pytest.mark.parametrize(
    ("region", "digits", "known"),
    [
        ("US", "2127365000", True),
        ("US", "12127365000", True),
        ("US", "011442079460958", True),
        ("US", "1127365000", False),
        ("GB", "02079460958", True),
        ("GB", "2079460958", False),
        ("GB", "00442079", False),
        ("GB", "442079460958", True),
        ("DE", "030901820", True),
        ("DE", "0012127365000", True),
    ],
)
def test_prefixes_are_told_from_numbers(region: str, digits: str, known: bool) -> None:
    assert plan_of(region).is_national(digits) is known


@pytest.mark.parametrize("digits", ["", "0", "049", "999123456789", "1" * 20])
def test_what_no_country_has_is_no_number(digits: str) -> None:
    assert not is_international(digits)
