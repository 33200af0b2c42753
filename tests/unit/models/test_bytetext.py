from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpex.framework.models.bytetext import bytes_of_text, text_in_bytes


@given(st.binary(max_size=40) | st.text(max_size=40).map(lambda text: text.encode(errors="replace") + b"\xff"))
def test_what_is_taken_for_text_comes_back_as_the_same_bytes(data: bytes) -> None:
    text = text_in_bytes(data)
    assert text is None or bytes_of_text(text) == data


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", ""),
        (b"plain", "plain"),
        ("é".encode(), "é"),
        # One byte in eight, and one more.
        (b"\xe9234567\n", "\udce9234567\n"),
        (b"\xe923456\n", None),
        # Control characters count as well where something else is strange.
        (b"\xe9\x00" + b"a" * 14, "\udce9\x00" + "a" * 14),
        (b"\xe9\x00" + b"a" * 13, None),
        # What is UTF-8 throughout is text, whatever it says.
        (bytes(range(128)), "".join(map(chr, range(128)))),
        (bytes(range(256)), None),
        (memoryview(b"\xe9 memory view"), "\udce9 memory view"),
    ],
)
def test_bytes_are_text_when_few_of_them_are_something_else(data: bytes, text: str | None) -> None:
    assert text_in_bytes(data) == text


def test_a_half_of_a_pair_that_stands_for_no_byte_becomes_a_question_mark() -> None:
    assert bytes_of_text("a\ud800b") == b"a?b"
