"""What secrets look like: the patterns of detect-secrets, those of newer services, and values under telling names.

Of that library only the data are used: its patterns, and its list of words that secrets are called by. They run on RE2,
so no text can stall them, and nothing is ever sent anywhere to find out whether a secret is valid.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from cpex.builtins.security.pattern_set import compile_linear

__all__ = ["NAMED", "OPTIONAL_TYPES", "SecretRule", "known_types", "name_pattern", "secret_rules"]

logger = logging.getLogger(__name__)

NAMED = "named_value"
"""Type of a value that is a secret because of what it is called."""
OPTIONAL_TYPES = frozenset({"artifactory_credentials"})
"""Types that are looked for only when they are asked for: words in capitals look like them, such as APARTMENTS."""
_LEFT_OUT = frozenset({"public_ip_ipv4", "json_web_token"})
"""The first are no secrets; of the second the library's pattern leaves the signature where it is, and ours does not."""
_VALUE_IS_GROUP = frozenset({"basic_auth_credentials"})
_GROUP_AT_LEAST = 16
"""Bytes of a group that is the secret itself. Smaller ones only serve the pattern, as in `(ghp|gho)_...`."""

_BEGIN = r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"
_OWN: dict[str, tuple[str, ...]] = {
    "private_key": (
        # A whole block, and what there is of one that was cut off.
        rf"{_BEGIN}(?s:.)*?-----END [A-Z0-9 ]{{0,40}}-----",
        rf"{_BEGIN}[A-Za-z0-9+/=\s\\]*(?:-{{1,5}}(?:END [A-Z0-9 ]{{0,40}}-{{0,5}})?)?",
        r"AGE-SECRET-KEY-1[0-9A-Z]{58}",
    ),
    "json_web_token": (r"\beyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}(?:\.[A-Za-z0-9_-]*){1,3}",),
    "github_token": (r"\bgithub_pat_[0-9A-Za-z_]{40,}",),
    "gitlab_token": (r"\bglpat-[0-9A-Za-z_.-]{20,}",),
    "slack_token": (r"\bxox[a-z](?:\.xox[a-z])?-[0-9A-Za-z-]{10,}", r"\bxapp-\d-[0-9A-Za-z-]{10,}"),
    "stripe_access_key": (r"\b[rs]k_(?:live|test)_[0-9A-Za-z]{20,}", r"\bwhsec_[0-9A-Za-z]{24,}"),
    "openai_token": (r"\bsk-(?:proj|svcacct|admin|None)-[0-9A-Za-z_-]{32,}",),
    "anthropic_token": (r"\bsk-ant-[0-9A-Za-z_-]{32,}",),
    "google_api_key": (r"\bAIza[0-9A-Za-z_-]{35}", r"\bGOCSPX-[0-9A-Za-z_-]{28}", r"\bya29\.[0-9A-Za-z_-]{20,}"),
    "hugging_face_token": (r"\bhf_[0-9A-Za-z]{34,}",),
    "npm_tokens": (r"\bnpm_[0-9A-Za-z]{36}",),
    "databricks_token": (r"\bdapi[0-9a-f]{32}\b",),
    "digitalocean_token": (r"\bdo[opr]_v1_[0-9a-f]{64}",),
    "authorization": (r"(?i)\b(?:bearer|basic)\s+([A-Za-z0-9._~+/-]{20,}=*)",),
}
_MORE_NAMES = (
    *("access_?key", "access_?token", "auth_?token", "api_?token", "bearer_?token", "id_?token", "refresh_?token"),
    *("session_?token", "secret_?token", "passphrase", "encryption_?key", "signing_?key", "webhook_?key"),
)


@dataclass(frozen=True, slots=True)
class SecretRule:
    """One pattern and what it finds."""

    type: str
    """Such as `aws_access_key`."""
    pattern: str
    """In RE2 syntax."""
    compiled: Any

    def spans(self, data: bytes) -> Iterator[tuple[int, int]]:
        """Where the secrets are: start and end in bytes."""
        for match in self.compiled.finditer(data):
            start, end = match.span(1) if _is_in_group(self.type, match) else match.span()
            yield _trimmed(data, start, end)


def _is_in_group(type_: str, match: Any) -> bool:
    group: bytes = (match.group(1) if match.re.groups else None) or b""
    return len(group) >= (1 if type_ in _VALUE_IS_GROUP else _GROUP_AT_LEAST)


def _trimmed(data: bytes, start: int, end: int) -> tuple[int, int]:
    """Without the blanks, quotes and signs around it, which patterns with no look-around take along."""
    found = data[start:end]
    start += len(found) - len(found.lstrip(b" \t\r\n\"'=:"))
    return start, start + len(found.strip(b" \t\r\n\"'=:"))


def known_types() -> dict[str, list[re.Pattern[str]]]:
    """The library's patterns by type.

    Raises:
        ModuleNotFoundError: The library is not installed; the message names the extra.
    """
    try:
        detectors = import_module("detect_secrets.core.plugins.util").get_mapping_from_secret_type_to_class()
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "looking for secrets needs the library `detect-secrets`; install it with `pip install 'cpex[secrets]'`",
            name="detect_secrets",
        ) from error
    found = {_slug(name): getattr(detector, "denylist", None) for name, detector in detectors.items()}
    return {name: list(patterns) for name, patterns in found.items() if patterns and name not in _LEFT_OUT}


def secret_rules() -> list[SecretRule]:
    """Every rule, in the order in which types are told.

    A pattern of a later version of the library that RE2 cannot run is left out with a warning.

    Raises:
        ModuleNotFoundError: The library is not installed; the message names the extra.
    """
    texts = [(name, _translated(pattern)) for name, patterns in known_types().items() for pattern in patterns]
    texts += [(name, pattern) for name, patterns in _OWN.items() for pattern in patterns]
    return [rule for name, text in texts if (rule := _rule(name, text)) is not None]


def _rule(type_: str, pattern: str) -> SecretRule | None:
    try:
        return SecretRule(type_, pattern, compile_linear(pattern))
    except ValueError:
        logger.warning("a pattern of detect-secrets for `%s` cannot be run in linear time and is left out", type_)
        return None


def _translated(pattern: re.Pattern[str]) -> str:
    """The pattern in RE2 syntax: without look-around, so that it finds a little more, never less."""
    text = pattern.pattern.replace(r"(?:(?<=\W)|(?<=^))", r"(?:^|\W)")
    text = re.sub(r"\(\?!(?:\\w|\[[^\]]*\])\)", "", text)
    # RE2 repeats up to 1,000 times.
    text = text.replace("{50,1024}", "{50,1000}")
    return f"(?i){text}" if pattern.flags & re.IGNORECASE else text


def _slug(name: str) -> str:
    return re.sub(r"\W+", "_", name.lower()).strip("_")


def name_pattern() -> str:
    """What a key, a variable or a field ends with when its value is a secret: an alternation in RE2 syntax.

    Raises:
        ModuleNotFoundError: The library is not installed.
    """
    words = import_module("detect_secrets.plugins.keyword").DENYLIST
    return "|".join([*words, *_MORE_NAMES]).replace("_?", "[_ -]?")
