"""What a run of digits and separators could be, judged by its shape alone.

The shape of `4111-1111 x` is `0000-0000 A`. A text has thousands of runs and few shapes, so which parts of a run could
be a card is worked out once and remembered; most shapes, such as that of a date, allow nothing, and cost one look-up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cpex.builtins.privacy.windows import MAX_CARD, MIN_CARD, Fits, card_fits

__all__ = ["DIGIT", "JOINT", "LETTER", "OTHER", "CardShapes", "Window", "plain_bytes", "shape_of"]

DIGIT, LETTER, JOINT = b"0", b"A", b"\x7f"
"""What a shape has for a digit, for an ASCII letter or underscore, and for an invisible character between digits."""
OTHER = b"?"
"""What it has for all that is neither of these nor a separator."""
_KEPT = b" .-:" + JOINT
_CLASSES = (
    bytes(
        ord(DIGIT)
        if chr(code).isdigit()
        else ord(LETTER)
        if chr(code).isalpha() or code == ord("_")
        else code
        if code in _KEPT
        else ord(OTHER)
        for code in range(128)
    )
    + OTHER * 128
)

_MAX_SHAPES = 2048
_MAX_REMEMBERED = 48
"""Characters of the longest shape that is remembered; others are worked out each time."""
_GROUP = re.compile(rb"0+")
_CARD_RUN = re.compile(rb"0{4}(?:[ \x7f-]?0){8,}+")

Window = tuple[int, int, Fits]
"""`(offset of the start, offset of the end, what must hold there)`: a part of a run that could be a card."""


def plain_bytes(text: str) -> bytes:
    """One byte for each character of a folded text: itself, `JOINT` for an invisible one, `?` for one beyond ASCII."""
    return text.replace("\u200b", "\x7f").encode("ascii", "replace")


def shape_of(plain: bytes) -> bytearray:
    """One byte for each of `plain_bytes`: a digit, a letter, a separator, or something else."""
    return bytearray(plain).translate(_CLASSES)


class CardShapes(dict[bytes, tuple[Window, ...]]):
    """From the shape of a run to what is to be looked at in it, in order of start, longer ones first.

    Asked for a shape it does not hold, it works that out, and remembers it.
    """

    def __missing__(self, shape: bytes) -> tuple[Window, ...]:
        windows = tuple(sorted(_cards(shape), key=lambda window: (window[0], -window[1])))
        if len(shape) <= _MAX_REMEMBERED:
            if len(self) >= _MAX_SHAPES:
                # Somebody sends shapes of all kinds; starting afresh bounds the memory.
                self.clear()
            self[shape] = windows
        return windows


def _cards(shape: bytes) -> Iterator[Window]:
    """Whole groups that have together as many digits as a card, the first of them at least four."""
    for run in _CARD_RUN.finditer(shape):
        groups = [match.span() for match in _GROUP.finditer(shape, run.start(), run.end())]
        for first, (start, end) in enumerate(groups):
            digits = 0
            for group in groups[first : first + MAX_CARD] if end - start >= 4 else ():
                digits += group[1] - group[0]
                if digits > MAX_CARD:
                    break
                if digits >= MIN_CARD:
                    yield start, group[1], card_fits(digits, group[1] - start)
