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
from fnmatch import fnmatchcase

from cpex.builtins.privacy.checks import is_network_card, is_ssn
from cpex.builtins.privacy.kinds import PiiType
from cpex.builtins.privacy.recognisers import Recognisers, is_ssn_key

__all__ = ["Redaction", "Renderer", "hashing", "masking", "replacing"]

Renderer = Callable[[PiiType, str], str]
"""From the type and the text of a finding to what stands in for it."""

_MAX_ROUNDS = 20
_LETTERS = str.maketrans("0123456789abcdef", "abcdefghijklmnop")
_SEPARATORS = re.compile(r"[\s()./:\u200b-]")
_SHOWN = 4
"""Letters and digits at the end of a number that a mask leaves."""


def replacing(labels: Mapping[PiiType, str]) -> Renderer:
    """Each type by its label, or `[TYPE-REDACTED]`."""
    texts = {type_: labels.get(type_, f"[{type_.upper()}-REDACTED]") for type_ in PiiType}
    return lambda type_, _text: texts[type_]


def masking() -> Renderer:
    """Stars that keep the shape: the last four characters of numbers, the first letter and the domain of e-mail."""
    return _mask


def _mask(type_: PiiType, text: str) -> str:
    if type_ is PiiType.EMAIL:
        local, _, domain = text.rpartition("@")
        return f"{local[0]}***@{domain}"
    hidden = sum(map(str.isalnum, text)) - (0 if type_ is PiiType.IP else _SHOWN)
    masked = ""
    for char in text:
        hides = char.isalnum() and hidden > 0
        hidden -= char.isalnum()
        masked += "*" if hides else char
    return masked


def hashing(key: bytes) -> Renderer:
    """A keyed digest, 64 bits as 16 letters: equal data under one key is equal text, whatever the separators.

    SECURITY: without a key, or with a known one, all card numbers or phones can be tried in minutes.
    """

    def render(type_: PiiType, text: str) -> str:
        plain = text if type_ is PiiType.EMAIL else _SEPARATORS.sub("", text)
        digest = hmac.new(key, f"{type_}:{plain.casefold()}".encode(), hashlib.sha256).hexdigest()[:16]
        # In letters, as a digest in digits may be a valid card number.
        return f"[{type_.upper()}-REDACTED#{digest.translate(_LETTERS)}]"

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
        recognisers: Recognisers,
        render: Renderer,
        *,
        allow: Collection[str] = (),
        exempt_keys: Collection[str] = (),
        numbers: bool = True,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._recognisers = recognisers
        self._render = render
        self._allow = allow
        self._exempt_keys = exempt_keys
        self._numbers = numbers

    def text(self, text: str, key: str) -> str:
        """The text without personal data; the same object when there is none."""
        if self._exempt_keys and _matches_any(key, self._exempt_keys):
            return text
        # A replacement may set free what its neighbour hid, so the result is looked at again until it is clean.
        for _ in range(_MAX_ROUNDS):
            redacted = self._once(text, key)
            if redacted is text:
                break
            text = redacted
        return text

    def _once(self, text: str, key: str) -> str:
        parts, end = [], 0
        for finding in self._recognisers.find(text, key):
            found = text[finding.start : finding.end]
            if self._allow and _matches_any(found, self._allow):
                continue
            self.counts[finding.type.value] += 1
            parts += [text[end : finding.start], self._render(finding.type, found)]
            end = finding.end
        return "".join([*parts, text[end:]]) if parts else text

    def number(self, number: int, key: str) -> int | str:
        """The same for an integer: a card of a large network, or a social security number under a key that says so."""
        if type(number) is not int or not self._numbers or not 1_000_000 <= number < 10**19:
            return number
        type_ = _number_type(number, key)
        if type_ not in self._recognisers.types or (self._exempt_keys and _matches_any(key, self._exempt_keys)):
            return number
        text = str(number)
        if self._allow and _matches_any(text, self._allow):
            return number
        self.counts[type_.value] += 1
        return self._render(type_, text)


def _number_type(number: int, key: str) -> PiiType | None:
    digits = str(number)
    if is_network_card(digits):
        return PiiType.CARD
    return PiiType.SSN if is_ssn_key(key) and is_ssn(digits.zfill(9)) else None


def _matches_any(text: str, globs: Collection[str]) -> bool:
    text = text.casefold()
    return any(fnmatchcase(text, glob) for glob in globs)
