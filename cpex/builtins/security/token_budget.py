"""The token budget: what one conversation may spend on tool, prompt, resource and agent content."""

from __future__ import annotations

import logging
import math
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import Any

from pydantic import BaseModel, Field

from cpex.builtins.content import content_of
from cpex.builtins.security.ledger import Charge, Ledger
from cpex.builtins.security.tokens import estimate_tokens, load_tokenizer, rendered
from cpex.builtins.session import SessionKey, session_key
from cpex.framework import Plugin, PluginConfig, PluginContext, PluginPayload, PluginResult, PluginViolation, clock
from cpex.framework.models import HookOutcome

__all__ = ["TokenBudgetPlugin", "TokenBudgetSettings"]

logger = logging.getLogger(__name__)

CODE = "TOKEN_BUDGET_EXCEEDED"
HTTP_TOO_MANY_REQUESTS = 429
"""Source: RFC 6585, section 4."""
_MAX_UNDECIDED = 10_000
"""Calls whose outcome is awaited; beyond it the oldest can no longer be refunded."""


class TokenBudgetSettings(BaseModel, extra="forbid", frozen=True):
    """How much, for how long, and how it is counted."""

    budget: int = Field(default=100_000, ge=1)
    """Tokens that one conversation may spend in a period."""
    period_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds after which the budget is fresh again; without it, it never is."""
    tokenizer: str | None = None
    """`package.module:callable`, from text to a number or a list of tokens; without it, an estimate."""
    max_sessions: int = Field(default=100_000, ge=1)
    """Conversations that are kept in memory; beyond it the one idle longest starts afresh."""


class TokenBudgetPlugin(Plugin):
    """Denies what would take a conversation over its token budget.

    Counts the content of every hook that the configuration lists: arguments before, results after. A conversation is
    the agent extension's `session_id` (with the capability `read_agent`), else `metadata["session_id"]` of the global
    context, else the user; calls that name none of these share one budget. Budgets live in this process.

    A denial has the code `TOKEN_BUDGET_EXCEEDED`, HTTP status 429, and `Retry-After` when waiting helps. What a call
    was charged comes back when it is denied by another plugin or fails.

    Source: docs/plugins/token_budget.md.
    """

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings and load the tokenizer.

        Raises:
            pydantic.ValidationError: A setting is unknown or does not fit.
            ValueError: The tokenizer cannot be loaded.
        """
        super().__init__(config)
        self._settings = settings = TokenBudgetSettings.model_validate(config.config or {})
        self._count: Callable[[str], int] = (
            load_tokenizer(settings.tokenizer) if settings.tokenizer else estimate_tokens
        )
        self._ledger = Ledger(settings.budget, period_s=settings.period_s, max_accounts=settings.max_sessions)
        self._undecided: OrderedDict[tuple[str, str], deque[tuple[SessionKey, Charge]]] = OrderedDict()
        self._warned = False

    async def _charge(
        self, payload: PluginPayload, context: PluginContext, extensions: Any = None
    ) -> PluginResult[Any]:
        """Charge a call for its content, or deny it."""
        content = content_of(payload)
        tokens = sum(self._count(rendered(value)) for value in content.values(payload).values())
        key = session_key(context, extensions)
        charge = self._ledger.charge(key, tokens, clock.now().timestamp())
        self._warn_when_forgetful()
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
        if violation is not None and violation.code == CODE and violation.plugin_name == self.name:
            # Our own denial was never charged; what is noted under this request is another call's.
            return
        place = (outcome.request_id, outcome.hook)
        charges = self._undecided.get(place)
        if not charges:
            return
        key, charge = charges.popleft()
        if not charges:
            del self._undecided[place]
        if not outcome.allowed:
            self._ledger.refund(key, charge)

    def _await_outcome(self, request_id: str, hook: str, key: SessionKey, charge: Charge) -> None:
        self._undecided.setdefault((request_id, hook), deque()).append((key, charge))
        if len(self._undecided) > _MAX_UNDECIDED:
            self._undecided.popitem(last=False)

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
        if self._ledger.forgotten and not self._warned:
            self._warned = True
            logger.warning(
                "plugin `%s` holds more than %d conversations and forgets those idle longest, with what they spent;"
                " raise `max_sessions`",
                self.name,
                self._settings.max_sessions,
            )
