"""Whether a span ends where what it belongs to ends."""

from __future__ import annotations

_MARKS = frozenset("_*")

__all__ = ["stands_alone", "within_number"]


def stands_alone(text: str, start: int, end: int) -> bool:
    """Whether no word, longer number or mask goes on at either side of the span."""
    # Empty at the ends of the text, and then neither of them.
    before, after = text[start - 1 : start], text[end : end + 1]
    return not (before.isalnum() or after.isalnum() or before in _MARKS or after in _MARKS)


def within_number(text: str, start: int, end: int, joints: str = ".-") -> bool:
    """Whether the span is a part of something like `1-123-45-6789` or `1.2.3.4.5`."""
    if start > 1 and text[start - 1] in joints and text[start - 2].isdigit():
        return True
    return end + 1 < len(text) and text[end] in joints and text[end + 1].isdigit()
