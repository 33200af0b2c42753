"""Accounts that are charged against a limit, in whatever store holds them.

Each account is one counter of the store. A charge is one atomic operation there, so several requests, or several
processes, can never spend the same amount twice. Time comes in as an argument.
"""

from __future__ import annotations

from dataclasses import dataclass

from cpex.builtins.store.port import Count, Store

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
    period: str = ""
    """Which period was charged; a refund names it, so that it never enlarges a later one."""


@dataclass(frozen=True, slots=True)
class Ledger:
    """Charges accounts up to a limit per period, or for ever.

    A period begins with the first charge after the last one has ended, so an idle account starts afresh and a busy one
    may spend the end of one period and the beginning of the next in a row.
    """

    limit: int
    """What an account may spend in a period."""
    period_s: float | None = None
    """Seconds; `None` means that nothing comes back."""

    async def charge(self, store: Store, key: str, amount: int, now_s: float) -> Charge:
        """Spend `amount` at the time `now_s` (seconds since the epoch), all of it or nothing.

        Raises:
            StoreError: The store does not answer; whether the account was charged is not known.
        """
        count = await store.add(key, amount, now_s=now_s, limit=self.limit, ttl_s=self.period_s)
        retry_after_s = None if count.accepted or amount > self.limit else count.expires_in_s
        return Charge(count.accepted, amount, count.value, retry_after_s, _period(count))

    async def refund(self, store: Store, key: str, charge: Charge, now_s: float) -> bool:
        """Give an accepted charge back; false when its period is over or its account forgotten.

        Raises:
            StoreError: The store does not answer; whether the charge was given back is not known.
        """
        if not charge.accepted:
            return False
        return await store.subtract(key, charge.requested, generation=charge.period, now_s=now_s)


def _period(count: Count) -> str:
    """A refused charge belongs to no period."""
    return count.generation if count.accepted else ""
