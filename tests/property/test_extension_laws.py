"""Laws of extension views and merges, over generated containers and capability sets."""

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from cpex.framework.extensions import (
    AgentExtension,
    Capability,
    DataPolicy,
    DelegationExtension,
    DelegationHop,
    Extensions,
    FrameworkExtension,
    HttpExtension,
    LLMExtension,
    MetaExtension,
    ObjectSecurityProfile,
    RequestExtension,
    SecurityExtension,
    SubjectExtension,
    TierViolationError,
)
from cpex.framework.extensions.tiers import filter_extensions, merge_extensions

MOMENT = datetime(2030, 1, 1, tzinfo=UTC)

words = st.sampled_from(["a", "b", "c", "d"])
word_sets = st.frozensets(words)
texts = st.dictionaries(words, words, max_size=3)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | words,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(words, json_values, max_size=3)
hops = st.builds(
    DelegationHop,
    subject_id=words,
    subject_type=words,
    timestamp=st.just(MOMENT),
)
scoped_hops = st.builds(
    DelegationHop,
    subject_id=words,
    subject_type=words,
    audience=st.none() | st.sampled_from(["api", "mail"]),
    scopes_granted=st.lists(st.sampled_from("abc"), max_size=3),
    timestamp=st.just(MOMENT),
)
subjects = st.builds(
    SubjectExtension,
    id=words,
    type=st.sampled_from(["user", "agent"]),
    roles=word_sets,
    permissions=word_sets,
    teams=word_sets,
    claims=texts,
)
securities = st.builds(
    SecurityExtension,
    labels=word_sets,
    classification=st.none() | words,
    subject=st.none() | subjects,
    objects=st.dictionaries(words, st.builds(ObjectSecurityProfile, permissions=st.lists(words)), max_size=2),
    data=st.dictionaries(words, st.builds(DataPolicy, apply_labels=st.lists(words)), max_size=2),
)


def chained(steps: list[DelegationHop]) -> DelegationExtension:
    delegation = DelegationExtension()
    for hop in steps:
        delegation = delegation.with_new_hop(hop)
    return delegation


containers = st.builds(
    Extensions,
    request=st.none() | st.builds(RequestExtension, request_id=words),
    agent=st.none() | st.builds(AgentExtension, agent_id=words, conversation=st.none()),
    http=st.none() | st.builds(HttpExtension, headers=texts),
    security=st.none() | securities,
    delegation=st.none() | st.lists(hops, max_size=3).map(chained),
    llm=st.none() | st.builds(LLMExtension, capabilities=st.lists(words, max_size=2)),
    framework=st.none() | st.builds(FrameworkExtension, metadata=objects),
    meta=st.none() | st.builds(MetaExtension, tags=word_sets, properties=texts),
    custom=st.none() | objects,
)
capability_sets = st.frozensets(st.sampled_from([capability.value for capability in Capability]))


def editable_parts(value: Any) -> Iterator[int]:
    """Identities of all containers inside that can be changed in place."""
    if isinstance(value, BaseModel):
        for item in value.__dict__.values():
            yield from editable_parts(item)
    elif isinstance(value, dict):
        yield id(value)
        for item in value.values():
            yield from editable_parts(item)
    elif isinstance(value, list | tuple):
        if isinstance(value, list):
            yield id(value)
        for item in value:
            yield from editable_parts(item)


def merge_or_refuse(original: Extensions, answer: Extensions, held: frozenset[str]) -> Extensions:
    """The merged container; the original when the answer was refused, as the pipeline does."""
    try:
        merged = merge_extensions(original, answer, held, "p")
    except TierViolationError:
        return original
    assert merged is not None
    return merged


@given(containers, capability_sets)
def test_a_view_reveals_nothing_without_its_capability(original: Extensions, held: frozenset[str]) -> None:
    view = filter_extensions(original, held)
    assert view is not None
    if "read_agent" not in held:
        assert view.agent is None
    if held.isdisjoint({"read_headers", "write_headers"}):
        assert view.http is None
    if held.isdisjoint({"read_delegation", "append_delegation"}):
        assert view.delegation is None
    if view.security is not None:
        if held.isdisjoint({"read_labels", "append_labels"}):
            assert not view.security.labels
        subject = view.security.subject
        if held.isdisjoint({f"read_{part}" for part in ("subject", "roles", "teams", "claims", "permissions")}):
            assert subject is None
        for part in ("roles", "teams", "claims", "permissions"):
            assert subject is None or f"read_{part}" in held or not getattr(subject, part)


@given(containers, capability_sets, capability_sets)
def test_more_capabilities_never_show_less(original: Extensions, some: frozenset[str], more: frozenset[str]) -> None:
    narrow, wide = filter_extensions(original, some), filter_extensions(original, some | more)
    assert narrow is not None
    assert wide is not None
    for slot in Extensions.model_fields:
        if slot != "security":
            assert getattr(narrow, slot) in (None, getattr(wide, slot))


@given(containers)
def test_all_capabilities_show_everything(original: Extensions) -> None:
    assert filter_extensions(original, Capability) == original


@given(containers, capability_sets)
def test_a_view_shares_nothing_that_can_be_edited(original: Extensions, held: frozenset[str]) -> None:
    assert set(editable_parts(original)).isdisjoint(editable_parts(filter_extensions(original, held)))


@given(containers, containers, capability_sets)
def test_a_merged_container_shares_nothing_that_the_plugin_could_edit(
    original: Extensions, answer: Extensions, held: frozenset[str]
) -> None:
    merged = merge_or_refuse(original, answer, held)
    assert set(editable_parts(merged)).isdisjoint(editable_parts(answer))


@given(containers, capability_sets)
def test_returning_a_view_unchanged_changes_nothing(original: Extensions, held: frozenset[str]) -> None:
    view = filter_extensions(original, held)
    assert view is not None
    assert merge_extensions(original, view.model_copy(), held, "p") is original
    assert merge_extensions(original, view, held, "p") is original


@given(containers, st.lists(st.tuples(containers, capability_sets), max_size=4))
def test_labels_only_grow_and_the_chain_only_continues(
    original: Extensions, answers: list[tuple[Extensions, frozenset[str]]]
) -> None:
    current = original
    for answer, held in answers:
        after = merge_or_refuse(current, answer, held)
        if current.security is not None:
            assert after.security is not None
            assert after.security.labels >= current.security.labels
            assert after.security.subject == current.security.subject
        if current.delegation is not None:
            assert after.delegation is not None
            chain = current.delegation.chain
            assert after.delegation.chain[: len(chain)] == chain
        for slot in ("request", "agent", "llm", "framework", "meta"):
            assert getattr(after, slot) == getattr(current, slot)
        current = after


@given(containers, word_sets, st.lists(hops, min_size=1, max_size=2))
def test_additions_with_capabilities_arrive(
    original: Extensions, labels: frozenset[str], added: list[DelegationHop]
) -> None:
    held = frozenset({"append_labels", "append_delegation"})
    view = filter_extensions(original, held)
    assert view is not None
    security = view.security or SecurityExtension()
    delegation = view.delegation or DelegationExtension()
    for hop in added:
        delegation = delegation.with_new_hop(hop)
    answer = view.model_copy(
        update={
            "security": security.model_copy(update={"labels": security.labels | labels}),
            "delegation": delegation,
        }
    )
    merged = merge_extensions(original, answer, held, "p")
    assert merged is not None
    assert merged.delegation is not None
    assert merged.delegation.chain == delegation.chain
    assert merged.delegation.depth == len(delegation.chain)
    before = original.security.labels if original.security is not None else frozenset()
    after = merged.security.labels if merged.security is not None else frozenset()
    assert after == before | labels


@given(st.lists(scoped_hops, max_size=6))
def test_along_a_chain_that_was_let_grow_no_hop_grants_what_an_earlier_one_was_not_granted(
    offered: list[DelegationHop],
) -> None:
    current = Extensions(delegation=DelegationExtension())
    for hop in offered:
        assert current.delegation is not None
        answer = current.model_copy(update={"delegation": current.delegation.with_new_hop(hop)})
        try:
            merged = merge_extensions(current, answer, {"append_delegation"}, "p")
        except TierViolationError:
            # A narrower hop is always let through.
            granted = [each.scopes_granted for each in current.delegation.chain if each.scopes_granted][-1]
            assert not set(hop.scopes_granted) <= set(granted) or hop.audience is not None
            continue
        assert merged is not None
        current = merged
    assert current.delegation is not None
    stated = [set(hop.scopes_granted) for hop in current.delegation.chain if hop.scopes_granted]
    assert all(later <= earlier for earlier, later in pairwise(stated))
