"""Finds personal data in text: cards, e-mail addresses, phone and social security numbers, IBANs, IP addresses.

Every recogniser is linear in the length of the text: the patterns start at a rare character, repeat possessively or
within bounds, and check digits are judged on spans of bounded length. `Recognisers.find` runs those that are wanted and
settles overlaps. What becomes of a finding is the caller's business.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from cpex.builtins.privacy.checks import is_ssn
from cpex.builtins.privacy.digits import CardFinder, ipv4_addresses, named_ssns, ssns
from cpex.builtins.privacy.folding import fold
from cpex.builtins.privacy.kinds import Finding, PiiType, settled
from cpex.builtins.privacy.letters import emails, ibans, ipv6_addresses
from cpex.builtins.privacy.phones import PhoneFinder
from cpex.builtins.privacy.shapes import plain_bytes, shape_of
from cpex.builtins.privacy.sieve import CARD, EMAIL, IBAN, IPV4, IPV6, NINE, PHONE, SSN, Sieve

__all__ = ["Recognisers", "is_ssn_key"]

_SHORTEST = 6
"""Characters of the shortest finding, an address such as `a@b.co`."""
_SSN_KEY = re.compile(r"(?:^|[^A-Za-z])(?i:ssn)(?![A-Za-z])|(?<=[a-z])S(?:SN|sn)(?![a-z])|(?i:social[ _-]?security)")


class Recognisers:
    """The recognisers of some types, ready to run."""

    def __init__(self, types: Collection[PiiType], phone_regions: Sequence[str] = ("US",)) -> None:
        """Prepare those of `types`. `phone_regions`: see `PhoneFinder`."""
        self.types = frozenset(types)
        self._sieve = Sieve(self.types)
        looks = {
            IBAN: ibans,
            EMAIL: emails,
            IPV6: ipv6_addresses,
            CARD: CardFinder().find,
            SSN: ssns,
            NINE: named_ssns,
            IPV4: ipv4_addresses,
        }
        self._looks = [looks.get(sight, _nothing) for sight in range(PHONE + 1)]
        self._phones = PhoneFinder(phone_regions) if PiiType.PHONE in types else None

    def find(self, text: str, key: str = "") -> list[Finding]:
        """Every piece of personal data in `text`, in order and without overlap.

        Args:
            text: Of any length; the time grows linearly with it.
            key: The key that the text stands under, if any: nine digits under `ssn` are a social security number.
        """
        if len(text) < _SHORTEST:
            return []
        if text.isascii():
            plain = text.encode()
        else:
            text = fold(text)
            plain = plain_bytes(text)
        sights = self._sieve.sights(plain)
        if not sights and not key:
            return []
        found: list[Finding] = []
        shape, looks = shape_of(plain), self._looks
        for sight in sights:
            looks[sight](text, plain, shape, found)
        if key and PiiType.SSN in self.types and _is_keyed_ssn(text, key):
            found.append(Finding(0, len(text), PiiType.SSN))
        findings = settled(found)
        if self._phones is None or PHONE not in sights:
            return findings
        phones = [Finding(start, end, PiiType.PHONE) for start, end in self._phones.find(_without(text, findings))]
        return settled(findings + phones) if phones else findings


def _nothing(_text: str, _plain: bytes, _shape: bytearray, _found: list[Finding]) -> None:
    """Look for nothing."""


def _is_keyed_ssn(text: str, key: str) -> bool:
    return len(text) == 9 and text.isdigit() and is_ssn(text) and is_ssn_key(key)


def is_ssn_key(key: str) -> bool:
    """Whether a key says that a social security number stands under it, such as `ssn` or `social_security_no`."""
    return bool(key) and _SSN_KEY.search(key) is not None


def _without(text: str, found: Sequence[Finding]) -> str:
    """The text with every finding blanked out by as many characters that belong to nothing."""
    if not found:
        return text
    parts, end = [], 0
    for finding in found:
        parts += [text[end : finding.start], "\0" * (finding.end - finding.start)]
        end = finding.end
    return "".join([*parts, text[end:]])
