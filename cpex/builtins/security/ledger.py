"""Accounts that are charged against a limit, in this process.

An account is whatever hashable key the caller uses. All operations are plain calls without a suspension point, so that
several requests on one event loop can never spend the same amount twice. Time comes in as an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass

__all__ = ["Charge", "Ledger"]


@dataclass(frozen=True, slots=True)
class Charge:
    """The answer to one charge."""

    accepted: bool
    requested: int
    used: int
    """Spent so far in this period, with the charge when it was accepted."""
    retry_after_s: float | None = None
    """Seconds until the charge could be accepted; `None` when it was, or when no waiting will help."""
    period: int = 0
    """Which period was charged; a refund names it, so that it never enlarges a later one."""


@dataclass(slots=True)
class _Account:
    used: int
    started_s: float
    period: int


class Ledger:
    """Charges accounts up to a limit per period, or for ever.

    A period begins with the first charge after the last one has ended, so an idle account starts afresh and a busy one
    may spend the end of one period and the beginning of the next in a row.
    """

    def __init__(self, limit: int, *, period_s: float | None = None, max_accounts: int = 100_000) -> None:
        """Set the terms.

        Args:
            limit: What an account may spend in a period.
            period_s: Seconds; `None` means that nothing comes back.
            max_accounts: Beyond it the account that was idle longest is forgotten, and with it what it had spent.
        """
        self._limit = limit
        self._period_s = period_s
        self._max_accounts = max_accounts
        self._periods = 0
        self._accounts: OrderedDict[Hashable, _Account] = OrderedDict()
        self.forgotten = 0
        """Accounts that were dropped to make room."""

    def __len__(self) -> int:
        return len(self._accounts)

    def charge(self, key: Hashable, amount: int, now_s: float) -> Charge:
        """Spend `amount` at the time `now_s` (seconds of any steady origin), all of it or nothing."""
        account = self._account(key, now_s)
        if account.used + amount > self._limit:
            return Charge(False, amount, account.used, self._retry_after_s(account, amount, now_s), account.period)
        account.used += amount
        return Charge(True, amount, account.used, period=account.period)

    def refund(self, key: Hashable, charge: Charge) -> bool:
        """Give an accepted charge back; false when its period is over or its account forgotten."""
        account = self._accounts.get(key)
        if account is None or account.period != charge.period or not charge.accepted:
            return False
        account.used = max(0, account.used - charge.requested)
        return True

    def _account(self, key: Hashable, now_s: float) -> _Account:
        account = self._accounts.get(key)
        if account is None:
            account = self._accounts[key] = _Account(0, now_s, self._next_period())
            if len(self._accounts) > self._max_accounts:
                self._accounts.popitem(last=False)
                self.forgotten += 1
            return account
        self._accounts.move_to_end(key)
        if self._period_s is not None and now_s - account.started_s >= self._period_s:
            account.used, account.started_s, account.period = 0, now_s, self._next_period()
        return account

    def _next_period(self) -> int:
        # Numbered across accounts: one that was forgotten and opened again is not taken for the old one.
        self._periods += 1
        return self._periods

    def _retry_after_s(self, account: _Account, amount: int, now_s: float) -> float | None:
        if self._period_s is None or amount > self._limit:
            return None
        return max(0.0, account.started_s + self._period_s - now_s)
