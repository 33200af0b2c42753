from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpex.tools.run.lines import Line, LineSplitter, read_lines


@given(st.lists(st.binary(max_size=6).map(lambda data: data.replace(b"0", b"\n")), max_size=8))
def test_lines_are_the_same_wherever_chunks_are_cut(chunks: list[bytes]) -> None:
    whole = b"".join(chunks)
    splitter = LineSplitter()
    lines = [line for chunk in chunks for line in splitter.feed(chunk)]
    lines += splitter.finish()
    expected = whole.split(b"\n")
    if not expected[-1]:
        expected.pop()
    assert [line.data for line in lines] == expected
    assert [line.number for line in lines] == list(range(1, len(expected) + 1))
    assert not lines or lines[-1].end == len(whole)


def test_a_line_that_is_too_long_is_counted_and_not_kept() -> None:
    splitter = LineSplitter(max_bytes=4)
    lines = [*splitter.feed(b"12"), *splitter.feed(b"345"), *splitter.feed(b"6\n1234\n"), *splitter.finish()]
    assert lines == [Line(1, None, 7), Line(2, b"1234", 12)]


async def test_a_file_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "events"
    path.write_bytes(b"one\n\ntwo")
    descriptor = os.open(path, os.O_RDONLY)
    try:
        assert [line.data async for line in read_lines(descriptor)] == [b"one", b"", b"two"]
    finally:
        os.close(descriptor)


@pytest.fixture
def pipe() -> tuple[int, int]:
    return os.pipe()


async def test_a_pipe_is_waited_for_by_the_event_loop(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    waits: list[None] = []
    lines = read_lines(reader, before_wait=lambda: waits.append(None))
    try:
        first = asyncio.ensure_future(anext(lines))
        await asyncio.sleep(0)
        assert not first.done()
        assert len(waits) == 1
        os.write(writer, b"one\ntw")
        assert (await first).data == b"one"
        os.write(writer, b"o\n")
        assert (await anext(lines)).data == b"two"
        os.close(writer)
        with pytest.raises(StopAsyncIteration):
            await anext(lines)
    finally:
        os.close(reader)


async def test_a_wait_can_be_cancelled(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    waiting = asyncio.ensure_future(anext(read_lines(reader)))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    # Nothing of ours watches the descriptor any more.
    assert asyncio.get_running_loop().remove_reader(reader) is False
    os.close(reader)
    os.close(writer)
