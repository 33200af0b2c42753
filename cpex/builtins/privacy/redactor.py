"""Turns findings into redacted text: what stands in for a piece of personal data, and when to stop looking.

A replacement holds no digit, no `@` and no colon that could be read as personal data again, so redacting twice is the
same as redacting once.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from cpex.builtins.globs import matches_any
from cpex.builtins.privacy.checks import is_network_card, is_ssn
from cpex.builtins.privacy.kinds import Finding, PiiType
from cpex.builtins.privacy.recognisers import is_ssn_key

__all__ = ["Finder", "Redaction", "Renderer", "digest", "hashing", "masking", "replacing"]

Renderer = Callable[[str, str | int], str]
"""From the type of a finding, and the text or number that was found, to what stands in for it."""

_MAX_ROUNDS = 20
_WITHHELD = "[PII-REDACTED]"
"""What stands in for a whole text that does not come clean in so many rounds."""
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
_SEPARATORS = re.compile(r"[\s()./:\u200b-]")
_SHOWN = 4
"""Letters and digits at the end of a number that a mask leaves."""


class Finder(Protocol):
    """Finds personal data in text."""

    @property
    def types(self) -> Collection[str]:
        """What it looks for."""

    def find(self, text: str, key: str = "") -> list[Finding]:
        """What is in a text that stands under a key, in order and without overlap."""


def digest(key: bytes, type_: str, value: str) -> str:
    """A keyed digest of a value: 64 bits of HMAC-SHA-256 as 16 letters.

    In letters, as a digest in digits may be a valid card number.
    """
    code = hmac.new(key, f"{type_}:{value}".encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
    return code[:16].translate(_LETTERS)


def replacing(labels: Mapping[PiiType, str]) -> Renderer:
    """Each type by its label, or `[TYPE-REDACTED]`."""
    texts: dict[str, str] = {type_.value: label for type_, label in labels.items()}
    return lambda type_, _found: texts.get(type_, f"[{type_.upper()}-REDACTED]")


def masking() -> Renderer:
    """Stars that keep the shape: the last four characters of numbers, the first letter and the domain of e-mail."""
    return _mask


def _mask(type_: str, found: str | int) -> str:
    text = str(found)
    if type_ == PiiType.EMAIL:
        local, _, domain = text.rpartition("@")
        return f"{local[0]}***@{domain}"
    # Of what has no form of its own, the end may be a name.
    shows = type_ in tuple(PiiType) and type_ != PiiType.IP
    hidden = sum(map(str.isalnum, text)) - (_SHOWN if shows else 0)
    masked = ""
    for char in text:
        hides = char.isalnum() and hidden > 0
        hidden -= char.isalnum()
        masked += "*" if hides else char
    return masked


def hashing(key: bytes) -> Renderer:
    """A keyed digest: equal data under one key is equal text, whatever the separators.

    SECURITY: without a key, or with a known one, all card numbers or phones can be tried in minutes.
    """

    def render(type_: str, found: str | int) -> str:
        text = str(found)
        plain = text if type_ == PiiType.EMAIL else _SEPARATORS.sub("", text)
        return f"[{type_.upper()}-REDACTED#{digest(key, type_, plain.casefold())}]"

    return render


class Redaction:
    """One run over one payload, as `cpex.builtins.text.rewrite` wants it; counts what it replaced.

    Args:
        allow: Globs, lower case: findings that match are left as they are.
        exempt_keys: Globs, lower case: nothing is looked for right under a key that matches.
        numbers: Whether integers are looked at too.
    """

    def __init__(
        self,
        finder: Finder,
        render: Renderer,
        *,
        allow: Collection[str] = (),
        exempt_keys: Collection[str] = (),
        numbers: bool = True,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._finder = finder
        self._render = render
        self._allow = allow
        self._exempt_keys = exempt_keys
        self._numbers = numbers

    def text(self, text: str, key: str) -> str:
        """The text without personal data; the same object when there is none, a label when it does not come clean."""
        if self._exempt_keys and matches_any(key, self._exempt_keys):
            return text
        # A replacement may set free what its neighbour hid, so the result is looked at again until it is clean.
        for _ in range(_MAX_ROUNDS):
            redacted = self._once(text, key)
            if redacted == text:
                return text
            text = redacted
        # SECURITY: numbers glued to one another may be set free one in each round, so that what is left is known to
        # hold some, and without a bound a text made for it would take quadratic time.
        return _WITHHELD

    def _once(self, text: str, key: str) -> str:
        parts, end = [], 0
        for finding in self._finder.find(text, key):
            found = text[finding.start : finding.end]
            if self._allow and matches_any(found, self._allow):
                continue
            self.counts[str(finding.type)] += 1
            parts += [text[end : finding.start], self._render(finding.type, found)]
            end = finding.end
        return "".join([*parts, text[end:]]) if parts else text

    def number(self, number: int, key: str) -> int | str:
        """The same for an integer: a card of a large network, or a social security number under a key that says so."""
        if type(number) is not int or not self._numbers or not 1_000_000 <= number < 10**19:
            return number
        type_ = _number_type(number, key)
        if type_ is None or type_ not in self._finder.types:
            return number
        if self._exempt_keys and matches_any(key, self._exempt_keys):
            return number
        if self._allow and matches_any(str(number), self._allow):
            return number
        self.counts[type_.value] += 1
        return self._render(type_.value, number)


def _number_type(number: int, key: str) -> PiiType | None:
    digits = str(number)
    if is_network_card(digits):
        return PiiType.CARD
    return PiiType.SSN if is_ssn_key(key) and is_ssn(digits.zfill(9)) else None
