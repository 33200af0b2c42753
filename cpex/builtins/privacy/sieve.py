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

__all__ = ["CARD", "EMAIL", "END", "IBAN", "IPV4", "IPV6", "NINE", "NUMBERS", "PHONE", "SSN", "Sieve"]

EMAIL, IBAN, IPV6, CARD, SSN, NINE, IPV4, PHONE, END = range(9)
"""What may be there: two kinds have two forms. `NINE` is a social security number without marks, named before; `END` is
that of the text, which is always there."""
NUMBERS = frozenset((CARD, SSN, NINE, IPV4))
"""Those that are written in nothing but digits and separators."""
_LONGEST = 4096
"""Characters; a longer text holds a bit of everything, and is not worth the pass."""

# The text is ASCII here, with a `?` for every other character and DEL for an invisible one; borders are the same as in
# the patterns that judge, where both engines can say them.
_LEFT, _RIGHT = r"(?:\A|[^0-9A-Za-z_*])", r"(?:\z|[^0-9A-Za-z_*])"
_CARD_LEFT = r"(?:\A|[^0-9A-Za-z_*+.]|(?:\A|[^0-9])\.)"
_HEX, _OCTET = "[0-9A-Fa-f]{1,4}", "[0-9]{1,3}"
_PATTERNS = {
    EMAIL: (PiiType.EMAIL, "@[0-9A-Za-z_?]"),
    IBAN: (
        PiiType.IBAN,
        rf"(?:\A|[^0-9A-Za-z_])(?i:{'|'.join(IBAN_COUNTRIES)})[0-9]{{2}}[0-9A-Za-z \x7f-]{{11}}",
    ),
    IPV6: (PiiType.IP, f"::|(?:{_HEX}:){{6}}{_HEX}"),
    CARD: (PiiType.CARD, rf"{_CARD_LEFT}(?:[2-68][0-9]{{3}}|0604|1800)(?:[ \x7f-]?[0-9]){{8}}"),
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
        self._every = (*(sight for sight, (type_, _) in _PATTERNS.items() if type_ in types), END)

    def sights(self, plain: bytes) -> Collection[int]:
        """What may be in a text.

        Args:
            plain: It as `shapes.plain_bytes` gives it.

        Returns:
            Some of the numbers above, and always `END`.
        """
        if len(plain) > _LONGEST:
            return self._every
        sights = self._match(plain)
        # An engine that has run out of memory says that not even the end was found.
        return sights or self._every


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
