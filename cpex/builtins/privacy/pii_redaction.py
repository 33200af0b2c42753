"""The PII redactor: takes personal data out of what goes to tools, models and documents, and out of what comes back."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from cpex.builtins.content import GUARDED_HOOKS, content_of, is_message_payload
from cpex.builtins.guard import Guard, GuardedCall
from cpex.builtins.privacy.finding import PiiFinder
from cpex.builtins.privacy.pii_settings import PIIRedactionSettings
from cpex.builtins.privacy.redactor import Redaction, Renderer, hashing, masking, replacing
from cpex.builtins.privacy.token_keeper import StateKeeper, StoreAwayError, StoreKeeper, TokenKeeper
from cpex.builtins.privacy.tokens import TokenTable
from cpex.builtins.store.guarded import STORE_UNAVAILABLE, GuardedStore
from cpex.builtins.text import TextChange, rewrite
from cpex.framework import PluginConfig, PluginPayload, PluginResult, PluginViolation

if TYPE_CHECKING:
    # At run time messages are loaded by those who send some.
    from cpex.framework.cmf.leaves import TextLeaf

__all__ = ["PIIRedactionPlugin", "PIIRedactionSettings"]

CODE = "PII_DETECTED"
HTTP_SERVICE_UNAVAILABLE = 503
_ADDRESSES = ("uri",)
"""Content fields that say what is fetched: a changed one would fetch something else."""


class PIIRedactionPlugin(Guard):
    """Redacts cards, e-mail addresses, phone numbers, social security numbers, IBANs and IP addresses.

    Works on every hook that carries content, before and after, at any depth, also in messages, and never edits what it
    was handed. The result's metadata counts what was found, `{plugin name: {"pii": {"email": 2}}}`, never what it was.
    With `action: block` a finding is a denial with code `PII_DETECTED`.

    With the mode `tokenise`, what was taken out before comes back after: tokens of the same request are restored in the
    result, and `restored` counts them.

    Source: docs/plugins/pii_redaction.md.
    """

    settings_model = PIIRedactionSettings
    guards = GUARDED_HOOKS

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings and prepare what looks for personal data.

        Raises:
            pydantic.ValidationError: A setting is unknown or does not fit.
            ValueError: A phone region, a recogniser or the store is unknown.
            ModuleNotFoundError: A library is not installed; the message names the extra.
        """
        super().__init__(config)
        self._settings = settings = PIIRedactionSettings.model_validate(config.config or {})
        self._finder = PiiFinder(settings)
        self._renderers = _renderers(settings)
        # A call that is denied has no way back.
        tokens = "tokenise" in settings.used_modes and settings.action == "redact"
        self._keeper = self._make_keeper() if tokens else None

    def _make_keeper(self) -> TokenKeeper:
        settings = self._settings
        if settings.store is None or settings.token_key is None:
            return StateKeeper(settings.max_tokens)
        store = GuardedStore(self.name, settings)
        secret = settings.token_key.get_secret_value()
        return StoreKeeper(self.name, store, secret, max_tokens=settings.max_tokens, ttl_s=settings.token_ttl_s)

    async def shutdown(self) -> None:
        """Close the store, if there is one; it opens again on use."""
        if self._keeper is not None:
            await self._keeper.close()

    async def on_hook(self, call: GuardedCall) -> PluginResult[Any]:
        """Redact the content of any payload, and restore what was replaced by tokens before.

        Raises:
            StructureTooLargeError: The content is nested too deeply to be searched, so it cannot be called clean.
        """
        table, away = await self._load(call)
        if away and self._settings.on_store_error != "allow" and _goes_out(call.stage):
            return _unavailable()
        redaction = self._redaction(table if table and _goes_out(call.stage) else None)
        update = self._changed(call.payload, redaction)
        if self._settings.action == "block":
            return self._blocked(redaction) if redaction.counts else PluginResult()
        if table is not None and _comes_back(call.stage):
            update = self._restored(call, update, table)
        elif table is not None and table.changed and not await self._keep(call, table):
            return _unavailable()
        return self._answer(call.payload, update, self._facts(redaction, table, away=away))

    async def _load(self, call: GuardedCall) -> tuple[TokenTable | None, bool]:
        """The tokens of the request, and whether they could not be had."""
        if self._keeper is None or not (_goes_out(call.stage) or _comes_back(call.stage)):
            return None, False
        try:
            return await self._keeper.load(call.context), False
        except StoreAwayError:
            return None, True

    async def _keep(self, call: GuardedCall, table: TokenTable) -> bool:
        """Keep new tokens; false when a call must not go on without them."""
        assert self._keeper is not None
        try:
            await self._keeper.keep(call.context, table)
        except StoreAwayError:
            # The tokens hide what they stand for in any case; only the way back is lost.
            return self._settings.on_store_error == "allow"
        return True

    def _redaction(self, table: TokenTable | None) -> Redaction:
        settings = self._settings
        return Redaction(
            self._finder,
            partial(self._render, table),
            allow=settings.allow,
            exempt_keys=settings.exempt_keys,
            numbers=settings.numbers,
        )

    def _render(self, table: TokenTable | None, type_: str, found: str | int) -> str:
        mode = next((mode for key, mode in self._settings.modes.items() if key == type_), self._settings.mode)
        if mode == "tokenise" and table is not None:
            return table.render(type_, found)
        return self._renderers["replace" if mode == "tokenise" else mode](type_, found)

    def _changed(self, payload: PluginPayload, change: TextChange) -> dict[str, Any]:
        """The fields of the payload that change, changed."""
        blocks, keys = self._settings.action == "block", self._settings.redact_keys
        if is_message_payload(payload):
            from cpex.framework.cmf.rewrite import rewrite_text

            # Names and addresses count when a call is to be blocked; changed they would call something else.
            message = rewrite_text(payload.message, partial(_leaf, change), keys=keys, names=blocks)
            return {} if message is payload.message else {"message": message}
        update: dict[str, Any] = {}
        for name, value in content_of(payload).values(payload).items():
            if name in _ADDRESSES and not blocks:
                continue
            changed = rewrite(value, change, keys=keys)
            if changed is not value:
                update[name] = changed
        return update

    def _restored(self, call: GuardedCall, update: dict[str, Any], table: TokenTable) -> dict[str, Any]:
        """The changed fields with tokens taken back: last, so that what comes back is not redacted again."""
        if not table.values:
            return update
        redacted = call.payload.model_copy(update=update)
        return {**update, **self._changed(redacted, table)}

    def _facts(self, redaction: Redaction, table: TokenTable | None, *, away: bool) -> dict[str, Any]:
        facts: dict[str, Any] = {"pii": dict(redaction.counts)} if redaction.counts else {}
        if table is not None and table.restored:
            facts["restored"] = table.restored
        if table is not None and table.refused:
            facts["beyond_max_tokens"] = table.refused
        if away:
            facts["store_error"] = self._settings.on_store_error
        return facts

    def _answer(self, payload: PluginPayload, update: dict[str, Any], facts: dict[str, Any]) -> PluginResult[Any]:
        metadata = {self.name: facts} if facts else {}
        if not update:
            return PluginResult(metadata=metadata)
        return PluginResult(modified_payload=payload.model_copy(update=update), metadata=metadata)

    def _blocked(self, redaction: Redaction) -> PluginResult[Any]:
        counts = dict(redaction.counts)
        violation = PluginViolation(
            reason=f"Personal data found: {', '.join(sorted(counts))}",
            description="The content holds personal data that must not be passed on.",
            code=CODE,
            details={"pii": counts},
        )
        return PluginResult(continue_processing=False, violation=violation, metadata={self.name: {"pii": counts}})


def _leaf(change: TextChange, leaf: TextLeaf) -> str:
    """What becomes of one text of a message; numbers are no texts, as in any other payload."""
    if isinstance(leaf.value, float):
        return leaf.text
    if isinstance(leaf.value, int):
        changed = change.number(leaf.value, leaf.key)
        return leaf.text if changed is leaf.value else str(changed)
    return str(change.text(leaf.text, leaf.key))


def _goes_out(stage: str) -> bool:
    """Whether what passes there leaves the host: to a tool, a server, an agent or a model."""
    return "_pre_" in stage or stage == "llm_input"


def _comes_back(stage: str) -> bool:
    return "_post_" in stage or stage == "llm_output"


def _renderers(settings: PIIRedactionSettings) -> dict[str, Renderer]:
    renderers = {"replace": replacing(settings.replacements), "mask": masking()}
    if settings.hash_key is not None:
        renderers["hash"] = hashing(settings.hash_key.get_secret_value().encode())
    return renderers


def _unavailable() -> PluginResult[Any]:
    violation = PluginViolation(
        reason="Tokens for personal data cannot be kept",
        description="The store that holds them does not answer; try again soon.",
        code=STORE_UNAVAILABLE,
        http_status_code=HTTP_SERVICE_UNAVAILABLE,
        http_headers={"Retry-After": "1"},
    )
    return PluginResult(continue_processing=False, violation=violation)
