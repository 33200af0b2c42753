"""What must stand at a place for it to be worth judging there: the ranges of each kind, and clean borders.

One pattern per kind and length, held against a place of the text. It looks at the first digits before anything else, as
most numbers fall there; whether the check digit holds is asked of what is left.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache

__all__ = ["MAX_CARD", "MIN_CARD", "Fits", "card_fits", "ipv4_fits", "said_ssn_fits", "ssn_fits"]

Fits = Callable[[str, int], re.Match[str] | None]
"""From a folded text and a place in it to what stands there, or `None` when it what stands there is of another kind."""

# ISO/IEC 7812 issuer ranges by number of digits. Sixteen are what most networks issue, so there all of them count, also
# the small ones; seventeen and eighteen are rare on cards and frequent in identifiers.
_MAESTRO = "50|5[6-8]|6"
_ISSUERS = {
    12: "0604|50(?:18|20|38)|5[6-8]|6304|6390|67",
    13: f"4|{_MAESTRO}",
    14: f"3[0689]|{_MAESTRO}",
    15: f"3[47]|1800|2131|{_MAESTRO}",
    16: "[3-6]|220[0-4]|22[3-9]|222[1-9]|2[3-6]|27[01]|2720|8[12]",
    17: "5|6|8[12]",
    18: "5|6|8[12]",
    19: f"4|8[12]|{_MAESTRO}",
}
MIN_CARD, MAX_CARD = min(_ISSUERS), max(_ISSUERS)
"""Digits."""

# No word, longer number or mask goes on at either side.
_LEFT, _RIGHT = r"(?<![\w*])", r"(?![\w*])"
_OCTET = "(?:25[0-5]|2[0-4][0-9]|[01]?[0-9]?[0-9])"
_AREA, _GROUP, _SERIAL = "(?!000|666|9)[0-9]{3}", "(?!00)[0-9]{2}", "(?!0000)[0-9]{4}"
"""Source: Social Security Administration, "Social Security Number Randomization": areas, groups and serials that are
never assigned."""

ipv4_fits: Fits = re.compile(rf"{_LEFT}(?<![0-9]\.){_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}{_RIGHT}(?!\.[0-9])").match
"""Four numbers up to 255, and no fifth."""

ssn_fits: Fits = re.compile(rf"{_LEFT}(?<![0-9][.-]){_AREA}([ .\u200b-]){_GROUP}\1{_SERIAL}{_RIGHT}(?![.-][0-9])").match
"""Groups of 3-2-4 digits with the same mark between them."""

said_ssn_fits: Fits = re.compile(
    r"(?ai:ssn|social security(?: number| no\.?)?)[\"']?\s?(?:[:=#]|(?i:is))?\s{0,3}[\"']?"
    rf"({_AREA}{_GROUP}{_SERIAL})(?![0-9])"
).match
"""Words, and as the first group the nine digits that they call one."""


@cache
def card_fits(digits: int, width: int) -> Fits:
    """So many digits of an issuer that numbers its cards so, no phone number with its `+` and no part of a fraction.

    Args:
        digits: From `MIN_CARD` to `MAX_CARD`. That they stand there, the first four together, the shape has told.
        width: Characters of them and what parts them.
    """
    return re.compile(rf"(?s:(?={_ISSUERS[digits]})(?<![\w*+])(?<![0-9]\.).{{{width}}}{_RIGHT}(?!\.[0-9]))").match
