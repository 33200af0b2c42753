"""The sieve saves time and nothing else: what is found is the same as without it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cpex.builtins.privacy.kinds import PiiType
from cpex.builtins.privacy.recognisers import Recognisers
from cpex.builtins.privacy.sieve import Sieve

ALL = Recognisers(list(PiiType))
NOTHING = "\n" + "-" * 5000
"""Makes a text too long for the sieve."""
PIECES = (
    "4111 1111 1111 1111",
    "5500-0000-0000-0004",
    "378282246310005",
    "4111\x7f1111\x7f1111\x7f1111",
    "060412345674",
    "180012345678905",
    "213112345678904",
    "2720123456789010",
    "81123456789012347",
    "512345678901234568",
    "8212345678901234567",
    "joe@x.org",
    "jos\xe9.o'neil@x.org",
    "123-45-6789",
    "123.45.6789",
    "ssn 123456789",
    "Social Security no.: 123456789",
    "10.0.0.1",
    "2001:db8::1",
    "1:2:3:4:5:6:7:8",
    "1:2:3:4:5:6:10.0.0.9",
    "GB82 WEST 1234 5698 7654 32",
    "de89370400440532013000",
    "DE89  37040044 0532 0130 00",
    "NO93 8601 1117 947",
    "+1 212 736 5000",
    "(212) 736-5000",
    "2024-05-20 12:34:56",
)


@settings(max_examples=500)
@given(
    st.lists(
        st.sampled_from(PIECES)
        | st.text("0123456789 -.:@()+aF_*xé\u200b\u00a0\u2011\uff14\u0664", max_size=6)
        | st.text(max_size=3),
        max_size=8,
    ).map("".join)
)
def test_what_is_found_is_the_same_without_the_sieve(text: str) -> None:
    assert ALL.find(text) == ALL.find(text + NOTHING)


def test_only_what_is_asked_for_is_seen() -> None:
    plain = b"joe@example.com 10.0.0.1 4111111111111111"
    assert len(Sieve(list(PiiType)).sights(plain)) > len(Sieve([PiiType.IP]).sights(plain)) == 1
    assert Sieve([]).sights(plain) == Sieve([]).sights(plain * 1000) == []


@pytest.mark.parametrize("type_", PiiType)
@pytest.mark.parametrize("padding", ["", NOTHING], ids=["short", "long"])
def test_a_type_that_is_asked_for_alone_is_found_in_texts_of_any_length(type_: PiiType, padding: str) -> None:
    text = "joe@x.org 4111111111111111 123-45-6789 10.0.0.1 +1 212 736 5000 GB82WEST12345698765432"
    assert [finding.type for finding in Recognisers([type_]).find(text + padding)] == [type_]
