"""Text that a person does not see and a model reads: invisible characters, markup that hides, encoded blobs.

Everything here is one pass over the text, or over what was decoded from it, and what is decoded is shorter than what it
was decoded from: no input can make it grow.
"""

from __future__ import annotations

import base64
import binascii
import html
import re
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple
from urllib.parse import unquote

from cpex.builtins.security.pattern_set import compile_linear

__all__ = ["Hidden", "hidden_in", "invisible_signals", "without_hidden"]

# Tag characters spell ASCII invisibly: the group. Behind a black flag a few of them name a region, as in the flag of
# Wales, and are no text.
_TAGS = re.compile("\U0001f3f4[\U000e0020-\U000e007e]{1,6}\U000e007f|([\U000e0020-\U000e007e]{3,}\U000e007f?)")
# One variation selector picks the look of the character before it; a row of them can only be data.
_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]{4,}")
_ZERO_WIDTH = "\u200b\u200c\u200d\u2060-\u2064\ufeff"
_ZERO_WIDTH_RUN = re.compile(f"[{_ZERO_WIDTH}]{{8,}}")
_SPLIT_WORD = re.compile(f"[A-Za-z][{_ZERO_WIDTH}\u00ad]+(?=[A-Za-z])")
_MIN_SPLITS = 3
_BIDI = re.compile("[\u202d\u202e]")
_TAG_OFFSET = 0xE0000

_LONG_BLOB = 24
_DEPTH = 2
"""Encodings inside encodings that are undone."""
_PRINTABLE = 0.85
"""Share of printable characters that makes decoded bytes a text."""


class Hidden(NamedTuple):
    """A piece of text that was hidden."""

    text: str
    start: int
    """Where in the text it was hidden, in bytes of UTF-8; of what was encoded twice, where the outer piece is."""
    is_encoded: bool


def invisible_signals(text: str) -> dict[str, int]:
    """Signals of characters that cannot be seen, each with the place of its first one, in bytes of UTF-8."""
    if text.isascii():
        return {}
    found: dict[str, int] = {}
    for signal, pattern in (
        ("invisible_text", _TAGS),
        ("invisible_text", _SELECTORS),
        ("zero_width", _ZERO_WIDTH_RUN),
        ("bidi_override", _BIDI),
    ):
        if match := next((each for each in pattern.finditer(text) if each.group(each.re.groups)), None):
            found.setdefault(signal, match.start())
    splits = list(islice(_SPLIT_WORD.finditer(text), _MIN_SPLITS))
    if len(splits) == _MIN_SPLITS:
        found.setdefault("zero_width", splits[0].start())
    return {signal: _size(text[:place]) for signal, place in found.items()}


def hidden_in(text: str) -> Iterator[Hidden]:
    """What is hidden in a text: spelt invisibly, in comments, in elements that are not shown, in encodings."""
    if not text.isascii():
        for match in _TAGS.finditer(text):
            if match.group(1):
                spelt = "".join(chr(ord(char) - _TAG_OFFSET) for char in match.group(1))
                yield Hidden(spelt, _size(text[: match.start()]), False)
    # In bytes: a search in text would count characters anew for every match.
    data = text.encode(errors="replace")
    for match in _markup().finditer(data):
        inside = next((group for group in match.groups() if group), None)
        if inside:
            yield Hidden(html.unescape(inside.decode(errors="replace")), match.start(), False)
    yield from _decoded(data, None, _DEPTH)


def _size(text: str) -> int:
    return len(text.encode(errors="replace"))


def _decoded(data: bytes, place: int | None, depth: int) -> Iterator[Hidden]:
    for match in _blobs().finditer(data):
        start = match.start() if place is None else place
        decoded = _decode(match.lastgroup or "", match.group().decode(errors="replace"))
        if decoded:
            yield Hidden(decoded, start, True)
            if depth > 1:
                yield from _decoded(decoded.encode(errors="replace"), start, depth - 1)


def _decode(kind: str, blob: str) -> str:
    """The text in a blob; empty when it holds none."""
    if kind == "percent":
        return unquote(blob, errors="replace")
    if kind == "entities":
        return html.unescape(blob)
    if kind == "escapes":
        return re.sub(r"\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})", lambda each: chr(int(each[1] or each[2], 16)), blob)
    try:
        if kind == "hex":
            return _as_text(bytes.fromhex(re.sub(r"[\s:]|0x|\\x", "", blob)))
        body = blob.rstrip("=").replace("-", "+").replace("_", "/")
        # A stray character at the end is no reason to let the rest pass.
        body = body[: len(body) - (len(body) % 4 == 1)]
        return _as_text(base64.b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, binascii.Error):
        return ""


def _as_text(data: bytes) -> str:
    text = data.decode(errors="replace")
    printable = sum(char.isprintable() or char.isspace() for char in text) - text.count("\ufffd")
    return text if text and printable / len(text) >= _PRINTABLE else ""


def without_hidden(text: str) -> str:
    """The text without invisible characters, comments and elements that are not shown; the same object without any.

    What is encoded stays: it may be what the document is about.
    """
    clean = text
    if not text.isascii():
        clean = _TAGS.sub(lambda match: "" if match.group(1) else match.group(), clean)
        for pattern in (_SELECTORS, _ZERO_WIDTH_RUN, _BIDI):
            clean = pattern.sub("", clean)
        clean = _SPLIT_WORD.sub(lambda match: match.group()[0], clean)
    if "<" in clean or "[//]" in clean:
        data = clean.encode(errors="surrogatepass")
        clean = _markup().sub(b"", data).decode(errors="surrogatepass")
    return text if clean == text else clean


@lru_cache(1)
def _markup() -> Any:
    """Comments, and elements whose style hides them up to their first tag; the hidden text is a group."""
    hides = (
        r"(?:display\s*:\s*none|visibility\s*:\s*hidden|font-size\s*:\s*0|opacity\s*:\s*0(?:\.0*)?\s*[;\"']"
        r"|color\s*:\s*(?:#fff(?:fff)?\b|white\b|transparent)|text-indent\s*:\s*-\d{3,}|left\s*:\s*-\d{3,})"
    )
    comment = r"<!--((?s:.*?))(?:-->|\z)"
    element = rf"<\w+(?:\s[^>]*)?\s(?:style\s*=\s*[\"'](?:[^\"'>]*[^\"'>\w-])?{hides}[^>]*|hidden(?:\s[^>]*)?)>([^<]+)"
    reference = r"(?m:^\[//\]:\s*#\s*[(\"']([^\n]*)$)"
    return compile_linear(f"(?i){comment}|{element}|{reference}")


@lru_cache(1)
def _blobs() -> Any:
    """Encodings of at least a few words; the name of the group that matched says which."""
    return compile_linear(
        r"(?P<percent>(?:[\w.+-]{0,30}%[0-9a-fA-F]{2}){8,}[\w.+-]{0,40})"
        r"|(?P<entities>(?:&#(?:x[0-9a-fA-F]{1,6}|[0-9]{1,7});\s?){8,})"
        r"|(?P<escapes>(?:\\u[0-9a-fA-F]{4}|\\x[0-9a-fA-F]{2}){8,})"
        r"|(?P<hex>(?:[0-9a-fA-F]{2}[\s:]?){16,})"
        rf"|(?P<base64>[A-Za-z0-9+/_-]{{{_LONG_BLOB},}}={{0,2}})"
    )
