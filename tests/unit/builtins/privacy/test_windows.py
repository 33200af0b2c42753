"""Each window's pattern is held against a slow reading of the same rule."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpex.builtins.privacy.checks import is_ssn
from cpex.builtins.privacy.windows import MAX_CARD, MIN_CARD, card_fits, ipv4_fits, said_ssn_fits, ssn_fits

BORDERS = ("", " ", "x", "9", "_", "*", "é", "(", "+", "3.", "-", ".")


@pytest.mark.parametrize(
    "digits",
    [
        "4111111111111111",
        "4222222222222",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "30569309025904",
        "6759649826438453",
        "6304000000000000000",
        "501800000009",
    ],
)
def test_numbers_begin_as_those_of_an_issuer_of_that_length(digits: str) -> None:
    grouped = " ".join(re.findall(".{1,4}", digits))
    assert card_fits(len(digits), len(digits))(digits, 0)
    assert card_fits(len(digits), len(grouped))(grouped, 0)


@pytest.mark.parametrize("digits", ["411111111111", "9780306406157", "1716239022000", "0000000000000000", "4" * 17])
def test_numbers_that_no_issuer_of_that_length_has_do_not_fit(digits: str) -> None:
    assert not card_fits(len(digits), len(digits))(digits, 0)


@given(
    before=st.sampled_from(BORDERS),
    after=st.sampled_from((*BORDERS, ".3")),
    length=st.integers(MIN_CARD, MAX_CARD),
)
def test_a_card_is_no_part_of_a_word_phone_fraction_or_mask(before: str, after: str, length: int) -> None:
    text = before + "6759649826438453123"[:length] + after
    free = before not in ("x", "9", "_", "*", "é", "+", "3.") and after not in ("x", "9", "_", "*", "é", "3.", ".3")
    assert (card_fits(length, length)(text, len(before)) is not None) is free


@given(st.text("0123456789", min_size=9, max_size=9))
def test_nine_digits_fit_where_they_could_be_assigned(digits: str) -> None:
    groups = "-".join((digits[:3], digits[3:5], digits[5:]))
    assert (said_ssn_fits(f"ssn: {digits}", 0) is not None) is is_ssn(digits)
    assert not said_ssn_fits(f"ssn: {digits}0", 0)
    assert (ssn_fits(groups, 0) is not None) is is_ssn(digits)
    assert not ssn_fits(f"1-{groups}", 2)
    assert not ssn_fits(f"{groups}-1", 0)
    assert not ssn_fits(groups.replace("-", " ", 1), 0)


@given(st.lists(st.integers(0, 299), min_size=4, max_size=4))
def test_four_numbers_are_an_address_as_the_standard_library_says(numbers: list[int]) -> None:
    text = ".".join(map(str, numbers))
    try:
        ipaddress.IPv4Address(text)
        known = True
    except ValueError:
        known = False
    assert (ipv4_fits(f"{text} ", 0) is not None) is known
    assert not ipv4_fits(f"{text}.1", 0)
    assert not ipv4_fits(f"1.{text}", 2)
