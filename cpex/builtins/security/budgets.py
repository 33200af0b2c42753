"""What a budget is: whose it is, how much it holds, and when it is fresh again.

Several budgets may apply to one call. It is charged to all of them or to none. Time comes in as an argument.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Self

from pydantic import BaseModel, Field, model_validator

from cpex.builtins.security.ledger import Charge, Ledger
from cpex.builtins.security.scopes import Scope
from cpex.builtins.store.port import Store

__all__ = ["Account", "Budget", "Charged", "Period", "charge_all", "current_period", "refund_all"]

Calendar = Literal["minute", "hour", "day", "week", "month"]


class Budget(BaseModel, extra="forbid", frozen=True):
    """How much may be spent, by whom together, in which time."""

    tokens: int = Field(ge=1)
    """What may be spent in a period."""
    scope: Scope = "session"
    """Who shares the budget: `session`, `user`, `tenant`, `tool`, `server` or `global`; several joined by `+`."""
    period: Calendar | None = None
    """A period of the calendar, in UTC; weeks begin on Monday."""
    period_s: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    """Seconds from the first charge. With neither, what is spent never comes back."""

    @model_validator(mode="after")
    def _check_one_period(self) -> Self:
        if self.period is not None and self.period_s is not None:
            raise ValueError("a budget has `period` or `period_s`, not both; leave one of them out")
        return self

    @property
    def name(self) -> str:
        """What a denial calls it, as `user+tool/day`."""
        period = self.period or (f"{self.period_s:g}s" if self.period_s is not None else "")
        return f"{self.scope}/{period}" if period else self.scope


@dataclass(frozen=True, slots=True)
class Period:
    """The period that a moment is in."""

    label: str
    """Tells periods of the calendar apart; empty for others."""
    left_s: float | None
    """Seconds that a charge is kept from now on, if it is the first; `None` means for good."""


def current_period(budget: Budget, now: datetime) -> Period:
    """The period of a budget at `now`, which must be aware and in UTC."""
    if budget.period is None:
        return Period("", budget.period_s)
    start = now.replace(second=0, microsecond=0)
    if budget.period == "minute":
        end = start + timedelta(minutes=1)
    elif budget.period == "hour":
        start = start.replace(minute=0)
        end = start + timedelta(hours=1)
    else:
        start = start.replace(minute=0, hour=0)
        if budget.period == "day":
            end = start + timedelta(days=1)
        elif budget.period == "week":
            start -= timedelta(days=start.weekday())
            end = start + timedelta(days=7)
        else:
            start = start.replace(day=1)
            end = (start + timedelta(days=31)).replace(day=1)
    return Period(start.isoformat(), (end - now).total_seconds())


@dataclass(frozen=True, slots=True)
class Account:
    """One budget of one owner, as a call meets it."""

    budget: Budget
    key: str
    """Where the store keeps it."""
    kind: str
    """Whose it is: `session`, `user` or `shared` for a conversation, else the scope."""
    left_s: float | None
    """See `Period.left_s`."""
    tokens: int
    """What the call costs it."""

    @property
    def ledger(self) -> Ledger:
        """What charges it."""
        return Ledger(self.budget.tokens, self.left_s)


@dataclass(frozen=True, slots=True)
class Charged:
    """An account and what became of its charge."""

    account: Account
    charge: Charge

    @property
    def remaining(self) -> int:
        """What may still be spent in this period."""
        return self.account.budget.tokens - self.charge.used


async def charge_all(store: Store, accounts: Sequence[Account], now_s: float) -> list[Charged]:
    """Charge every account, or none.

    Accounts are charged one after the other; when one refuses, those before it are given back. A call that came in
    between may so be refused by a budget that had room. No budget is ever exceeded.

    Returns:
        What was charged, in the order given; when the last one was refused, nothing is charged.

    Raises:
        StoreError: The store does not answer; what was charged until then stays spent.
    """
    done: list[Charged] = []
    for account in accounts:
        charged = Charged(account, await account.ledger.charge(store, account.key, account.tokens, now_s))
        if not charged.charge.accepted:
            await refund_all(store, done, now_s)
            return [*done, charged]
        done.append(charged)
    return done


async def refund_all(store: Store, charges: Sequence[Charged], now_s: float) -> None:
    """Give accepted charges back, where their period still lasts.

    Raises:
        StoreError: The store does not answer; the rest stays spent.
    """
    for charged in charges:
        await charged.account.ledger.refund(store, charged.account.key, charged.charge, now_s)
