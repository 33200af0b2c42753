"""Texts that are made to be slow to search. Each takes a second at most; what is not linear would take hours."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cpex.builtins.privacy.kinds import PiiType
from cpex.builtins.privacy.recognisers import Recognisers

SIZE = 1_000_000
PARTS = [
    "212-555-0100 ",
    "4151 ",
    "1 ",
    "1",
    "12-",
    "1  ",
    "4111111111111111 ",
    "123-45-678 ",
    "ssn 123456789 ",
    "GB82",
    "GB82 WEST ",
    "a@",
    "a@b.",
    "1.",
    "1.1.1.1.",
    "a:",
    ":",
    "::1 ",
    "+1 ",
    "(1)",
    "\u0661",
    "1\u200b",
    "\U0001d7d9-",
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("part", PARTS)
def test_a_megabyte_of_anything_is_searched_in_time(part: str) -> None:
    text = (part * (SIZE // len(part) + 1))[:SIZE]
    findings = Recognisers(list(PiiType)).find(text)
    assert all(left.end <= right.start for left, right in pairwise(findings))
