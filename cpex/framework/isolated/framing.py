"""Lines between host and worker: one JSON object each, in bytes, none longer than a limit.

Both ends use this module, so it imports nothing but the standard library. A line is compact JSON in ASCII, so its
length in characters, which is what release 0.1 counts, is its length in bytes. The id comes first, so that a line that
was cut off for its length still tells whose it is.

Source: docs/isolated.md, "The lines".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["DEFAULT_MAX_BYTES", "TYPED", "LineSplitter", "LineTooLong", "frame", "id_at_start", "is_typed"]

DEFAULT_MAX_BYTES = 10_000_000
"""Bytes of one line, its end not counted."""
TYPED = "typed"
"""First key of a line whose values keep their types; see `cpex.framework.external.wire`."""
_TYPED_START = b'{"typed":true,'
_ID_AT_START = re.compile(rb'\{(?:"typed":true,)?\s*(?:"task_type":\s*"[a-z_]+",\s*)?"request_id":\s*"([^"\\]{1,200})"')
_KEPT_OF_A_LONG_LINE = 1024


@dataclass(frozen=True, slots=True)
class LineTooLong:
    """What is left of a line over the limit."""

    size: int
    """Bytes, without the end of the line."""
    start: bytes
    """Its first bytes, at most 1,024."""


def frame(message: dict[str, Any], *, typed: bool = False) -> bytes:
    """A message as a line, its end included. `request_id` goes first.

    Raises:
        ValueError, TypeError: It holds what JSON has no word for.
    """
    head: dict[str, Any] = {TYPED: True} if typed else {}
    if "request_id" in message:
        head["request_id"] = message["request_id"]
    return json.dumps({**head, **message}, separators=(",", ":")).encode("ascii") + b"\n"


def is_typed(line: bytes) -> bool:
    """Whether the sender of a line has encoded its values with their types."""
    return line.startswith(_TYPED_START)


def id_at_start(line: bytes) -> str | None:
    """The id that a line begins with, also where its rest is lost; `None` when it begins with something else."""
    found = _ID_AT_START.match(line)
    return found[1].decode("ascii", "replace") if found is not None else None


class LineSplitter:
    """Cuts a stream of bytes into lines, holding no more than one of them, and of one over the limit only its start."""

    def __init__(self, max_bytes: int | None) -> None:
        """Args:
        max_bytes: Of a line, its end not counted; `None` for no limit.
        """
        self.max_bytes = max_bytes
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> Iterator[bytes | LineTooLong]:
        """The lines that end in this piece of the stream, without their ends."""
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._keep(data[start:end])
            yield self._take()
            start = end + 1
        self._keep(data[start:])

    def _keep(self, piece: bytes) -> None:
        if not piece:
            return
        self._size += len(piece)
        if self.max_bytes is None or self._size <= self.max_bytes:
            self._parts.append(piece)
        else:
            self._parts = [b"".join([*self._parts, piece])[:_KEPT_OF_A_LONG_LINE]]

    def _take(self) -> bytes | LineTooLong:
        line, size = b"".join(self._parts), self._size
        self._parts, self._size = [], 0
        if self.max_bytes is None or size <= self.max_bytes:
            return line
        return LineTooLong(size, line)
