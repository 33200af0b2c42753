from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpex.builtins.security.budgets import Account, Budget, Calendar, charge_all, current_period, refund_all
from cpex.builtins.store.memory import MemoryStore

NOW = datetime(2024, 2, 29, 23, 30, 15, 500_000, tzinfo=UTC)
"""A Thursday at the end of a month."""


@pytest.mark.parametrize(
    ("period", "start", "left_s"),
    [
        ("minute", "2024-02-29T23:30:00+00:00", 44.5),
        ("hour", "2024-02-29T23:00:00+00:00", 1784.5),
        ("day", "2024-02-29T00:00:00+00:00", 1784.5),
        ("week", "2024-02-26T00:00:00+00:00", 3 * 86_400 + 1784.5),
        ("month", "2024-02-01T00:00:00+00:00", 1784.5),
    ],
)
def test_periods_of_the_calendar_begin_and_end_in_utc(period: Calendar, start: str, left_s: float) -> None:
    found = current_period(Budget(tokens=1, period=period), NOW)
    assert (found.label, found.left_s) == (start, left_s)


@given(
    st.datetimes(min_value=datetime(1970, 1, 2), max_value=datetime(2200, 1, 1)),
    st.sampled_from(get_args(Calendar)),
)
def test_every_moment_is_in_one_period_and_the_next_begins_where_it_ends(moment: datetime, period: Calendar) -> None:
    budget, now = Budget(tokens=1, period=period), moment.replace(tzinfo=UTC)
    here = current_period(budget, now)
    assert here.left_s is not None
    assert here.left_s > 0
    end = now + timedelta(seconds=here.left_s)
    assert datetime.fromisoformat(here.label) <= now < end
    assert current_period(budget, end).label == end.isoformat()
    assert current_period(budget, end - timedelta(microseconds=1)).label == here.label


def test_a_budget_is_called_after_its_scope_and_period() -> None:
    budgets = [
        Budget(tokens=1),
        Budget(tokens=1, scope="tool+user", period="day"),
        Budget(tokens=1, scope="tenant", period_s=90),
    ]
    assert [budget.name for budget in budgets] == ["session", "user+tool/day", "tenant/90s"]


async def test_all_accounts_are_charged_or_none() -> None:
    store = MemoryStore()
    wide, narrow = (Account(Budget(tokens=size), str(size), "session", None, 6) for size in (10, 5))
    assert [each.charge.accepted for each in await charge_all(store, [wide, narrow], 0)] == [True, False]
    charged = await charge_all(store, [wide], 0)
    assert [(each.charge.used, each.remaining) for each in charged] == [(6, 4)], "the first attempt was given back"
    await refund_all(store, charged, 0)
    assert (await charge_all(store, [wide], 0))[0].charge.used == 6
