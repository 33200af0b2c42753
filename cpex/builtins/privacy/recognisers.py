"""Finds personal data in text: cards, e-mail addresses, phone and social security numbers, IBANs, IP addresses.

Every recogniser is linear in the length of the text: the patterns start at a rare character, repeat possessively or
within bounds, and check digits are judged on spans of bounded length. `Recognisers.find` runs those that are wanted and
settles overlaps. What becomes of a finding is the caller's business.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from cpex.builtins.privacy.checks import is_ssn
from cpex.builtins.privacy.digits import DigitFinder
from cpex.builtins.privacy.folding import fold
from cpex.builtins.privacy.kinds import Finding, PiiType, settled
from cpex.builtins.privacy.letters import emails, ibans, ipv6_addresses
from cpex.builtins.privacy.phones import PhoneFinder
from cpex.builtins.privacy.shapes import plain_bytes, shape_of
from cpex.builtins.privacy.sieve import EMAIL, IBAN, IPV6, NUMBERS, PHONE, Sieve

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
        self._digits = DigitFinder()
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
        if len(sights) == 1 and not key:
            return []
        found: list[Finding] = []
        if EMAIL in sights:
            emails(text, found)
        if IPV6 in sights:
            ipv6_addresses(text, found)
        has_iban, has_numbers = IBAN in sights, not NUMBERS.isdisjoint(sights)
        if has_iban or has_numbers:
            shape = shape_of(plain)
            if has_iban:
                shape = ibans(text, shape, found)
            if has_numbers:
                self._digits.find(text, plain, shape, sights, found)
        if key and PiiType.SSN in self.types and _is_keyed_ssn(text, key):
            found.append(Finding(0, len(text), PiiType.SSN))
        findings = settled(found)
        if self._phones is None or PHONE not in sights:
            return findings
        phones = [Finding(start, end, PiiType.PHONE) for start, end in self._phones.find(_without(text, findings))]
        return settled(findings + phones) if phones else findings


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
