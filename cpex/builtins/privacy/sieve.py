"""Tells in one pass which kinds of personal data a short text may hold, so that only their recognisers read it.

What the sieve lets through is for the recognisers to judge. INVARIANT: it never holds back what one of them would find;
a test compares what is found with and without it.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from typing import Any

from cpex.builtins.privacy.checks import IBAN_COUNTRIES
from cpex.builtins.privacy.kinds import PiiType

__all__ = ["CARD", "EMAIL", "IBAN", "IPV4", "IPV6", "NINE", "PHONE", "SSN", "Sieve"]

IBAN, EMAIL, IPV6, CARD, SSN, NINE, IPV4, PHONE = range(8)
"""What may be there: two kinds have two forms. `NINE` is a social security number without marks, named before."""
_LONGEST = 4096
"""Characters; a longer text holds a bit of everything, and is not worth the pass."""

# The text is ASCII here, with a `?` for every other character and DEL for an invisible one; borders are the same as in
# the patterns that judge, where both engines can say them.
_LEFT, _RIGHT = r"(?:\A|[^0-9A-Za-z_*])", r"(?:\z|[^0-9A-Za-z_*])"
_CARD_LEFT = r"(?:\A|[^0-9A-Za-z_*+.]|(?:\A|[^0-9])\.)"
_ISSUERS = "[3-6][0-9]{3}|8[12][0-9]{2}|2[2-7][0-9]{2}|0604|1800|2131"
"""Four digits that cards of any length begin with."""
_HEX, _OCTET = "[0-9A-Fa-f]{1,4}", "[0-9]{1,3}"

_PATTERNS = {
    IBAN: (
        PiiType.IBAN,
        rf"(?:\A|[^0-9A-Za-z_])(?i:{'|'.join(IBAN_COUNTRIES)})[0-9]{{2}}[0-9A-Za-z \x7f-]{{11}}",
    ),
    EMAIL: (PiiType.EMAIL, "@[0-9A-Za-z_?]"),
    IPV6: (PiiType.IP, f"::|(?:{_HEX}:){{6}}{_HEX}"),
    CARD: (PiiType.CARD, rf"{_CARD_LEFT}(?:{_ISSUERS})(?:[ \x7f-]?[0-9]){{8}}"),
    SSN: (PiiType.SSN, rf"{_LEFT}[0-8][0-9]{{2}}[ .\x7f-][0-9]{{2}}[ .\x7f-][0-9]{{4}}{_RIGHT}"),
    NINE: (PiiType.SSN, "(?i:ssn|social security)[^0-9]{0,16}[0-9]{9}"),
    IPV4: (PiiType.IP, rf"{_LEFT}{_OCTET}\.{_OCTET}\.{_OCTET}\.{_OCTET}{_RIGHT}"),
    PHONE: (PiiType.PHONE, r"[0-9](?:[ .()/\x7f-]{0,3}[0-9]){5}"),
}
_NEVER = r"[^\x00-\x{10FFFF}]"


class Sieve:
    """Looks for those of its types that are asked for."""

    def __init__(self, types: Collection[PiiType]) -> None:
        """Prepare for `types`."""
        automaton = _automaton(frozenset(types))
        # What the package wraps, where it has it: the wrapper takes a fifth of the time.
        self._match = getattr(automaton, "_set", automaton).Match
        self._every = [sight for sight, (type_, _) in _PATTERNS.items() if type_ in types]

    def sights(self, plain: bytes) -> list[int]:
        """What may be in a text.

        Args:
            plain: It as `shapes.plain_bytes` gives it.

        Returns:
            Some of the numbers above, in order.
        """
        sights: list[int] = [] if len(plain) > _LONGEST else self._match(plain)
        if not sights:
            return self._every
        # Found in any order, and always the end of the text: an engine that has run out of memory finds nothing.
        sights.sort()
        sights.pop()
        return sights


@cache
def _automaton(types: frozenset[PiiType]) -> Any:
    import re2

    options = re2.Options()
    options.never_capture = True
    options.log_errors = False
    automaton: Any = re2.Set.SearchSet(options)
    for type_, pattern in _PATTERNS.values():
        automaton.Add(pattern if type_ in types else _NEVER)
    automaton.Add(r"\z")
    automaton.Compile()
    return automaton
