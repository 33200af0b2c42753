"""The numbering plans answer as the library does that they come from."""

from __future__ import annotations

import random
from itertools import pairwise

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


def national(region: str) -> list[str]:
    """Digits that are dialled in a region, others that differ from them in one, and some that are made up."""
    choice = random.Random(region)
    dialled: list[str] = []
    for kind in phonenumbers.PhoneNumberType.values():
        number = phonenumbers.example_number_for_type(region, kind)
        if number is not None:
            written = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.NATIONAL)
            abroad = phonenumbers.format_out_of_country_calling_number(number, region)
            dialled += [
                "".join(filter(str.isdigit, form)) for form in (written, abroad, f"{number.country_code}{abroad}")
            ]
    for digits in list(dialled):
        place = choice.randrange(len(digits))
        dialled.append(digits[:place] + str(choice.randrange(10)) + digits[place + 1 :])
    return dialled + [str(choice.randrange(10**length)).zfill(length) for length in range(6, 16) for _ in range(20)]


@pytest.mark.parametrize("region", REGIONS)
def test_what_is_asked_first_holds_back_no_number(region: str) -> None:
    plan = plan_of(region)
    known = [digits for digits in national(region) if plan.is_national(digits)]
    assert known
    assert [digits for digits in known if not plan.may_have(digits)] == []


@pytest.mark.parametrize("region", REGIONS)
def test_every_way_to_group_a_number_is_among_those_of_its_plan(region: str) -> None:
    plan, choice = plan_of(region), random.Random(region)
    usual = 0
    for digits in filter(plan.is_national, national(region)):
        for _ in range(60):
            ends = sorted(choice.sample(range(1, len(digits)), choice.randint(1, min(5, len(digits) - 1))))
            sizes = tuple(end - start for start, end in pairwise([0, *ends, len(digits)]))
            if plan.is_grouped(digits, sizes):
                usual += 1
                assert {sizes[1:], sizes[2:]} & plan.groupings(), (digits, sizes)
    assert usual
