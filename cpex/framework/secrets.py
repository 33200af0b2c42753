"""What must not be written down: names that secrets go by, forms that they have, and text without them.

This is a net below those who write messages, who know what they quote. It finds what looks like a secret, and cannot
find what does not: a password in the middle of a sentence stays.

Source: docs/operating/logs.md, "What is taken out".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

__all__ = ["MASK", "SECRET_KEYS", "is_secret_key", "normal_key", "secrets_in", "without_secrets"]

MASK = "**********"
SECRET_KEYS = frozenset(
    {
        "api_key",
        "apikey",
        "authorization",
        "client_secret",
        "cookie",
        "credentials",
        "passwd",
        "password",
        "private_key",
        "proxy_authorization",
        "secret",
        "set_cookie",
        "token",
        "access_token",
        "bearer_token",
        "refresh_token",
        "x_api_key",
    }
)
"""Keys whose values are never written, in the form that `normal_key` gives."""

MAX_SCANNED_CHARS = 65_536
"""Text beyond this is cut before it is searched."""
MIN_SECRET_CHARS = 8
"""Values of the environment that are shorter are too common to be masked wherever they stand."""

_SECRET_NAME = re.compile(
    r"(?:^|_)(?:password|passwd|secret|token|credentials?|api_?key|private_?key|auth_?key)(?:_|$)"
)
_KEYS = "|".join(sorted((key.replace("_", "[-_ ]?") for key in SECRET_KEYS), key=len, reverse=True))
_QUOTED = r"(?P<quote>[\"'])(?:(?!(?P=quote)).){1,4096}(?P=quote)?"
# Each alternative is linear: bounded repetition, and no two neighbours that match the same characters.
_FORMS = (
    # Private keys in PEM form, whole or cut off.
    re.compile(r"-----BEGIN [A-Z ]{0,40}PRIVATE KEY-----.*?(?:-----END [A-Z ]{0,40}PRIVATE KEY-----|\Z)", re.DOTALL),
    # Credentials in URLs.
    re.compile(r"(?<=://)[^\s/@\"']{1,512}(?=@)"),
    # Schemes of the HTTP header `Authorization`.
    re.compile(r"(?i)(?<=\bbearer )[\w.~+/=-]{8,4096}|(?<=\bbasic )[\w+/=-]{8,4096}|(?<=\btoken )[\w.~+/=-]{16,4096}"),
    # Tokens that can be told by their look: JSON Web Tokens, and those with the prefix of their issuer.
    re.compile(r"\beyJ[\w-]{8,4096}\.[\w-]{8,4096}(?:\.[\w-]{0,4096})?"),
    re.compile(
        r"\b(?:sk|rk|pk)[-_](?:[a-z]{2,12}[-_]){0,2}[A-Za-z0-9_-]{16,256}|\bgh[pousr]_\w{20,255}|\bgithub_pat_\w{20,255}"
        r"|\bglpat-[\w-]{20,255}|\bxox[abeprs]-[\w-]{10,255}|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bAIza[\w-]{35}"
        r"|\bwhsec_[\w+/=]{16,255}"
    ),
)
# A value that follows the name of a secret: any after `=`, after `:` one in quotes or one that looks made up.
_ASSIGNED = re.compile(
    rf"(?i)(?P<key>\b(?:{_KEYS}|sig|signature)\b[\"']?\s{{0,3}})"
    rf"(?P<sign>=\s?|:\s{{0,3}})(?P<value>{_QUOTED}|[^\s,;&\"'(){{}}\[\]]{{1,4096}})"
)
_LOOKS_MADE_UP = re.compile(r"(?=\D*\d)(?=[^A-Za-z]*[A-Za-z]).{8,}", re.DOTALL)


def normal_key(key: str) -> str:
    """A key in the form in which secret ones are recognised: `Set-Cookie` is `set_cookie`."""
    return key.casefold().replace("-", "_")


def is_secret_key(key: str) -> bool:
    """Whether a name says that its value is a secret, as `DB_PASSWORD` and `x-api-key` do."""
    name = normal_key(key)
    return name in SECRET_KEYS or _SECRET_NAME.search(name) is not None


def secrets_in(environment: Mapping[str, str]) -> tuple[str, ...]:
    """Values of variables whose names say that they are secret, longest first; short ones are left out."""
    found = {value for name, value in environment.items() if len(value) >= MIN_SECRET_CHARS and is_secret_key(name)}
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


def without_secrets(text: str, known: tuple[str, ...] = ()) -> str:
    """Text with a mask in place of everything that looks like a secret, or is one of those known."""
    text = text[:MAX_SCANNED_CHARS]
    if known:
        text = _any_of(known).sub(MASK, text)
    for form in _FORMS:
        text = form.sub(MASK, text)
    return _ASSIGNED.sub(_masked, text)


@lru_cache(maxsize=8)
def _any_of(known: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, known)))


def _masked(found: re.Match[str]) -> str:
    value, quote = found["value"], found["quote"] or ""
    is_certain = bool(quote) or found["sign"].startswith("=")
    if value.strip("\"'").startswith(MASK) or not (is_certain or _LOOKS_MADE_UP.fullmatch(value)):
        return found[0]
    return f"{found['key']}{found['sign']}{quote}{MASK}{quote}"
