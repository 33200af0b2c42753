"""Undoes the ways to write a word so that it reads the same to a person or a model but not to a pattern.

`plain` is the text in compatibility form, without what cannot be seen. `skeleton` goes further and maps letters of
other alphabets to the Latin letters they look like; it destroys text of those alphabets, so it is only ever looked at
beside the plain form.
"""

from __future__ import annotations

import re
import unicodedata

from cpex.builtins.security.look_alikes import LOOK_ALIKES

__all__ = ["plain", "skeleton"]

# Characters without a glyph that may stand inside a word: soft hyphen, joiners, direction marks, fillers, variation
# selectors, tags. Source: Unicode Standard Annex 44, property `Default_Ignorable_Code_Point`.
_INVISIBLE = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufff8\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff]"
)
_MARKS = re.compile("[\u0300-\u036f\u0483-\u0489\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f]")

# Cyrillic and Greek letters that most fonts draw like a Latin one of the same case, or nearly. They go before the
# general table, which knows nothing of case and misses some.
_CLOSE = str.maketrans(
    "аеорсухіјѕԁһӏԛԝүгпьᴦкмтвнАВЕКМНОРСТУХІЈЅԌԚԜҮαοειυνρκτγςΑΒΕΖΗΙΚΜΝΟΡΤΥΧ",
    "aeopcyxijsdhlqwyrnbrkmtbhABEKMHOPCTYXIJSGQWYaoeiuvpktycABEZHIKMNOPTYX",
)
_CONFUSABLE = {ord(char): latin for latin, chars in LOOK_ALIKES.items() for char in chars} | _CLOSE


def plain(text: str) -> str:
    """The text in Unicode form NFKC, without invisible characters. Case is kept."""
    if text.isascii():
        return text
    return unicodedata.normalize("NFKC", _INVISIBLE.sub("", text))


def skeleton(plain_text: str) -> str:
    """Plain text without accents and with Latin letters for their look-alikes; the same object when nothing changes."""
    if plain_text.isascii():
        return plain_text
    bare = _MARKS.sub("", unicodedata.normalize("NFKD", plain_text)).translate(_CONFUSABLE)
    return plain_text if bare == plain_text else bare
