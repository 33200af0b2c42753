"""Tokens that stand in for personal data on the way to a tool and are taken back on the way from it.

A token is `[EMAIL-TOKEN#...]` with 16 letters that tell nothing: a digest under a key that each request has for itself.
Equal data has equal tokens within a request, so a tool can still compare and join. What a token stands for is known to
its own request only: a tool that hands out the token of another gets nothing for it.
"""

from __future__ import annotations

import json
import re

from cpex.builtins.privacy.redactor import digest

__all__ = ["TokenTable"]

_TOKEN = re.compile(r"\[[A-Z][A-Z0-9_]*-TOKEN#[a-p]{16}\]")


class TokenTable:
    """The tokens of one request.

    Args:
        key: What the digests are made with.
        values: `{token: value}` of what was kept before.
        max_tokens: Values that it holds; what comes after them gets a label and cannot be restored.
    """

    def __init__(self, key: str, values: dict[str, str | int], max_tokens: int) -> None:
        self.key = key
        self.values = values
        self._max_tokens = max_tokens
        self.changed = False
        """Whether there are values that were not there before."""
        self.refused = 0
        """Values for which there was no room."""
        self.restored = 0
        """Tokens that were taken back."""

    def render(self, type_: str, found: str | int) -> str:
        """The token of a value: the same text for the same value, and a number apart from its digits."""
        token = f"[{type_.upper()}-TOKEN#{digest(self.key.encode(), type_, json.dumps(found))}]"
        if token not in self.values:
            if len(self.values) >= self._max_tokens:
                self.refused += 1
                return f"[{type_.upper()}-REDACTED]"
            self.values[token] = found
            self.changed = True
        return token

    def text(self, text: str, _key: str) -> str | int:
        """The text with tokens of this request taken back; a number where nothing but its token stands."""
        if "-TOKEN#" not in text:
            return text
        whole = self.values.get(text)
        if isinstance(whole, int):
            self.restored += 1
            return whole
        return _TOKEN.sub(self._take_back, text)

    def number(self, number: int, _key: str) -> int:
        """Numbers hold no tokens."""
        return number

    def _take_back(self, match: re.Match[str]) -> str:
        value = self.values.get(match[0])
        if value is None:
            return match[0]
        self.restored += 1
        return str(value)
