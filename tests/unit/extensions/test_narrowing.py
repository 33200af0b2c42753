"""Which hop may follow which: nobody hands on more than they were given."""

from typing import Any

import pytest

from cpex.framework.extensions import DelegationExtension, DelegationHop, Extensions, TierViolationError
from cpex.framework.extensions.narrowing import widening
from cpex.framework.extensions.tiers import merge_extensions, validate_tier_constraints

EXCHANGE = {"mail": {"read": ["mail.list", "mail.open"]}}


def hop(scopes: str, audience: str | None = None) -> DelegationHop:
    return DelegationHop(
        subject_id="agent", subject_type="agent", audience=audience, scopes_granted=tuple(scopes.split())
    )


def chain(*hops: DelegationHop) -> DelegationExtension:
    delegation = DelegationExtension()
    for each in hops:
        delegation = delegation.with_new_hop(each)
    return delegation


@pytest.mark.parametrize(
    "hops",
    [
        [hop("read write"), hop("read")],
        [hop("read write"), hop("write read")],
        [hop("read"), hop(""), hop("read")],
        [hop(""), hop("read")],
        [hop("read"), hop("read", "api")],
        [hop("read", "api"), hop("read")],
    ],
    ids=[
        "narrower",
        "the same",
        "by way of one that states none",
        "the first to state any",
        "elsewhere",
        "there still",
    ],
)
def test_a_hop_may_grant_what_was_granted_before(hops: list[DelegationHop]) -> None:
    assert widening(hops, 0) is None


@pytest.mark.parametrize(
    ("hops", "detail"),
    [
        (
            [hop("read"), hop("read write")],
            "hop 1 of the chain grants `write`, which the hops before it were not granted",
        ),
        ([hop("read"), hop(""), hop("admin")], "hop 2 of the chain grants `admin`, which"),
        ([hop("read", "api"), hop("read write")], "hop 1 of the chain grants `write`, which"),
        ([hop("read write"), hop("read"), hop("write")], "hop 2 of the chain grants `write`, which"),
        (
            [hop("read", "api"), hop("mail.open", "mail")],
            "hop 1 of the chain grants `mail.open`, which the hops before it were not granted; if scopes have other "
            "names at `mail`, list them in the plugin's `scope_mapping`",
        ),
    ],
    ids=["wider", "wider than before the last", "no audience named", "back again", "renamed elsewhere"],
)
def test_a_hop_that_grants_more_is_told_with_its_place(hops: list[DelegationHop], detail: str) -> None:
    assert (widening(hops, 0) or "").startswith(detail)


def test_scopes_may_have_other_names_at_another_audience_if_the_configuration_says_so() -> None:
    before = hop("read write", "api")
    assert widening([before, hop("mail.list mail.open", "mail")], 1, EXCHANGE) is None
    assert widening([before, hop("mail.list write", "mail")], 1, EXCHANGE) is None
    assert "`read`" in (widening([before, hop("read", "mail")], 1, EXCHANGE) or "")
    assert "`mail.send`" in (widening([before, hop("mail.send", "mail")], 1, EXCHANGE) or "")


def test_a_detour_over_another_audience_brings_back_nothing_that_was_given_up() -> None:
    there_and_back = {"mail": {"read": ["open"]}, "api": {"open": ["read", "write"]}}
    hops = [hop("read write", "api"), hop("read", "api"), hop("open", "mail")]
    assert widening([*hops, hop("read", "api")], 3, there_and_back) is None
    assert "`write`" in (widening([*hops, hop("write", "api")], 3, there_and_back) or "")


def test_hops_that_were_there_before_are_not_judged_but_limit_those_after_them() -> None:
    old = [hop("read"), hop("read write")]
    assert widening([*old, hop("write")], 2) is None
    assert "`admin`" in (widening([*old, hop("admin")], 2) or "")


def test_merging_and_judging_refuse_the_same_hop() -> None:
    before = Extensions(delegation=chain(hop("read", "api")))
    after = Extensions(delegation=chain(*before.delegation.chain, hop("mail.open", "mail")))
    for check in (merge_extensions, validate_tier_constraints):
        arguments: tuple[Any, ...] = (before, after, {"append_delegation"}, "exchange")
        with pytest.raises(TierViolationError) as caught:
            check(*arguments)
        assert (caught.value.slot, caught.value.tier.value) == ("delegation", "monotonic")
        check(*arguments, scope_mapping=EXCHANGE)
