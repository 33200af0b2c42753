"""Finds secrets in a text, and puts labels in their place."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from cpex.builtins.globs import matches_any
from cpex.builtins.security.pattern_set import PatternSet, compile_linear
from cpex.builtins.security.secret_rules import NAMED, SecretRule, name_pattern

__all__ = ["HIGH_ENTROPY", "Finding", "SecretFinder", "SecretRedaction", "label"]

HIGH_ENTROPY = "high_entropy"
_MIN_ENTROPY = {True: 3.0, False: 4.5}
"""Bits per character above which a token looks random: of hexadecimal ones, and of others."""
_SHORTEST = 7
"""Bytes; no pattern finds less."""
_KEYS_REMEMBERED = 4_096
"""Keys of which is remembered whether they tell of a secret."""
_MIN_VALUE = 4
"""Characters of a value under a telling name."""
_PLACEHOLDERS = frozenset({"none", "null", "true", "false", "undefined", "required", "optional", "redacted"})
_LABEL_END = "-REDACTED]"


class Finding(NamedTuple):
    """One secret: its type, and where it is, in bytes."""

    start: int
    end: int
    type: str


def label(type_: str) -> str:
    """What stands in the place of a secret."""
    return f"[{type_.upper()}{_LABEL_END}"


class SecretFinder:
    """Looks for some types of secrets. Immutable; may be shared between tasks."""

    def __init__(self, rules: Collection[SecretRule], types: Collection[str]) -> None:
        """Compile what is needed for `types`, which may name `NAMED` and `HIGH_ENTROPY` as well."""
        self._rules = [rule for rule in rules if rule.type in types]
        names = name_pattern()
        assigned = (
            rf"(?i)(?:{names})[\"'\]]{{0,2}}\s{{0,3}}(?::=|=>|=|:)\s{{0,3}}[\"'`]?([^\s\"'`,;<>{{}}\[\]()$]{{6,}})"
        )
        self._named = NAMED in types
        self._name = compile_linear(rf"(?i)(?:{names})\s*$")
        self._assigned = compile_linear(assigned)
        self._random = compile_linear(r"[A-Za-z0-9+/_-]{20,}={0,2}") if HIGH_ENTROPY in types else None
        # What is found in running text is looked for with everything else, as the last of the set.
        self._any = PatternSet([*(rule.pattern for rule in self._rules), *([assigned] if self._named else [])])
        self._is_telling = lru_cache(_KEYS_REMEMBERED)(
            lambda key: bool(self._name.search(key.encode(errors="replace")))
        )

    def find(self, text: str, key: str = "") -> list[Finding]:
        """Secrets in the order in which they stand, none inside another.

        Args:
            key: What the text is called: the nearest key of a dict or name of a field.
        """
        data = text.encode(errors="surrogatepass")
        if self._named and key and self._is_telling(key) and _is_value(text.strip()):
            return [Finding(0, len(data), NAMED)]
        if len(data) < _SHORTEST:
            return []
        # Longest first, so that what is part of a larger secret does not cut it in two.
        found = sorted(self._all(data), key=lambda each: (each.start, -each.end))
        kept: list[Finding] = []
        for finding in found:
            if finding.start < finding.end and (not kept or finding.start >= kept[-1].end):
                kept.append(finding)
            elif kept and finding.end > kept[-1].end:
                # They overlap: nothing of either may stay.
                kept[-1] = kept[-1]._replace(end=finding.end)
        return kept

    def _all(self, data: bytes) -> Iterator[Finding]:
        for number in self._any.found_in(data):
            if number == len(self._rules):
                matches = self._assigned.finditer(data)
                yield from (Finding(each.start(1), each.end(1), NAMED) for each in matches if _is_mixed(each.group(1)))
            else:
                rule = self._rules[number]
                yield from (Finding(start, end, rule.type) for start, end in rule.spans(data))
        if self._random is not None:
            for match in self._random.finditer(data):
                if _is_random(match.group().decode()):
                    yield Finding(match.start(), match.end(), HIGH_ENTROPY)


def _is_value(text: str) -> bool:
    """Whether a text under a telling name can be a secret, rather than a placeholder for one."""
    if len(text) < _MIN_VALUE or text.casefold() in _PLACEHOLDERS or text.endswith(_LABEL_END):
        return False
    return not (set(text) <= {"*", "x", "X", ".", "-", "•"} or text.startswith(("${", "<", "{{")))


def _is_mixed(value: bytes) -> bool:
    """Whether a value in running text looks like a secret: words after "password:" are mostly prose."""
    text = value.decode(errors="replace")
    return any(char.isdigit() for char in text) and any(char.isalpha() for char in text) and _is_value(text)


def _is_random(token: str) -> bool:
    is_hex = all(char in "0123456789abcdefABCDEF" for char in token)
    if token.isdigit():
        return False
    return _entropy(token) > _MIN_ENTROPY[is_hex]


def _entropy(text: str) -> float:
    """Shannon entropy in bits per character."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)


class SecretRedaction:
    """One run over one payload, as `cpex.builtins.text.rewrite` wants it; counts what it found.

    Args:
        allow: Globs, lower case, of findings that stay.
        exempt_keys: Globs, lower case, of keys whose own texts stay.
    """

    def __init__(self, finder: SecretFinder, *, allow: Collection[str] = (), exempt_keys: Collection[str] = ()) -> None:
        self.counts: Counter[str] = Counter()
        self._finder = finder
        self._allow = allow
        self._exempt_keys = exempt_keys

    def text(self, text: str, key: str) -> str:
        """The text with labels for secrets; the same object when there are none."""
        if self._exempt_keys and matches_any(key, self._exempt_keys):
            return text
        data: bytes | None = None
        parts: list[bytes] = []
        end = 0
        for finding in self._finder.find(text, key):
            data = text.encode(errors="surrogatepass") if data is None else data
            found = data[finding.start : finding.end]
            if self._allow and matches_any(found.decode(errors="replace"), self._allow):
                continue
            self.counts[finding.type] += 1
            parts += [data[end : finding.start], label(finding.type).encode()]
            end = finding.end
        if data is None or not parts:
            return text
        return b"".join([*parts, data[end:]]).decode(errors="surrogatepass")

    def number(self, number: int, key: str) -> Any:
        """Integers stay: no service gives out secrets that are one."""
        return number
