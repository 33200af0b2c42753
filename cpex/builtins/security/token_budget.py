"""The token budget: what one conversation may spend on tool, prompt, resource and agent content."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from pydantic import Field

from cpex.builtins.content import content_of
from cpex.builtins.security.ledger import Charge, Ledger
from cpex.builtins.security.tokens import estimate_tokens, load_tokenizer, rendered
from cpex.builtins.session import SessionKey, session_key
from cpex.builtins.store.guarded import STORE_UNAVAILABLE, GuardedStore, StoreSettings, store_key
from cpex.framework import Plugin, PluginConfig, PluginContext, PluginPayload, PluginResult, PluginViolation, clock
from cpex.framework.models import HookOutcome

__all__ = ["TokenBudgetPlugin", "TokenBudgetSettings"]

logger = logging.getLogger(__name__)

CODE = "TOKEN_BUDGET_EXCEEDED"
HTTP_TOO_MANY_REQUESTS = 429
"""Source: RFC 6585, section 4."""
_OWN_CODES = (CODE, STORE_UNAVAILABLE)
"""Codes of this plugin's denials, none of which has charged anything."""
_MAX_UNDECIDED = 10_000
"""Calls whose outcome is awaited; beyond it the oldest can no longer be refunded."""


class TokenBudgetSettings(StoreSettings):
    """How much, for how long, how it is counted, and where."""

    budget: int = Field(default=100_000, ge=1)
    """Tokens that one conversation may spend in a period."""
    period_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds after which the budget is fresh again; without it, it never is."""
    tokenizer: str | None = None
    """`package.module:callable`, from text to a number or a list of tokens; without it, an estimate."""
    max_sessions: int = Field(default=100_000, ge=1)
    """Conversations that a store in memory keeps; beyond it the one idle longest starts afresh."""


class TokenBudgetPlugin(Plugin):
    """Denies what would take a conversation over its token budget.

    Counts the content of every hook that the configuration lists: arguments before, results after. A conversation is
    the agent extension's `session_id` (with the capability `read_agent`), else `metadata["session_id"]` of the global
    context, else the user; calls that name none of these share one budget. Budgets live where `store` says, without it
    in this process.

    A denial has the code `TOKEN_BUDGET_EXCEEDED`, HTTP status 429, and `Retry-After` when waiting helps. What a call
    was charged comes back when it is denied by another plugin or fails. While the store is away and `on_store_error`
    is `deny`, the code is `STORE_UNAVAILABLE` with 503.

    Source: docs/plugins/token_budget.md.
    """

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings, load the tokenizer and name the store.

        Raises:
            pydantic.ValidationError: A setting is unknown or does not fit.
            ValueError: The tokenizer cannot be loaded, or the store cannot be where it is said to be.
            ModuleNotFoundError: The store's library is not installed; the message names the extra.
        """
        super().__init__(config)
        self._settings = settings = TokenBudgetSettings.model_validate(config.config or {})
        self._count: Callable[[str], int] = (
            load_tokenizer(settings.tokenizer) if settings.tokenizer else estimate_tokens
        )
        self._ledger = Ledger(settings.budget, period_s=settings.period_s)
        self._store = GuardedStore(self.name, settings, max_entries=settings.max_sessions)
        self._undecided: OrderedDict[tuple[str, str], deque[tuple[SessionKey, Charge]]] = OrderedDict()
        self._warned = False

    @property
    def store_errors(self) -> int:
        """Calls and refunds that the store did not answer, since the start."""
        return self._store.errors

    async def shutdown(self) -> None:
        """Close the store; it opens again on use."""
        await self._store.close()

    async def _charge(
        self, payload: PluginPayload, context: PluginContext, extensions: Any = None
    ) -> PluginResult[Any]:
        """Charge a call for its content, or deny it."""
        content = content_of(payload)
        tokens = sum(self._count(rendered(value)) for value in content.values(payload).values())
        key = session_key(context, extensions)
        account, now_s = self._account(key), clock.now().timestamp()
        charge = await self._store.ask(lambda store: self._ledger.charge(store, account, tokens, now_s))
        self._warn_when_forgetful()
        if charge is None:
            return self._without_store(context, content.hook, key, tokens)
        if not charge.accepted:
            return self._denial(key, charge)
        self._await_outcome(context.global_context.request_id, content.hook, key, charge)
        remaining = self._settings.budget - charge.used
        return PluginResult(metadata={self.name: {"tokens": tokens, "used": charge.used, "remaining": remaining}})

    tool_pre_invoke = prompt_pre_fetch = resource_pre_fetch = agent_pre_invoke = _charge
    tool_post_invoke = prompt_post_fetch = resource_post_fetch = agent_post_invoke = _charge

    async def hook_completed(self, outcome: HookOutcome) -> None:
        """Give back what a call was charged when, in the end, it did not happen."""
        violation = outcome.violation
        if violation is not None and violation.code in _OWN_CODES and violation.plugin_name == self.name:
            # Our own denial was never charged; what is noted under this request is another call's.
            return
        place = (outcome.request_id, outcome.hook)
        charges = self._undecided.get(place)
        if not charges:
            return
        key, charge = charges.popleft()
        if not charges:
            del self._undecided[place]
        if not outcome.allowed and charge.accepted:
            account, now_s = self._account(key), clock.now().timestamp()
            # With the store away the tokens stay spent: a budget may come out too strict, never too large.
            await self._store.ask(lambda store: self._ledger.refund(store, account, charge, now_s))

    def _account(self, key: SessionKey) -> str:
        return store_key("token_budget", self.name, key.kind, key.value, key.tenant_id)

    def _await_outcome(self, request_id: str, hook: str, key: SessionKey, charge: Charge) -> None:
        self._undecided.setdefault((request_id, hook), deque()).append((key, charge))
        if len(self._undecided) > _MAX_UNDECIDED:
            self._undecided.popitem(last=False)

    def _without_store(self, context: PluginContext, hook: str, key: SessionKey, tokens: int) -> PluginResult[Any]:
        result = self._store.decide()
        if result.continue_processing:
            # A place in the row of outcomes, so that this call's end does not settle another call of the request.
            uncharged = Charge(accepted=False, requested=tokens, used=0)
            self._await_outcome(context.global_context.request_id, hook, key, uncharged)
        return result

    def _denial(self, key: SessionKey, charge: Charge) -> PluginResult[Any]:
        budget, wait_s = self._settings.budget, charge.retry_after_s
        headers = None if wait_s is None else {"Retry-After": str(math.ceil(wait_s))}
        numbers = {"used": charge.used, "budget": budget, "requested": charge.requested}
        violation = PluginViolation(
            reason=f"Token budget of {budget} exceeded",
            description=f"{charge.used} tokens are spent and this call needs {charge.requested} more.",
            code=CODE,
            details={**numbers, "key": key.kind},
            http_status_code=HTTP_TOO_MANY_REQUESTS,
            http_headers=headers,
        )
        return PluginResult(continue_processing=False, violation=violation, denial_metadata=dict(numbers))

    def _warn_when_forgetful(self) -> None:
        if self._store.forgotten and not self._warned:
            self._warned = True
            logger.warning(
                "plugin `%s` holds more than %d conversations and forgets those idle longest, with what they spent;"
                " raise `max_sessions`",
                self.name,
                self._settings.max_sessions,
            )
