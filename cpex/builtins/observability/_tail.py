"""The end of a journal's file: its last whole line, and what a crash left after it."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from cpex.builtins.observability._chain import Chain, Head, NotSealed, is_object
from cpex.builtins.observability._records import encode, timestamp

MAX_LINE_BYTES = 16 * 1024 * 1024
"""No line is longer. A file whose end is one longer line is not a file of ours."""
MAX_QUOTED_BYTES = 64 * 1024
"""How much of a torn line is quoted in the record that takes its place."""

_FIRST_LOOK_BYTES = 16 * 1024


@dataclass(frozen=True, slots=True)
class Tail:
    """How a file ends."""

    head: Head | None
    """The last whole line; `None` when there is none, or no chain."""
    torn: bytes
    """What follows the last line end; empty unless a process died in mid-line."""


def read_tail(fd: int, path: Path, chain: Chain | None) -> Tail:
    """Look at the end of a file.

    Raises:
        OSError: It is not a file of lines, or its last whole line is not one of the chain.
    """
    size = os.fstat(fd).st_size
    end = _end(fd, size, line_ends=1, path=path)
    torn = end[end.rfind(b"\n") + 1 :]
    if chain is None or len(torn) == size:
        return Tail(None, torn)
    whole = size - len(torn)
    last = _end(fd, whole, line_ends=2, path=path)[:-1]
    last = last[last.rfind(b"\n") + 1 :]
    try:
        return Tail(chain.read(last).head, torn)
    except NotSealed as error:
        raise OSError(errno.EINVAL, f"{error}, so nothing can follow its last line; move the file", str(path)) from None


def _end(fd: int, size: int, *, line_ends: int, path: Path) -> bytes:
    """The last bytes before an offset, as many as hold that number of line ends, or all of them."""
    length = min(size, _FIRST_LOOK_BYTES)
    while True:
        end = os.pread(fd, length, size - length)
        if end.count(b"\n") >= line_ends or length == size:
            return end
        if length > MAX_LINE_BYTES:
            raise OSError(errno.EINVAL, f"not a file of lines: its last {length} bytes are one", str(path))
        length = min(size, length * 2)


def is_whole(tail: bytes, chain: Chain | None) -> bool:
    """Whether a tail is a record that lacks nothing but its line end."""
    if chain is None:
        return is_object(tail)
    try:
        chain.read(tail)
    except NotSealed:
        return False
    return True


def recovered(tail: Tail) -> bytes:
    """The record that takes the place of a torn line."""
    quoted = tail.torn[:MAX_QUOTED_BYTES]
    return encode(
        {
            "v": 1,
            "ts": timestamp(),
            "type": "recovered",
            "torn_bytes": len(tail.torn),
            "fragment": quoted.decode("utf-8", "backslashreplace"),
        }
    )
