"""The settings of the PII redactor: what is personal data, and what becomes of it."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from cpex.builtins.privacy.kinds import PiiType
from cpex.builtins.privacy.presidio import PresidioSettings
from cpex.builtins.privacy.secret_reference import SecretReference
from cpex.builtins.store.guarded import StoreSettings

__all__ = ["PIIRedactionSettings", "PiiMode"]

PiiMode = Literal["replace", "mask", "hash", "tokenise"]


class PIIRedactionSettings(StoreSettings):
    """What is personal data, and what becomes of it. `store` and `on_store_error` are about tokens."""

    types: list[PiiType] = Field(default_factory=lambda: list(PiiType))
    """Kinds that are looked for."""
    action: Literal["redact", "block"] = "redact"
    """`block` denies the call instead of changing it; that takes a mode that may deny."""
    mode: PiiMode = "replace"
    """What stands in for a finding: a label, stars, a label with a keyed digest, or a token that comes back."""
    modes: dict[PiiType, PiiMode] = Field(default_factory=dict)
    """The same for single types."""
    replacements: dict[PiiType, str] = Field(default_factory=dict)
    """Labels for `replace`, instead of `[TYPE-REDACTED]`."""
    hash_key: SecretReference | None = None
    """Secret for `hash`."""
    token_key: SecretReference | None = None
    """Secret that seals tokens in a `store`."""
    token_ttl_s: float = Field(default=3600, gt=0)
    """Seconds that tokens wait in a `store` for the way back."""
    max_tokens: int = Field(default=1000, ge=1)
    """Different values that one request may have tokens for."""
    presidio: PresidioSettings | None = None
    """What `presidio-analyzer` finds beside the types."""
    allow: list[str] = Field(default_factory=list)
    """Globs, in any case, of findings that stay, such as `*@example.com`."""
    exempt_keys: list[str] = Field(default_factory=list)
    """Globs, in any case, of dict keys whose own strings stay, such as `recipient`."""
    redact_keys: bool = True
    """Whether the keys of dicts are redacted as well."""
    numbers: bool = True
    """Whether integers are looked at: cards by network and length, social security numbers by their key."""
    phone_regions: list[str] = Field(default_factory=lambda: ["US"])
    """Two-letter codes of regions whose national numbers are phones; international ones always are."""

    @field_validator("allow", "exempt_keys")
    @classmethod
    def _fold(cls, globs: list[str]) -> list[str]:
        return [glob.casefold() for glob in globs]

    @field_validator("replacements")
    @classmethod
    def _check_replacements(cls, replacements: dict[PiiType, str]) -> dict[PiiType, str]:
        for type_, text in replacements.items():
            if any(char.isdigit() or char in "@:" for char in text):
                raise ValueError(
                    f"replacement for `{type_}` has a digit, `@` or `:` and could be taken for personal data"
                )
        return replacements

    @model_validator(mode="after")
    def _check_not_idle(self) -> Self:
        if not self.types and self.presidio is None:
            raise ValueError("nothing is looked for; name `types` or `presidio`, or take the plugin out")
        return self

    @model_validator(mode="after")
    def _check_secrets(self) -> Self:
        if "hash" in self.used_modes and self.hash_key is None:
            raise ValueError("mode `hash` needs `hash_key`, a secret of at least 16 characters")
        if "tokenise" in self.used_modes and self.store is not None and self.token_key is None:
            raise ValueError("tokens in a `store` need `token_key`, a secret of at least 16 characters to seal them")
        return self

    @property
    def used_modes(self) -> frozenset[PiiMode]:
        """Modes that a finding may meet."""
        return frozenset({self.mode, *self.modes.values()})
