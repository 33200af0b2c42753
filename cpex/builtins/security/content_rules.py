"""What a content rule is, and the rules that apply when the configuration gives none.

The built-in rules are few and narrow: each names something that hardly anybody has a reason to send through an agent.
They are a floor, not a policy.
"""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, Field, field_validator, model_validator

from cpex.builtins.content import BEFORE_HOOKS, GUARDED_HOOKS, MESSAGE_HOOKS

__all__ = ["DEFAULT_RULES", "ContentRule"]


class ContentRule(BaseModel, extra="forbid", frozen=True):
    """Words and patterns that must not occur, and where."""

    name: str = Field(min_length=1, max_length=64)
    """What a denial reports; no two rules share one."""
    words: list[str] = []
    """Whole words or phrases, in any case; between the words of a phrase any blanks or punctuation may stand."""
    patterns: list[str] = []
    """Regular expressions in RE2 syntax; found anywhere in a string."""
    case_sensitive: bool = False
    """Whether the patterns tell capitals from small letters."""
    hooks: list[str] = []
    """Hooks on which the rule applies; empty means all that the plugin is configured for."""
    fields: list[str] = []
    """Globs of paths such as `args.query` or `messages*`; empty means everywhere."""
    description: str = "The content breaks a rule of the content policy."
    """What a denial tells whoever asked."""

    @field_validator("hooks")
    @classmethod
    def _check_hooks(cls, hooks: list[str]) -> list[str]:
        if unknown := [hook for hook in hooks if hook not in GUARDED_HOOKS]:
            raise ValueError(f"no hooks with content are called {unknown}; known: {', '.join(GUARDED_HOOKS)}")
        return hooks

    @model_validator(mode="after")
    def _check_not_empty(self) -> Self:
        if not any(word.strip() for word in self.words) and not any(self.patterns):
            raise ValueError(f"rule `{self.name}` can never match; give it `words` or `patterns`")
        return self


_BEFORE = [*BEFORE_HOOKS, *(hook for hook in MESSAGE_HOOKS if "_pre_" in hook)]

DEFAULT_RULES = (
    ContentRule(
        name="destructive_shell",
        description="The content holds a command that destroys a file system or a disk.",
        hooks=_BEFORE,
        patterns=[
            # Recursive, forced removal of the root, a home, everything here, or a system directory.
            r"\brm\s+(?:-\S+\s+)*(?:-[a-z]*r[a-z]*f|-[a-z]*f[a-z]*r|-r\s+-f|-f\s+-r|--recursive\s+--force"
            r"|--force\s+--recursive)\S*\s+(?:-\S+\s+)*[\"']?(?:/|/\*|~/?\*?|\$\{?home\}?/?\*?|\*|\.\.?/?\*?"
            r"|/(?:bin|boot|dev|etc|home|lib|opt|root|sbin|srv|usr|var)/?\*?)[\"']?(?:[\s;&|)]|$)",
            r"\brm\s[^\n]{0,200}--no-preserve-root",
            r"\bmkfs(?:\.\w+)?\s+(?:-\S+\s+)*/dev/",
            r"\bdd\s[^\n]{0,200}\bof=/dev/(?:sd|hd|vd|xvd|nvme|mmcblk|disk)",
            r">\s*/dev/(?:sd[a-z]|nvme\d|vd[a-z]|hd[a-z])",
            r":\s*\(\s*\)\s*\{\s*:\s*\|\s*:\s*&\s*\}\s*;\s*:",
        ],
    ),
    ContentRule(
        name="destructive_sql",
        description="The content holds a statement that drops or empties database objects.",
        hooks=_BEFORE,
        patterns=[
            # At the start of a statement, or ended like one: so that prose about tables is let through.
            r"(?:^|[;\"')\n])\s*(?:drop\s+(?:table|database|schema)|truncate\s+table)\s+(?:if\s+exists\s+)?[\w.\"`\[\]-]+"
            r"\s*(?:cascade|restrict)?\s*(?:;|--|$)",
            r"\b(?:drop\s+(?:table|database|schema)|truncate\s+table)\s+(?:if\s+exists\s+)?[\w.\"`\[\]-]+"
            r"\s*(?:cascade|restrict)?\s*;",
            r"\bdelete\s+from\s+[\w.\"`\[\]-]+\s*(?:where\s+(?:1\s*=\s*1|true)\s*)?(?:;|--)",
            r"^\s*delete\s+from\s+[\w.\"`\[\]-]+\s*$",
        ],
    ),
    ContentRule(
        name="private_key",
        description="The content holds a private key.",
        patterns=[r"-----BEGIN (?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?-----"],
    ),
    ContentRule(
        name="access_token",
        description="The content holds a credential of a well-known service.",
        case_sensitive=True,
        patterns=[
            r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b",
            r"\bgh[opsur]_[0-9A-Za-z]{36,}",
            r"\bgithub_pat_[0-9A-Za-z_]{40,}",
            r"\bglpat-[0-9A-Za-z_-]{20,}",
            r"\bxox[abprs]-[0-9]{6,}-[0-9A-Za-z-]{10,}",
            r"\b[rs]k_live_[0-9A-Za-z]{20,}",
            r"\bAIza[0-9A-Za-z_-]{35}",
            r"\bsk-ant-[0-9A-Za-z_-]{32,}",
            r"\bsk-proj-[0-9A-Za-z_-]{32,}",
        ],
    ),
    ContentRule(
        name="credential_access",
        description="The content reaches for stored credentials.",
        hooks=_BEFORE,
        patterns=[
            r"/etc/(?:shadow|gshadow|sudoers)\b",
            r"\.ssh/(?:id_(?:rsa|dsa|ecdsa|ed25519)(?:[^.\w]|$)|identity\b)",
            r"\.aws/credentials\b",
            r"\.kube/config\b",
            # The cloud's instance metadata, which hands credentials to whoever asks from inside.
            r"\b169\.254\.169\.254\b",
            r"\bmetadata\.google\.internal\b",
        ],
    ),
)
"""In the order in which they are tried."""
