from __future__ import annotations

import pytest

from cpex.builtins.security.ledger import Charge, Ledger
from cpex.builtins.store.memory import MemoryStore


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def test_a_charge_is_taken_whole_or_not_at_all(store: MemoryStore) -> None:
    ledger = Ledger(10)
    charges = [await ledger.charge(store, "a", amount, 0) for amount in (6, 5, 4, 1)]
    assert [charge.accepted for charge in charges] == [True, False, True, False]
    assert (await ledger.charge(store, "a", 1, 0)).used == 10


async def test_accounts_are_apart(store: MemoryStore) -> None:
    ledger = Ledger(10)
    await ledger.charge(store, "a", 10, 0)
    assert (await ledger.charge(store, "b", 10, 0)).accepted


async def test_a_period_begins_with_the_first_charge_after_the_last(store: MemoryStore) -> None:
    ledger = Ledger(10, period_s=60)
    await ledger.charge(store, "a", 10, 100)
    refused = await ledger.charge(store, "a", 1, 130)
    assert refused == Charge(False, 1, 10, retry_after_s=30)
    assert (await ledger.charge(store, "a", 10, 160)).accepted
    assert (await ledger.charge(store, "a", 1, 219)).retry_after_s == 1


async def test_no_wait_is_promised_where_waiting_does_not_help(store: MemoryStore) -> None:
    assert (await Ledger(10).charge(store, "a", 11, 0)).retry_after_s is None
    ledger = Ledger(10, period_s=60)
    await ledger.charge(store, "a", 1, 0)
    assert (await ledger.charge(store, "a", 11, 0)).retry_after_s is None


async def test_a_refund_makes_room_again(store: MemoryStore) -> None:
    ledger = Ledger(10)
    charge = await ledger.charge(store, "a", 10, 0)
    assert await ledger.refund(store, "a", charge, 0)
    assert (await ledger.charge(store, "a", 10, 0)).accepted


async def test_a_refund_of_an_earlier_period_does_not_enlarge_this_one(store: MemoryStore) -> None:
    ledger = Ledger(10, period_s=60)
    earlier = await ledger.charge(store, "a", 10, 0)
    await ledger.charge(store, "a", 10, 60)
    assert not await ledger.refund(store, "a", earlier, 60)
    assert not (await ledger.charge(store, "a", 1, 61)).accepted


async def test_a_refused_charge_cannot_be_refunded(store: MemoryStore) -> None:
    ledger = Ledger(10)
    await ledger.charge(store, "a", 10, 0)
    assert not await ledger.refund(store, "a", await ledger.charge(store, "a", 1, 0), 0)


async def test_a_charge_to_a_forgotten_account_cannot_be_refunded() -> None:
    ledger, store = Ledger(10), MemoryStore(max_entries=1)
    first = await ledger.charge(store, "a", 10, 0)
    await ledger.charge(store, "b", 10, 0)
    assert (await ledger.charge(store, "a", 10, 0)).accepted, "it starts afresh"
    assert not await ledger.refund(store, "a", first, 0)
