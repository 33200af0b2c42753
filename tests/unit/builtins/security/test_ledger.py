from __future__ import annotations

from cpex.builtins.security.ledger import Ledger


def test_a_charge_is_taken_whole_or_not_at_all() -> None:
    ledger = Ledger(10)
    assert [ledger.charge("a", amount, 0).accepted for amount in (6, 5, 4, 1)] == [True, False, True, False]
    assert ledger.charge("a", 1, 0).used == 10


def test_accounts_are_apart() -> None:
    ledger = Ledger(10)
    ledger.charge("a", 10, 0)
    assert ledger.charge("b", 10, 0).accepted


def test_a_period_begins_with_the_first_charge_after_the_last() -> None:
    ledger = Ledger(10, period_s=60)
    ledger.charge("a", 10, 100)
    refused = ledger.charge("a", 1, 130)
    assert (refused.accepted, refused.retry_after_s) == (False, 30)
    assert ledger.charge("a", 10, 160).accepted
    assert ledger.charge("a", 1, 219).retry_after_s == 1


def test_no_wait_is_promised_where_waiting_does_not_help() -> None:
    assert Ledger(10).charge("a", 11, 0).retry_after_s is None
    assert Ledger(10, period_s=60).charge("a", 11, 0).retry_after_s is None


def test_a_refund_makes_room_again() -> None:
    ledger = Ledger(10)
    charge = ledger.charge("a", 10, 0)
    assert ledger.refund("a", charge)
    assert ledger.charge("a", 10, 0).accepted


def test_a_refund_of_an_earlier_period_does_not_enlarge_this_one() -> None:
    ledger = Ledger(10, period_s=60)
    earlier = ledger.charge("a", 10, 0)
    ledger.charge("a", 10, 60)
    assert not ledger.refund("a", earlier)
    assert not ledger.charge("a", 1, 61).accepted


def test_a_refused_charge_cannot_be_refunded() -> None:
    ledger = Ledger(10)
    ledger.charge("a", 10, 0)
    assert not ledger.refund("a", ledger.charge("a", 1, 0))


def test_beyond_the_cap_the_account_idle_longest_is_forgotten() -> None:
    ledger = Ledger(10, max_accounts=2)
    first = ledger.charge("a", 10, 0)
    ledger.charge("b", 10, 0)
    ledger.charge("a", 0, 0)
    ledger.charge("c", 10, 0)
    assert (len(ledger), ledger.forgotten) == (2, 1)
    assert ledger.charge("b", 10, 0).accepted, "it starts afresh"
    assert not ledger.refund("a", first), "what was forgotten cannot come back"
