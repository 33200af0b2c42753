"""The secrets plugin: takes keys, tokens and passwords out of what passes, or stops it."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, field_validator, model_validator

from cpex.builtins.content import GUARDED_HOOKS, content_of, is_message_payload
from cpex.builtins.guard import Guard, GuardedCall
from cpex.builtins.security.secret_finder import HIGH_ENTROPY, SecretFinder, SecretRedaction
from cpex.builtins.security.secret_rules import NAMED, OPTIONAL_TYPES, secret_rules
from cpex.builtins.text import rewrite
from cpex.framework import PluginConfig, PluginResult, PluginViolation

__all__ = ["SecretsPlugin", "SecretsSettings"]

CODE = "SECRET_DETECTED"
_ADDRESSES = ("uri",)
"""Content fields that say what is fetched: a changed one would fetch something else."""


class SecretsSettings(BaseModel, extra="forbid", frozen=True):
    """What is a secret, and what becomes of it."""

    action: Literal["redact", "block"] = "redact"
    """`block` denies the call instead of changing it; that takes a mode that may deny."""
    types: list[str] | None = None
    """Types that are looked for; without it, all but those that words look like."""
    named_values: bool = True
    """Whether values count as secrets that are called so: `password`, `client_secret`, `api_key = ...`."""
    high_entropy: bool = False
    """Whether long tokens count that look random; hashes and identifiers do, too."""
    allow: list[str] = []
    """Globs, in any case, of findings that stay, such as `AKIAIOSFODNN7EXAMPLE`."""
    exempt_keys: list[str] = []
    """Globs, in any case, of dict keys whose own texts stay, such as `page_token`."""

    @field_validator("allow", "exempt_keys")
    @classmethod
    def _fold(cls, globs: list[str]) -> list[str]:
        return [glob.casefold() for glob in globs]

    @model_validator(mode="after")
    def _check_not_idle(self) -> Self:
        if self.types == [] and not self.named_values and not self.high_entropy:
            raise ValueError("nothing is looked for; name `types`, or take the plugin out")
        return self


class SecretsPlugin(Guard):
    """Redacts keys and tokens of services, private keys, credentials in URLs, and values that are called a secret.

    Works on every hook that carries content, before and after, at any depth, also in messages, and never edits what it
    was handed. The result's metadata counts what was found, `{plugin name: {"secrets": {"aws_access_key": 1}}}`, never
    what it was. With `action: block` a finding is a denial with code `SECRET_DETECTED`.

    Source: docs/plugins/secrets.md.
    """

    settings_model = SecretsSettings
    guards = GUARDED_HOOKS

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings and compile the rules.

        Raises:
            pydantic.ValidationError: A setting is unknown or does not fit.
            ValueError: A type is unknown.
            ModuleNotFoundError: The library with the patterns is not installed; the message names the extra.
        """
        super().__init__(config)
        self._settings = settings = SecretsSettings.model_validate(config.config or {})
        rules = secret_rules()
        known = sorted({rule.type for rule in rules})
        if unknown := [name for name in settings.types or () if name not in known]:
            raise ValueError(f"no secrets are of the types {unknown}; known: {', '.join(known)}")
        types = set(settings.types if settings.types is not None else set(known) - OPTIONAL_TYPES)
        types |= {NAMED} if settings.named_values else set()
        types |= {HIGH_ENTROPY} if settings.high_entropy else set()
        self._finder = SecretFinder(rules, types)

    async def on_hook(self, call: GuardedCall) -> PluginResult[Any]:
        """Redact the content of any payload.

        Raises:
            StructureTooLargeError: The content is nested too deeply to be searched, so it cannot be called clean.
        """
        settings = self._settings
        redaction = SecretRedaction(self._finder, allow=settings.allow, exempt_keys=settings.exempt_keys)
        update = self._redacted(call, redaction)
        if not redaction.counts:
            return PluginResult()
        counts = dict(redaction.counts)
        metadata = {self.name: {"secrets": counts}}
        if settings.action == "block":
            return PluginResult(continue_processing=False, violation=_violation(counts), metadata=metadata)
        return PluginResult(modified_payload=call.payload.model_copy(update=update), metadata=metadata)

    def _redacted(self, call: GuardedCall, redaction: SecretRedaction) -> dict[str, Any]:
        """The fields of the payload that change, changed."""
        if is_message_payload(call.payload):
            from cpex.framework.cmf.rewrite import rewrite_text

            message = call.payload.message
            # Names and addresses count when a call is to be blocked; changed they would call something else.
            names = self._settings.action == "block"
            changed = rewrite_text(message, lambda leaf: redaction.text(leaf.text, leaf.key), names=names)
            return {"message": changed}
        update: dict[str, Any] = {}
        for name, value in content_of(call.payload).values(call.payload).items():
            if self._settings.action == "redact" and name in _ADDRESSES:
                continue
            redacted = rewrite(value, redaction, keys=True)
            if redacted is not value:
                update[name] = redacted
        return update


def _violation(counts: dict[str, int]) -> PluginViolation:
    return PluginViolation(
        reason=f"Secrets found: {', '.join(sorted(counts))}",
        description="The content holds secrets that must not be passed on.",
        code=CODE,
        details={"secrets": counts},
    )
