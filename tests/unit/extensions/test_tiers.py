"""The table of slots and capabilities, and the strict judge that holds changes against it."""

import pickle
from typing import Any

import pytest
from unit.extensions.specimens import chain_of, hop, host

from cpex.framework.extensions import (
    AccessPolicy,
    Capability,
    DelegationExtension,
    Extensions,
    HttpExtension,
    MutabilityTier,
    RequestExtension,
    SecurityExtension,
    SlotName,
    TierViolationError,
)
from cpex.framework.extensions.tiers import (
    SlotPolicy,
    _slot_registry,
    validate_tier_constraints,
)


def test_the_table_has_the_nineteen_slots_in_order_and_cannot_be_written() -> None:
    assert [str(slot) for slot in _slot_registry] == [
        "request",
        "provenance",
        "completion",
        "llm",
        "framework",
        "mcp",
        "meta",
        "agent",
        "security.subject",
        "security.subject.roles",
        "security.subject.teams",
        "security.subject.claims",
        "security.subject.permissions",
        "security.objects",
        "security.data",
        "security.labels",
        "http",
        "delegation",
        "custom",
    ]
    registry: Any = _slot_registry
    assert registry["http"].write_cap is Capability.WRITE_HEADERS
    with pytest.raises(TypeError):
        registry["http"] = SlotPolicy(MutabilityTier.MUTABLE)


def test_a_slot_policy_is_open_by_default_and_frozen() -> None:
    policy: Any = SlotPolicy(MutabilityTier.MUTABLE)
    assert (policy.access, policy.read_cap, policy.write_cap) == (AccessPolicy.UNRESTRICTED, None, None)
    with pytest.raises(AttributeError):
        policy.tier = MutabilityTier.IMMUTABLE


def test_there_are_twelve_capabilities_named_as_their_values() -> None:
    assert len(Capability) == 12
    assert all(capability.name == capability.value.upper() for capability in Capability)


def test_a_violation_tells_plugin_slot_tier_and_detail_and_can_be_pickled() -> None:
    error = TierViolationError("tagger", SlotName.SECURITY_LABELS, MutabilityTier.MONOTONIC, "`PII` is gone")
    assert str(error) == "plugin `tagger` broke the monotonic tier of extension slot `security.labels`: `PII` is gone"
    assert TierViolationError.__bases__ == (Exception,)
    back = pickle.loads(pickle.dumps(error))
    assert (back.plugin_name, back.slot, back.tier, back.detail, str(back)) == (
        "tagger",
        "security.labels",
        MutabilityTier.MONOTONIC,
        "`PII` is gone",
        str(error),
    )


def judged(before: Extensions | None, after: Extensions | None, *capabilities: str) -> str | None:
    try:
        validate_tier_constraints(before, after, capabilities, "tagger")
    except TierViolationError as error:
        return str(error)
    return None


def test_equal_or_absent_containers_pass_the_judge() -> None:
    assert judged(None, None) is None
    original = host()
    assert judged(original, original.model_copy()) is None


def test_the_judge_refuses_changes_of_immutable_slots() -> None:
    after = Extensions(request=RequestExtension(request_id="x"))
    expected = "plugin `tagger` broke the immutable tier of extension slot `request`: no plugin may change this slot"
    assert judged(Extensions(), after, *Capability) == expected


def test_the_judge_names_the_missing_capability() -> None:
    text = judged(Extensions(), Extensions(http=HttpExtension()), "read_headers")
    assert text is not None
    assert text.endswith("slot `http`: changing it needs the capability `write_headers`")
    assert judged(Extensions(), Extensions(http=HttpExtension()), "write_headers") is None


def test_the_judge_lets_custom_be_deleted() -> None:
    assert judged(Extensions(custom={"a": 1}), Extensions()) is None


def test_the_judge_lets_labels_and_chains_grow_and_nothing_else() -> None:
    def labelled(*labels: str) -> Extensions:
        return Extensions(security=SecurityExtension(labels=labels))

    assert judged(labelled("a"), labelled("a", "b"), "append_labels") is None
    shrunk = judged(labelled("a"), labelled("b"), "append_labels")
    assert shrunk is not None
    assert "monotonic" in shrunk
    one = chain_of("ada")
    grown = Extensions(delegation=one.with_new_hop(hop("bot")))
    before = Extensions(delegation=one)
    assert judged(before, grown, "append_delegation") is None
    assert judged(Extensions(), before, "append_delegation") is None
    assert judged(Extensions(delegation=DelegationExtension()), Extensions(), "append_delegation") is None
    for after in (
        Extensions(),
        Extensions(delegation=chain_of("eve", "bot")),
        Extensions(delegation=one.model_copy(update={"depth": 7})),
        Extensions(delegation=grown.delegation.model_copy(update={"origin_subject_id": "root"})),
    ):
        assert "monotonic" in (judged(before, after, "append_delegation") or "")
