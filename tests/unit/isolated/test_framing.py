"""Lines: cut from a stream however it arrives, and never held beyond the limit."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpex.framework.isolated.channel import read_line
from cpex.framework.isolated.framing import LineSplitter, LineTooLong, frame, id_at_start, is_typed


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), st.integers(1, 40), st.integers(1, 25))
def test_lines_are_the_same_however_the_stream_is_cut(lines: list[bytes], limit: int, step: int) -> None:
    stream = b"".join(line + b"\n" for line in lines)
    splitter = LineSplitter(limit)
    found = [each for start in range(0, len(stream), step) for each in splitter.feed(stream[start : start + step])]
    assert len(found) == len(lines)
    for line, got in zip(lines, found, strict=True):
        assert got == (line if len(line) <= limit else LineTooLong(len(line), line[:1024]))


@given(st.lists(st.binary(max_size=30).filter(lambda line: b"\n" not in line)), st.integers(1, 40))
def test_a_file_is_read_by_the_same_rule(lines: list[bytes], limit: int) -> None:
    source = io.BytesIO(b"".join(line + b"\n" for line in lines))
    for line in lines:
        got, too_long = read_line(source, limit)
        assert too_long is (len(line) > limit)
        assert got == ((line or b"\n") if not too_long else line[: limit + 1])
    assert read_line(source, limit) == (b"", False)


def test_a_line_without_an_end_is_kept_until_it_comes() -> None:
    splitter = LineSplitter(None)
    assert list(splitter.feed(b"ab")) == []
    assert list(splitter.feed(b"c\nd")) == [b"abc"]
    assert list(splitter.feed(b"\n\n")) == [b"d", b""]


def test_what_is_over_the_limit_is_not_held() -> None:
    splitter = LineSplitter(10)
    for _ in range(1000):
        assert list(splitter.feed(b"x" * 1000)) == []
    assert sum(map(len, splitter._parts)) <= 1024
    assert list(splitter.feed(b"\nok\n")) == [LineTooLong(1_000_000, b"x" * 1024), b"ok"]


def test_a_message_is_one_line_of_ascii_that_begins_with_its_id() -> None:
    line = frame({"text": "ü\n\u2028", "request_id": "a-1"})
    assert line == b'{"request_id":"a-1","text":"\\u00fc\\n\\u2028"}\n'
    assert (id_at_start(line), is_typed(line)) == ("a-1", False)
    line = frame({"task_type": "x", "request_id": "b"}, typed=True)
    assert (id_at_start(line), is_typed(line)) == ("b", True)
    assert json.loads(line) == {"typed": True, "request_id": "b", "task_type": "x"}


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"context":{"request_id":"r"}}',
        b'{"request_id":7}',
        b'x{"request_id":"a"}',
        b'{"request_id":"a\\"b"}',
    ],
)
def test_an_id_elsewhere_is_not_the_lines_own(line: bytes) -> None:
    assert id_at_start(line) is None


def test_the_form_of_other_ends_is_read_too() -> None:
    assert id_at_start(b'{"request_id": "a", "cut') == "a"
    assert id_at_start(b'{"task_type": "info", "request_id": "a"') == "a"
