"""What makes an audit log evidence: every line tells the hash of the line before it, and ends in its own.

A sealed line is a JSON object whose first key is `seq` and whose last two are `prev` and `hash` (`mac` when a key was
used). The hash is over the exact bytes of the line without that last key, so it can be checked with a text tool and no
idea of JSON: take `,"hash":"…"` out and hash what remains, without the line end.

The chain is a matter of lines. Which file they are in is the journal's business; what they say is their owner's.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from pathlib import Path

MIN_KEY_BYTES = 16
MAX_KEY_BYTES = 4096
DIGEST_CHARS = 64

_NO_HASH = "0" * DIGEST_CHARS
_SEALED = re.compile(
    rb'\{"seq":(?P<seq>[1-9]\d{0,17}),.*,"prev":"(?P<prev>[0-9a-f]{64})"(?P<seal>,"(?P<kind>hash|mac)":"(?P<own>[0-9a-f]{64})")\}',
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain: what the next line continues."""

    seq: int
    """Number of the last line; 0 before the first."""
    hash: str
    """64 hexadecimal digits; zeros before the first line."""

    def __str__(self) -> str:
        return f"{self.seq}:{self.hash}"


GENESIS = Head(0, _NO_HASH)


@dataclass(frozen=True, slots=True)
class Link:
    """One sealed line as it was read."""

    head: Head
    """Its own number and hash."""
    prev: str
    """The hash that it says its predecessor has."""


class NotSealed(ValueError):
    """A line is no sealed record; the text says what is wrong with it."""


class Chain:
    """Seals lines and reads sealed ones. Holds nothing but the key."""

    def __init__(self, key: bytes | None = None) -> None:
        """Use SHA-256, or HMAC-SHA-256 where a key is given."""
        self._key = key
        self._kind = b"hash" if key is None else b"mac"

    def seal(self, line: bytes, after: Head) -> tuple[bytes, Head]:
        """Make a line the successor of another.

        Args:
            line: A JSON object with at least one key, and a line end; see `_records.encode`.

        Returns:
            The sealed line, and the head that it makes.
        """
        body = b'{"seq":%d,%s,"prev":"%s"' % (after.seq + 1, line[1:-2], after.hash.encode())
        own = self._digest(body + b"}")
        return b'%s,"%s":"%s"}\n' % (body, self._kind, own.encode()), Head(after.seq + 1, own)

    def read(self, line: bytes) -> Link:
        """Read a sealed line, without its line end, and check that it is what was sealed.

        Raises:
            NotSealed: It is not; `str` says how.
        """
        found = _SEALED.fullmatch(line)
        if found is None or not is_object(line):
            raise NotSealed("this is no sealed record")
        if found["kind"] != self._kind:
            raise NotSealed(
                "this record was sealed without a key" if self._key else "this record was sealed with a key"
            )
        body = line[: found.start("seal")] + b"}"
        own = found["own"].decode()
        if not hmac.compare_digest(self._digest(body), own):
            raise NotSealed("this record was changed after it was written" + (", or the key is another" * self._keyed))
        return Link(Head(int(found["seq"]), own), found["prev"].decode())

    @property
    def _keyed(self) -> bool:
        return self._key is not None

    def _digest(self, body: bytes) -> str:
        if self._key is None:
            return hashlib.sha256(body).hexdigest()
        return hmac.digest(self._key, body, "sha256").hex()


def read_key(path: Path) -> bytes:
    """The key in a file, without white space around it.

    Raises:
        OSError: The file cannot be read.
        ValueError: The key is too short or too long to be one.
    """
    with path.open("rb") as file:
        key = file.read(MAX_KEY_BYTES + 1).strip()
    if not MIN_KEY_BYTES <= len(key) <= MAX_KEY_BYTES:
        raise ValueError(
            f"the key in `{path}` has {len(key)} bytes, expected {MIN_KEY_BYTES} to {MAX_KEY_BYTES}; "
            f"`openssl rand -hex 32 > {path}` makes one"
        )
    return key


def is_object(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    # The last is for lines that nest a hundred thousand lists.
    except (ValueError, RecursionError):
        return False
