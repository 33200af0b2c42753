from __future__ import annotations

import pytest
import re2

from cpex.builtins.security.pattern_set import PatternSet


def test_every_pattern_that_occurs_is_named_by_its_number() -> None:
    patterns = PatternSet(["ab+c", r"\d{3}", "é"])
    assert len(patterns) == 3
    assert [patterns.found_in(text.encode()) for text in ("xx abbbc", "é 123", "", "nothing")] == [[0], [1, 2], [], []]


def test_the_case_counts_only_when_it_is_told_to() -> None:
    assert PatternSet(["abc"]).found_in(b"ABC") == []
    assert PatternSet(["abc"], case_sensitive=False).found_in(b"ABC") == [0]


def test_no_patterns_find_nothing() -> None:
    assert PatternSet([]).found_in(b"anything") == []


def test_what_is_no_pattern_is_refused() -> None:
    with pytest.raises(re2.error):
        PatternSet(["(?=a)b"])
