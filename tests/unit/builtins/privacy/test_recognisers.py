# The look-alike characters in these texts are what is tested.
# ruff: noqa: RUF001
from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpex.builtins.privacy.kinds import PiiType
from cpex.builtins.privacy.recognisers import Recognisers

ALL = Recognisers(list(PiiType))


def found(text: str, key: str = "", recognisers: Recognisers = ALL) -> list[tuple[str, str]]:
    return [(finding.type.value, text[finding.start : finding.end]) for finding in recognisers.find(text, key)]


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("pay 4111 1111 1111 1111 exp 12 25", ["4111 1111 1111 1111"]),
        ("4111111111111111", ["4111111111111111"]),
        ("5500-0000-0000-0004,378282246310005", ["5500-0000-0000-0004", "378282246310005"]),
        ("3782 822463 10005", ["3782 822463 10005"]),
        ("12 4111 1111 1111 1111", ["4111 1111 1111 1111"]),
        ("4111111111111111 5500000000000004", ["4111111111111111", "5500000000000004"]),
        ("４１１１\u00a0１１１１\u2011１１１１ １１１１", ["４１１１\u00a0１１１１\u2011１１１１ １１１１"]),
        ("4111\u200b1111\u200b1111\u200b1111", ["4111\u200b1111\u200b1111\u200b1111"]),
        ("4111 1111 1111 1112", []),
        ("x4111111111111111", []),
        ("0.4111111111111111", []),
    ],
)
def test_cards_are_found_in_groups_and_beside_other_numbers(text: str, findings: list[str]) -> None:
    assert found(text) == [("card", finding) for finding in findings]


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("write to joe.o'neil+tag@mail.example.co.uk.", ["joe.o'neil+tag@mail.example.co.uk"]),
        ("<joe@example.com>", ["joe@example.com"]),
        ("'joe@example.com'", ["joe@example.com"]),
        ("mailto:joe@example.com?subject=x", ["joe@example.com"]),
        ("a@b.co,c@d.org", ["a@b.co", "c@d.org"]),
        ("user@exämple.de", ["user@exämple.de"]),
        ("joe＠example．com", ["joe＠example．com"]),
        ("4111111111111111@example.com", ["4111111111111111@example.com"]),
        ("joe@localhost, @joe, a @ b.co, joe@example", []),
    ],
)
def test_email_addresses_are_found_without_what_stands_around_them(text: str, findings: list[str]) -> None:
    assert found(text) == [("email", finding) for finding in findings]


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("call (212) 736-5000 or +44 20 7946 0958", ["(212) 736-5000", "+44 20 7946 0958"]),
        ("212-736-5000 415-867-5309", ["212-736-5000", "415-867-5309"]),
        ("212.736.5000 ext. 12", ["212.736.5000 ext. 12"]),
        ("+49 (0)30 901820", ["+49 (0)30 901820"]),
        ("12345678901234567 212-736-5000", ["212-736-5000"]),
        ("id_4421486 212-736-5000 123_x", ["212-736-5000"]),
        ("2024-05-20 11:30:00", []),
        ("2024-05-20T06:00:00.123456 0.11494638627439357", []),
        ("id_2127365000 and 12 34 56 78 90 12 34", []),
    ],
)
def test_phone_numbers_are_found_by_the_numbering_plans(text: str, findings: list[str]) -> None:
    assert found(text) == [("phone", finding) for finding in findings]


def test_national_phone_numbers_are_those_of_the_regions_asked_for() -> None:
    german = Recognisers([PiiType.PHONE], ["DE"])
    none = Recognisers([PiiType.PHONE], [])
    text = "030 901820, 212-736-5000, +1 212-736-5000"
    assert found(text, recognisers=german) == [("phone", "030 901820"), ("phone", "+1 212-736-5000")]
    assert found(text, recognisers=none) == [("phone", "+1 212-736-5000")]


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("123-45-6789", ["123-45-6789"]),
        ("123 45 6789 and 123.45.6789", ["123 45 6789", "123.45.6789"]),
        ("SSN: 123456789", ["123456789"]),
        ("social security number is 123456789.", ["123456789"]),
        ("order 123456789", []),
        ("000-12-3456 666-12-3456 900-12-3456", []),
        ("1-123-45-6789", []),
        ("123-45-67890", []),
    ],
)
def test_social_security_numbers_are_found_in_groups_or_by_name(text: str, findings: list[str]) -> None:
    assert found(text) == [("ssn", finding) for finding in findings]


def test_nine_digits_under_a_key_that_says_so_are_a_social_security_number() -> None:
    said = ("ssn", "user_SSN", "userSsn", "SSN1", "socialSecurityNumber", "social_security_no")
    unsaid = ("assnr", "lessn", "id", "")
    assert all(found("123456789", key) == [("ssn", "123456789")] for key in said)
    assert not any(found("123456789", key) for key in unsaid)


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("GB82 WEST 1234 5698 7654 32 is mine", ["GB82 WEST 1234 5698 7654 32"]),
        ("de89370400440532013000", ["de89370400440532013000"]),
        ("ref AB12 GB82WEST12345698765432", ["GB82WEST12345698765432"]),
        ("GB82 WEST 1234 5698 7654 33", []),
        ("XGB82WEST12345698765432", []),
    ],
)
def test_ibans_are_found_with_and_without_groups(text: str, findings: list[str]) -> None:
    assert found(text) == [("iban", finding) for finding in findings]


@pytest.mark.parametrize(
    ("text", "findings"),
    [
        ("from 10.0.0.1:8080", ["10.0.0.1"]),
        ("http://[2001:db8::1]:443/", ["2001:db8::1"]),
        ("::ffff:192.168.1.1", ["::ffff:192.168.1.1"]),
        ("fe80::1%eth0", ["fe80::1"]),
        (
            "client:2001:db8::1 src:2001:0db8:85a3:0:0:8a2e:370:7334",
            ["2001:db8::1", "2001:0db8:85a3:0:0:8a2e:370:7334"],
        ),
        ("at 12:34:56 1:2:3:4:5:6:10.0.0.9", ["1:2:3:4:5:6:10.0.0.9"]),
        ("1:2:3:4:5:6:7:8:9 1::2::3 :::1 beef:1:2:3:4:5:6:7:8", []),
        ("1.2.3.4.5 256.1.1.1 v1.2.3.4 1.2.3", []),
        ("06:00:00 std::vector a[1::2] 12:34:56:78:9a:bc", []),
    ],
)
def test_ip_addresses_are_told_from_versions_and_times(text: str, findings: list[str]) -> None:
    assert found(text) == [("ip", finding) for finding in findings]


def test_only_the_types_asked_for_are_found() -> None:
    text = "joe@example.com 10.0.0.1 4111111111111111 212-736-5000"
    assert found(text, recognisers=Recognisers([PiiType.IP])) == [("ip", "10.0.0.1")]
    assert [type_ for type_, _ in found(text)] == ["email", "ip", "card", "phone"]


@settings(max_examples=200)
@given(
    text=st.lists(
        st.sampled_from(["4111 1111 1111 1111", "joe@x.org", "123-45-6789", "10.0.0.1", "+1 212 736 5000", "GB82"])
        | st.text("0123456789 -.:@()+aF\u200b４٤", max_size=8)
    ).map("".join)
)
def test_findings_are_in_order_and_never_overlap(text: str) -> None:
    end = 0
    for finding in ALL.find(text):
        assert end <= finding.start < finding.end <= len(text)
        end = finding.end


@pytest.mark.parametrize(
    "piece", ["1 ", "1234 ", "a@", "@", ":", "a:", "aa11 ", "1.", "123-45-", "+1 ", "(1", "ssn ", "\u200b1", "a-" * 40]
)
def test_long_runs_of_almost_anything_are_answered(piece: str) -> None:
    assert found(piece * (100_000 // len(piece))) == []


def test_the_numbering_plans_are_loaded_when_a_text_needs_them() -> None:
    program = (
        "import sys\n"
        "from cpex.builtins.privacy.kinds import PiiType\n"
        "from cpex.builtins.privacy.recognisers import Recognisers\n"
        "recognisers = Recognisers(list(PiiType))\n"
        "recognisers.find('joe@example.com at 12:30')\n"
        "print('phonenumbers' in sys.modules)\n"
        "recognisers.find('212-736-5000')\n"
        "print('phonenumbers' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "False\nTrue\n"), done.stderr
