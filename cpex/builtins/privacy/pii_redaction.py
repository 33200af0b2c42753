"""The PII redactor: takes personal data out of what goes to tools, models and documents, and out of what comes back."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, SecretStr, field_validator, model_validator

from cpex.builtins.content import content_of
from cpex.builtins.privacy.kinds import PiiType
from cpex.builtins.privacy.recognisers import Recognisers
from cpex.builtins.privacy.redactor import Redaction, Renderer, hashing, masking, replacing
from cpex.builtins.text import rewrite
from cpex.framework import Plugin, PluginConfig, PluginContext, PluginPayload, PluginResult, PluginViolation

__all__ = ["PIIRedactionPlugin", "PIIRedactionSettings"]

_ADDRESSES = ("uri",)
"""Content fields that say what is fetched: a changed one would fetch something else."""
_MIN_KEY = 16


class PIIRedactionSettings(BaseModel, extra="forbid", frozen=True):
    """What is personal data, and what becomes of it."""

    types: list[PiiType] = list(PiiType)
    """Kinds that are looked for."""
    action: Literal["redact", "block"] = "redact"
    """`block` denies the call instead of changing it; that takes a mode that may deny."""
    mode: Literal["replace", "mask", "hash"] = "replace"
    """What stands in for a finding: a label, stars, or a label with a keyed digest."""
    replacements: dict[PiiType, str] = {}
    """Labels for `replace`, instead of `[TYPE-REDACTED]`."""
    hash_key: SecretStr | None = None
    """Secret of at least 16 characters for `hash`."""
    allow: list[str] = []
    """Globs, in any case, of findings that stay, such as `*@example.com`."""
    exempt_keys: list[str] = []
    """Globs, in any case, of dict keys whose own strings stay, such as `recipient`."""
    redact_keys: bool = True
    """Whether the keys of dicts are redacted as well."""
    numbers: bool = True
    """Whether integers are looked at: cards by network and length, social security numbers by their key."""
    phone_regions: list[str] = ["US"]
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
    def _check_key(self) -> Self:
        if self.mode == "hash" and len(self.hash_key.get_secret_value() if self.hash_key else "") < _MIN_KEY:
            raise ValueError(f"mode `hash` needs `hash_key`, a secret of at least {_MIN_KEY} characters")
        return self

    def renderer(self) -> Renderer:
        """What turns a finding into the text that stands in for it."""
        if self.mode == "hash" and self.hash_key is not None:
            return hashing(self.hash_key.get_secret_value().encode())
        return masking() if self.mode == "mask" else replacing(self.replacements)


class PIIRedactionPlugin(Plugin):
    """Redacts cards, e-mail addresses, phone numbers, social security numbers, IBANs and IP addresses.

    Works on every hook that carries content, before and after, at any depth, and never edits what it was handed. The
    result's metadata counts what was found, `{plugin name: {"pii": {"email": 2}}}`, never what it was. With
    `action: block` a finding is a denial with code `PII_DETECTED`.

    Source: docs/plugins/pii_redaction.md.
    """

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings.

        Raises:
            pydantic.ValidationError: A setting is unknown or does not fit.
            ValueError: A phone region is unknown.
        """
        super().__init__(config)
        self._settings = PIIRedactionSettings.model_validate(config.config or {})
        self._recognisers = Recognisers(self._settings.types, self._settings.phone_regions)
        self._render = self._settings.renderer()

    async def _redact(self, payload: PluginPayload, context: PluginContext) -> PluginResult[Any]:
        """Redact the content fields of any payload.

        Raises:
            StructureTooLargeError: The content is nested too deeply to be searched, so it cannot be called clean.
        """
        settings = self._settings
        redaction = Redaction(
            self._recognisers,
            self._render,
            allow=settings.allow,
            exempt_keys=settings.exempt_keys,
            numbers=settings.numbers,
        )
        update: dict[str, Any] = {}
        for name, value in content_of(payload).values(payload).items():
            if settings.action == "redact" and name in _ADDRESSES:
                continue
            redacted = rewrite(value, redaction, keys=settings.redact_keys)
            if redacted is not value:
                update[name] = redacted
        return self._answer(payload, update, dict(redaction.counts))

    def _answer(self, payload: PluginPayload, update: dict[str, Any], counts: dict[str, int]) -> PluginResult[Any]:
        if not update:
            return PluginResult()
        metadata = {self.name: {"pii": counts}}
        if self._settings.action == "block":
            return PluginResult(continue_processing=False, violation=_violation(counts), metadata=metadata)
        return PluginResult(modified_payload=payload.model_copy(update=update), metadata=metadata)

    tool_pre_invoke = prompt_pre_fetch = resource_pre_fetch = agent_pre_invoke = _redact
    tool_post_invoke = prompt_post_fetch = resource_post_fetch = agent_post_invoke = _redact


def _violation(counts: dict[str, int]) -> PluginViolation:
    return PluginViolation(
        reason=f"Personal data found: {', '.join(sorted(counts))}",
        description="The content holds personal data that must not be passed on.",
        code="PII_DETECTED",
        details={"pii": counts},
    )
