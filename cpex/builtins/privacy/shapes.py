"""What a run of digits and separators could be, judged by its shape alone.

The shape of `078-05-1120 x` is `000-00-0000`. A text has thousands of runs and few shapes, so what a shape allows is
worked out once and remembered; most shapes, such as that of a date, allow nothing, and cost one look-up.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from cpex.builtins.privacy.kinds import RANK, PiiType
from cpex.builtins.privacy.windows import MAX_CARD, MIN_CARD, Fits, card_fits, ipv4_fits, nine_fit, ssn_fits

__all__ = ["DIGIT", "JOINT", "LETTER", "OTHER", "Shapes", "Window", "shape_of"]

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
_SSN = re.compile(rb"(?=000([ .\x7f-])00\1(0000))")
_NINE = re.compile(rb"0{9}(?!0)")
_IPV4 = re.compile(rb"0{1,3}(?:\.0{1,3}){3}")


Window = tuple[int, int, int, Fits]
"""`(offset of the start, rank of the type, offset of the end, what must hold there)`: a part of a run that could be
personal data."""
_CARD, _SSN_RANK, _IP = RANK[PiiType.CARD], RANK[PiiType.SSN], RANK[PiiType.IP]


def shape_of(text: str) -> bytes:
    """One byte for each character: a digit, a letter, a separator, or something else."""
    if not text.isascii():
        text = text.replace("\u200b", "\x7f")
    # Each character that is not ASCII becomes one `?`.
    return text.encode("ascii", "replace").translate(_CLASSES)


class Shapes:
    """Remembers what shapes allow, for some types."""

    def __init__(self, types: Collection[PiiType]) -> None:
        """Prepare for those of `types` that are written in digits."""
        self._types = frozenset(types)
        self.known: dict[bytes, tuple[Window, ...]] = {}
        """What was worked out lately, for callers in a hurry."""

    def work_out(self, shape: bytes) -> tuple[Window, ...]:
        """What is to be looked at in a run of this shape, in order of start, longer ones first; and remember it."""
        windows = tuple(sorted(self._work_out(shape), key=lambda window: (window[0], -window[2])))
        if len(shape) <= _MAX_REMEMBERED:
            if len(self.known) >= _MAX_SHAPES:
                # Somebody sends shapes of all kinds; starting afresh bounds the memory.
                self.known.clear()
            self.known[shape] = windows
        return windows

    def _work_out(self, shape: bytes) -> Iterator[Window]:
        if PiiType.CARD in self._types:
            yield from _cards(shape)
        if PiiType.SSN in self._types:
            if _NINE.match(shape):
                yield 0, _SSN_RANK, 9, nine_fit
            yield from ((match.start(), _SSN_RANK, match.end(2), ssn_fits) for match in _SSN.finditer(shape))
        if PiiType.IP in self._types:
            yield from ((match.start(), _IP, match.end(), ipv4_fits) for match in _IPV4.finditer(shape))


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
                if digits >= MIN_CARD and not _in_fraction(shape, start, group[1]):
                    yield start, _CARD, group[1], card_fits(digits, grouped=group[1] - start > digits)


def _in_fraction(shape: bytes, start: int, end: int) -> bool:
    """Whether the digits are a part of something like `0.114946`; at the ends of the run the text will tell."""
    return shape[max(0, start - 2) : start] == b"0." or shape[end : end + 2] == b".0"
