"""Gives characters that look like plain ones their plain form, one for one: spans in the result fit the original."""

from __future__ import annotations

import re
import sys
import unicodedata
from functools import cache
from typing import NamedTuple

__all__ = ["fold"]

_MARKS = "\u00a0\u00ad\u2000-\u200d\u2010-\u2015\u202f\u2060\u2212\u3000\ufe6b\ufeff\uff01-\uff5e"
_ASCII = bytes(range(0x80))
_FEW = 16
"""Different characters that are replaced one after the other; more are looked for together."""
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")
_FOLDED = {
    **dict.fromkeys((0xA0, *range(0x2000, 0x200B), 0x202F, 0x3000), " "),
    **dict.fromkeys((*range(0x2010, 0x2016), 0x2212), "-"),
    **dict.fromkeys((0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF), "\u200b"),
    **{code: chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)},
    0xFE6B: "@",
}


class _Forms(NamedTuple):
    odd: re.Pattern[str]
    odd_astral: re.Pattern[str]
    plain: dict[int, str]


@cache
def _forms() -> _Forms:
    """What to look for and what to make of it; made when a text needs it, as every character there is is asked for."""
    digits = [code for code in range(0x80, sys.maxunicode + 1) if unicodedata.category(chr(code)) == "Nd"]
    # Listed one by one: a class "digits, but not 0 to 9" costs ten times as much for each character. In two patterns:
    # one with characters from both sides of U+FFFF is searched range by range.
    return _Forms(
        odd=re.compile(f"[{_MARKS}{''.join(chr(code) for code in digits if code < 0x10000)}]"),
        odd_astral=re.compile(f"[{''.join(chr(code) for code in digits if code >= 0x10000)}]"),
        plain={**{code: str(unicodedata.digit(chr(code))) for code in digits}, **_FOLDED},
    )


def fold(text: str) -> str:
    """Digits of other scripts, wide forms, blanks and dashes in their plain form; invisible characters as U+200B."""
    if text.isascii():
        return text
    try:
        text.encode("latin-1")
    except UnicodeEncodeError:
        return _folded(text)
    return text.replace("\u00a0", " ").replace("\u00ad", "\u200b")


def _folded(text: str) -> str:
    # Most of most text is ASCII, and to drop that takes a tenth of the time of looking through it.
    rest = text.encode("utf-8", "surrogatepass").translate(None, _ASCII).decode("utf-8", "surrogatepass")
    forms = _forms()
    odd = set(forms.odd.findall(rest))
    if _ASTRAL.search(rest):
        odd.update(forms.odd_astral.findall(rest))
    if len(odd) > _FEW:
        text = forms.odd.sub(lambda match: forms.plain[ord(match[0])], text)
        return forms.odd_astral.sub(lambda match: forms.plain[ord(match[0])], text)
    for char in odd:
        text = text.replace(char, forms.plain[ord(char)])
    return text
