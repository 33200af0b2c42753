from __future__ import annotations

import unicodedata

import pytest
from confusable_homoglyphs.confusables import confusables_data

from cpex.builtins.security.look_alikes import LOOK_ALIKES
from cpex.builtins.security.normalise import plain, skeleton


def test_every_look_alike_is_one_by_the_unicode_standard() -> None:
    for latin, chars in LOOK_ALIKES.items():
        for char in chars:
            listed = {each["c"] for each in confusables_data[char]}
            # The standard has one class for small L, capital I and the digit one.
            assert latin in listed or (latin == "I" and "l" in listed), (latin, unicodedata.name(char))


def test_every_character_of_the_standard_that_looks_latin_is_seen_through() -> None:
    missed = []
    for char, others in confusables_data.items():
        latin = [each["c"] for each in others if len(each["c"]) == 1 and each["c"].isascii() and each["c"].isalnum()]
        if len(char) == 1 and not char.isascii() and latin and not skeleton(plain(char)).isascii():
            missed.append(char)
    # The compatibility form makes a capital sigma and a box drawing of these, before anybody asks what they look like.
    assert missed == ["\u03f9", "\uffe8"]


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("\u13df\u13b3\u13ac\u13d9\u13a2", "CWEVT"),
        ("\u0441\u043ede", "code"),
        ("\u0399\u0391M", "IAM"),
        ("\u2c9f\ua4d0\ua4dc", "oBZ"),
        ("caf\u00e9", "cafe"),
        ("plain", "plain"),
    ],
)
def test_letters_of_other_scripts_read_as_the_latin_ones_they_look_like(text: str, read: str) -> None:
    assert skeleton(plain(text)) == read


def test_text_of_its_own_script_stays_itself_in_the_plain_form() -> None:
    for text in ("\u041f\u0440\u0438\u0432\u0435\u0442", "\u0393\u03b5\u03b9\u03ac", "\u65e5\u672c\u8a9e"):
        assert plain(text) == text
