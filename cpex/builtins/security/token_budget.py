"""The token budget: what conversations, users, tenants and tools may spend on content."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from pydantic import Field

from cpex.builtins.content import GUARDED_HOOKS
from cpex.builtins.guard import Guard, GuardedCall
from cpex.builtins.security.budgets import Account, Budget, Charged, charge_all, current_period, refund_all
from cpex.builtins.security.limit_headers import HTTP_TOO_MANY_REQUESTS, retry_after
from cpex.builtins.security.scopes import owner, scope_parts
from cpex.builtins.security.tokens import estimate_tokens, load_tokenizer, rendered
from cpex.builtins.session import session_key
from cpex.builtins.store.guarded import STORE_UNAVAILABLE, GuardedStore, StoreSettings
from cpex.builtins.targets import Share, shares_of
from cpex.framework import ControlExecutionStatus, PluginConfig, PluginResult, PluginViolation, clock
from cpex.framework.models import HookOutcome

__all__ = ["TokenBudgetPlugin", "TokenBudgetSettings"]

logger = logging.getLogger(__name__)

CODE = "TOKEN_BUDGET_EXCEEDED"
_OWN_CODES = (CODE, STORE_UNAVAILABLE)
"""Codes of this plugin's denials, none of which has charged anything."""
_MAX_UNDECIDED = 10_000
"""Calls whose outcome is awaited; beyond it the oldest can no longer be refunded."""


class TokenBudgetSettings(StoreSettings):
    """How much, for how long, for whom, how it is counted, and where."""

    budget: int = Field(default=100_000, ge=1)
    """Tokens that one conversation may spend in a period; without effect when only `budgets` is given."""
    period_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds after which that budget is fresh again; without it, it never is."""
    budgets: list[Budget] = Field(default=[])
    """Budgets of users, tenants, tools or combinations; a call must fit all of them."""
    tokenizer: str | None = None
    """`package.module:callable` or `package.module.callable`, from text to a number or a list of tokens."""
    max_sessions: int = Field(default=100_000, ge=1)
    """Budgets that a store in memory keeps; beyond it the one idle longest starts afresh."""

    def all_budgets(self) -> list[Budget]:
        """Every budget that applies, that of the conversation first."""
        if self.budgets and not self.model_fields_set & {"budget", "period_s"}:
            return self.budgets
        return [Budget(tokens=self.budget, period_s=self.period_s), *self.budgets]


class TokenBudgetPlugin(Guard):
    """Denies what would take a conversation, user, tenant or tool over its token budget.

    Counts the content of every hook that the configuration lists: arguments before, results after, messages. A
    conversation is the agent extension's `session_id` (with the capability `read_agent`), else
    `metadata["session_id"]` of the global context, else the user; calls that name none of these share one budget.
    Budgets live where `store` says, without it in this process.

    A denial has the code `TOKEN_BUDGET_EXCEEDED`, HTTP status 429, and `Retry-After` when waiting helps. What a call
    was charged comes back when it is denied by another plugin or fails. While the store is away and `on_store_error`
    is `deny`, the code is `STORE_UNAVAILABLE` with 503.

    Source: docs/plugins/token_budget.md.
    """

    settings_model = TokenBudgetSettings
    guards = GUARDED_HOOKS

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
        self._budgets = settings.all_budgets()
        self._store = GuardedStore(self.name, settings, max_entries=settings.max_sessions)
        self._undecided: OrderedDict[tuple[str, str], list[list[Charged]]] = OrderedDict()
        self._warned = False

    @property
    def store_errors(self) -> int:
        """Calls and refunds that the store did not answer, since the start."""
        return self._store.errors

    async def shutdown(self) -> None:
        """Close the store; it opens again on use."""
        await self._store.close()

    async def on_hook(self, call: GuardedCall) -> PluginResult[Any]:
        """Charge a call for its content, or deny it."""
        accounts = list(self._accounts(call))
        now_s = clock.now().timestamp()
        charges = await self._store.ask(lambda store: charge_all(store, accounts, now_s))
        self._warn_when_forgetful()
        if charges is None:
            return self._without_store(call)
        if charges and not charges[-1].charge.accepted:
            return self._denial(charges[-1])
        self._await_outcome(call, charges)
        return PluginResult(metadata={self.name: self._told(charges)}) if charges else PluginResult()

    async def hook_completed(self, outcome: HookOutcome) -> None:
        """Give back what a call was charged when, in the end, it did not happen.

        SECURITY: which of several calls of one request and hook has ended nobody says, as they may run at the same
        time. So one that happened settles the largest charge that waits, and one that did not gives back the smallest:
        what comes back is never more than what was charged for calls that did not happen.
        """
        violation = outcome.violation
        if violation is not None and violation.code in _OWN_CODES and violation.plugin_name == self.name:
            # Our own denial was never charged; what is noted under this request is another call's.
            return
        if any(
            record.plugin_name == self.name and record.status is not ControlExecutionStatus.COMPLETED
            for record in outcome.executions
        ):
            # Our turn came to nothing, and so did its charge.
            return
        place = (outcome.request_id, outcome.hook)
        waiting = self._undecided.get(place)
        if not waiting:
            return
        charges = max(waiting, key=_total) if outcome.allowed else min(waiting, key=_total)
        waiting.remove(charges)
        if not waiting:
            del self._undecided[place]
        if charges and not outcome.allowed:
            now_s = clock.now().timestamp()
            # With the store away the tokens stay spent: a budget may come out too strict, never too large.
            await self._store.ask(lambda store: refund_all(store, charges, now_s))

    def _accounts(self, call: GuardedCall) -> Iterator[Account]:
        """Every budget that the call falls under, with what it costs there."""
        shares = [(share, self._count(rendered(share.value))) for share in shares_of(call.hook, call.payload)]
        now = clock.now()
        for budget in self._budgets:
            period = current_period(budget, now)
            kind = session_key(call.context, call.extensions).kind if budget.scope == "session" else budget.scope
            for key, tokens in self._costs(budget, call, shares, period.label).items():
                yield Account(budget, key, kind, period.left_s, tokens)

    def _costs(
        self, budget: Budget, call: GuardedCall, shares: Sequence[tuple[Share, int]], period: str
    ) -> dict[str, int]:
        """Tokens by the key of the account that they are charged to."""
        by_target = bool(scope_parts(budget.scope) & {"tool", "server"})
        costs: dict[str, int] = {}
        for share, tokens in shares:
            if by_target and share.target is None:
                # What is only said in a message belongs to no tool.
                continue
            target = share.target if by_target else None
            key = owner(budget.scope, call, target, "token_budget", self.name, budget.name, period)
            costs[key] = costs.get(key, 0) + tokens
        return costs

    def _await_outcome(self, call: GuardedCall, charges: list[Charged]) -> None:
        place = (call.context.global_context.request_id, call.hook)
        waiting = self._undecided.setdefault(place, [])
        waiting.append(charges)
        if len({_owners(each) for each in waiting if each}) > 1:
            # SECURITY: what one of several owners was charged must not come back for a call of another's.
            waiting[:] = [[] for _ in waiting]
        if len(self._undecided) > _MAX_UNDECIDED:
            self._undecided.popitem(last=False)

    def _without_store(self, call: GuardedCall) -> PluginResult[Any]:
        result = self._store.decide()
        if result.continue_processing:
            # A place in the row of outcomes, so that this call's end does not settle another call of the request.
            self._await_outcome(call, [])
        return result

    def _told(self, charges: Sequence[Charged]) -> dict[str, Any]:
        """What an allowed call is told: of the budget that is nearest to its end."""
        tightest = min(charges, key=lambda charged: charged.remaining)
        told = {
            "tokens": tightest.charge.requested,
            "used": tightest.charge.used,
            "remaining": tightest.remaining,
        }
        return told if len(self._budgets) == 1 else {**told, "budget": tightest.account.budget.name}

    def _denial(self, refused: Charged) -> PluginResult[Any]:
        account, charge = refused.account, refused.charge
        budget, wait_s = account.budget.tokens, charge.retry_after_s
        headers = None if wait_s is None else {"Retry-After": retry_after(wait_s)}
        numbers = {"used": charge.used, "budget": budget, "requested": charge.requested}
        name = {} if len(self._budgets) == 1 else {"name": account.budget.name}
        violation = PluginViolation(
            reason=f"Token budget of {budget} exceeded",
            description=f"{charge.used} tokens are spent and this call needs {charge.requested} more.",
            code=CODE,
            details={**numbers, "key": account.kind, **name},
            http_status_code=HTTP_TOO_MANY_REQUESTS,
            http_headers=headers,
        )
        return PluginResult(continue_processing=False, violation=violation, denial_metadata=dict(numbers))

    def _warn_when_forgetful(self) -> None:
        if self._store.forgotten and not self._warned:
            self._warned = True
            logger.warning(
                "plugin `%s` holds more than %d budgets and forgets those idle longest, with what was spent;"
                " raise `max_sessions`",
                self.name,
                self._settings.max_sessions,
            )


def _total(charges: Sequence[Charged]) -> int:
    return sum(charged.charge.requested for charged in charges)


def _owners(charges: Sequence[Charged]) -> frozenset[str]:
    return frozenset(charged.account.key for charged in charges)
