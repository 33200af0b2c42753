from __future__ import annotations

import pytest
from stdnum import iban as stdnum_iban
from stdnum import luhn as stdnum_luhn

from cpex.builtins.privacy.checks import is_iban, is_ipv6, is_network_card, is_ssn, luhn


def test_the_check_digit_is_judged_as_stdnum_judges_it() -> None:
    for number in range(79927398700, 79927398900):
        assert luhn(str(number).encode()) is bool(stdnum_luhn.is_valid(str(number)))


@pytest.mark.parametrize(
    "digits",
    [
        "4111111111111111",
        "4222222222222",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "6011111111111117",
        "3530111333300000",
        "30569309025904",
        "6200000000000005",
    ],
)
def test_the_test_numbers_of_the_networks_are_cards(digits: str) -> None:
    assert is_network_card(digits)


@pytest.mark.parametrize("digits", ["4111111111111112", "411111111111", "9780306406157", "0000000000000000", "4" * 20])
def test_a_wrong_check_digit_length_or_prefix_is_no_card_of_a_large_network(digits: str) -> None:
    assert not is_network_card(digits)


@pytest.mark.parametrize(
    ("digits", "valid"),
    [
        ("123456789", True),
        ("899999999", True),
        ("000123456", False),
        ("666123456", False),
        ("900123456", False),
        ("123006789", False),
        ("123450000", False),
        ("12345678", False),
    ],
)
def test_numbers_that_are_never_assigned_are_no_social_security_numbers(digits: str, valid: bool) -> None:
    assert is_ssn(digits) is valid


@pytest.mark.parametrize(
    "text", ["GB82WEST12345698765432", "DE89370400440532013000", "NO9386011117947", "FR1420041010050500013M02606"]
)
def test_an_iban_is_as_long_as_its_country_says_and_leaves_one_by_97(text: str) -> None:
    assert stdnum_iban.is_valid(text)
    assert all(is_iban(written.encode()) for written in (text, text.lower(), text[0] + text[1:].lower()))
    wrong = (text + "M", text[:-1], text[:-1] + "9X"[text[-1] == "9"], "XX" + text[2:], text[:2] + "A" + text[3:], "")
    assert not any(is_iban(written.encode()) for written in wrong)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("2001:db8::8a2e:370:7334", True),
        ("2001:0db8:85a3:0000:0000:8a2e:0370:7334", True),
        ("::ffff:192.168.1.1", True),
        ("fe80::1", True),
        ("::1", False),
        ("::", False),
        ("1::2", False),
        ("a::b", False),
        ("12:34:56", False),
        ("1:2:3:4:5:6:7:8:9", False),
    ],
)
def test_an_address_that_points_to_somebody_is_told_from_slices_and_times(text: str, address: bool) -> None:
    assert is_ipv6(text) is address
