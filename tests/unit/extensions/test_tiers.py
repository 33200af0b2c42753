"""What a plugin is shown, and which of its changes count."""

import pickle
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from pydantic import ValidationError

from cpex.framework.clock import FixedClock, now, use_clock
from cpex.framework.extensions import (
    AccessPolicy,
    AgentExtension,
    Capability,
    ConversationContext,
    DataPolicy,
    DelegationExtension,
    DelegationHop,
    Extensions,
    FrameworkExtension,
    HttpExtension,
    LLMExtension,
    MCPExtension,
    MetaExtension,
    MutabilityTier,
    ObjectSecurityProfile,
    PromptMetadata,
    RequestExtension,
    SecurityExtension,
    SlotName,
    SubjectExtension,
    TierViolationError,
    ToolMetadata,
)
from cpex.framework.extensions.tiers import (
    SlotPolicy,
    _slot_registry,
    filter_extensions,
    merge_extensions,
    validate_tier_constraints,
)

NONE: frozenset[str] = frozenset()


def hop(subject: str) -> DelegationHop:
    return DelegationHop(subject_id=subject, subject_type="agent")


def chain_of(*subjects: str) -> DelegationExtension:
    delegation = DelegationExtension()
    for subject in subjects:
        delegation = delegation.with_new_hop(hop(subject))
    return delegation


def host() -> Extensions:
    return Extensions(
        request=RequestExtension(request_id="r-1"),
        agent=AgentExtension(agent_id="bot", conversation=ConversationContext(topics=["billing"])),
        http=HttpExtension(headers={"Authorization": "Bearer s3cret"}),
        security=SecurityExtension(
            labels={"PII"},
            classification="internal",
            subject=SubjectExtension(
                id="ada",
                type="user",
                roles={"admin"},
                permissions={"pay"},
                teams={"red"},
                claims={"iss": "idp"},
            ),
            objects={"pay": ObjectSecurityProfile(permissions=["pay"])},
            data={"pay": DataPolicy(apply_labels=["FIN"])},
        ),
        delegation=chain_of("ada", "bot"),
        mcp=MCPExtension(tool=ToolMetadata(name="pay", annotations={"hints": {"readOnly": False}})),
        llm=LLMExtension(capabilities=["vision"]),
        framework=FrameworkExtension(metadata={"node": {"id": 1}}),
        meta=MetaExtension(properties={"k": "v"}),
        custom={"notes": ["first"]},
    )


def shown(extensions: Extensions, *capabilities: str) -> Extensions:
    view = filter_extensions(extensions, frozenset(capabilities))
    assert view is not None
    return view


def merged(original: Extensions, output: Extensions, *capabilities: str) -> Extensions:
    result = merge_extensions(original, output, frozenset(capabilities), "tagger")
    assert result is not None
    return result


# The table.


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


# What is shown.


def test_no_extensions_show_as_none() -> None:
    assert filter_extensions(None, NONE) is None


def test_without_capabilities_only_the_open_slots_are_shown() -> None:
    view = shown(host())
    assert (view.agent, view.http, view.delegation) == (None, None, None)
    assert view.security == SecurityExtension(
        classification="internal", objects=host().security.objects, data=host().security.data
    )
    for slot in ("request", "mcp", "llm", "framework", "meta", "custom"):
        assert getattr(view, slot) == getattr(host(), slot)


def test_a_blank_security_slot_is_still_there() -> None:
    assert shown(Extensions(security=SecurityExtension())).security == SecurityExtension()


@pytest.mark.conformance("D17")
@pytest.mark.parametrize(
    ("slot", "capabilities"),
    [
        ("agent", ["read_agent"]),
        ("http", ["read_headers"]),
        ("http", ["write_headers"]),
        ("delegation", ["read_delegation"]),
        ("delegation", ["append_delegation"]),
    ],
)
def test_a_capability_opens_its_slot(slot: str, capabilities: list[str]) -> None:
    original = host()
    view = shown(original, *capabilities)
    assert getattr(view, slot) == getattr(original, slot)


@pytest.mark.parametrize("capability", ["read_labels", "append_labels"])
def test_labels_are_shown_to_their_readers_and_writers(capability: str) -> None:
    assert shown(host(), capability).security.labels == {"PII"}


@pytest.mark.parametrize("part", ["roles", "permissions", "teams", "claims"])
def test_each_part_of_the_subject_has_its_own_capability(part: str) -> None:
    subject = shown(host(), f"read_{part}").security.subject
    assert (subject.id, subject.type) == ("ada", "user")
    assert [name for name in ("roles", "permissions", "teams", "claims") if getattr(subject, name)] == [part]


def test_reading_the_subject_shows_who_it_is_and_nothing_more() -> None:
    subject = shown(host(), "read_subject").security.subject
    assert subject == SubjectExtension(id="ada", type="user")


def test_a_view_is_a_new_container_even_when_nothing_was_hidden() -> None:
    original = host()
    view = shown(original, *Capability)
    assert view is not original
    assert type(view) is Extensions
    assert view == original
    assert view.model_dump_json() == original.model_dump_json()
    assert pickle.loads(pickle.dumps(shown(original, *Capability))) == original


def test_a_slot_without_anything_to_edit_is_the_hosts_own_object() -> None:
    original = host()
    view = shown(original, "read_delegation")
    assert view.request is original.request
    assert view.delegation is original.delegation


@pytest.mark.parametrize(
    "capabilities",
    [["read_agent"], ("read_agent",), {"read_agent"}, {"read_agent": 1}, iter(["read_agent"]), [Capability.READ_AGENT]],
)
def test_capabilities_come_in_any_iterable(capabilities: Iterable[str]) -> None:
    assert filter_extensions(host(), capabilities).agent is not None


def test_a_bare_text_is_one_capability() -> None:
    assert filter_extensions(host(), "read_agent").agent is not None
    assert filter_extensions(host(), "read_agent_and_more").agent is None


def test_capabilities_may_be_anything_that_supports_in() -> None:
    class Everything:
        def __contains__(self, name: object) -> bool:
            return True

    original = host()
    assert filter_extensions(original, Everything()) == original


EDITS: dict[str, Callable[[Extensions], Any]] = {
    "http.headers": lambda e: e.http.headers.update(X="1"),
    "security.objects": lambda e: e.security.objects.clear(),
    "security.objects.permissions": lambda e: e.security.objects["pay"].permissions.append("x"),
    "security.data.apply_labels": lambda e: e.security.data["pay"].apply_labels.clear(),
    "security.subject.claims": lambda e: e.security.subject.claims.update(iss="me"),
    "agent.conversation.topics": lambda e: e.agent.conversation.topics.append("x"),
    "mcp.tool.annotations": lambda e: e.mcp.tool.annotations["hints"].update(readOnly=True),
    "llm.capabilities": lambda e: e.llm.capabilities.append("x"),
    "framework.metadata": lambda e: e.framework.metadata["node"].update(id=2),
    "meta.properties": lambda e: e.meta.properties.clear(),
    "custom": lambda e: e.custom["notes"].append("second"),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_editing_a_view_in_place_never_reaches_the_host(edit: Callable[[Extensions], Any]) -> None:
    original = host()
    before = original.model_dump()
    edit(shown(original, *Capability))
    assert original.model_dump() == before


def test_a_prompts_argument_list_is_copied_too() -> None:
    original = Extensions(mcp=MCPExtension(prompt=PromptMetadata(name="p", arguments=[{"name": "a"}])))
    shown(original).mcp.prompt.arguments[0]["name"] = "b"
    assert original.mcp.prompt.arguments == [{"name": "a"}]


def test_history_entries_are_copied_too() -> None:
    entry = AgentExtension(conversation={"history": [{"parts": ["a"]}]})
    original = Extensions(agent=entry)
    shown(original, "read_agent").agent.conversation.history[0].parts.append("b")
    assert entry.conversation.history[0].parts == ["a"]


def test_cycles_in_custom_stay_cycles() -> None:
    loop: dict[str, Any] = {}
    loop["self"] = loop
    seen = shown(Extensions(custom={"loop": loop})).custom["loop"]
    assert seen["self"] is seen
    assert seen is not loop


def test_what_cannot_be_copied_is_shared_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    class Client:
        def __init__(self) -> None:
            self.lock = threading.Lock()

    original = Extensions(custom={"client": Client(), "other": Client()})
    with caplog.at_level("WARNING", "cpex.framework.extensions"):
        view = shown(original)
        assert view.custom["client"] is original.custom["client"]
    assert len(caplog.records) == 1
    assert "Client (TypeError); host and plugins share it" in caplog.text


def test_what_is_nested_deeper_than_the_stack_is_an_error_and_never_shared() -> None:
    class Node:
        def __init__(self, below: Any) -> None:
            self.below = below

    plain: Any = {}
    foreign: Any = None
    for _ in range(5000):
        plain, foreign = {"below": plain}, Node(foreign)
    for deep in (plain, foreign):
        view = shown(Extensions(custom={"deep": deep}))
        with pytest.raises(RecursionError):
            _ = view.custom


def test_what_a_hosts_subclass_of_the_security_slot_adds_is_not_shown() -> None:
    class Secretive(SecurityExtension):
        raw_token: str = "s3cret"

    assert "s3cret" not in shown(Extensions(security=Secretive()), *Capability).model_dump_json()


# What comes back.


def test_merging_without_an_original_gives_none_and_without_an_answer_the_original() -> None:
    original = host()
    assert merge_extensions(None, original, NONE, "p") is None
    assert merge_extensions(original, None, NONE, "p") is original


def test_an_untouched_view_changes_nothing_whatever_the_capabilities() -> None:
    original = host()
    for capabilities in ([], list(Capability)):
        view = shown(original, *capabilities)
        assert merged(original, view, *capabilities) is original
        assert merged(original, view.model_copy(), *capabilities) is original


@pytest.mark.conformance("D17")
def test_slots_that_the_plugin_could_not_see_survive() -> None:
    original = host()
    view = shown(original)
    result = merged(original, view.model_copy(update={"custom": {**view.custom, "score": 1}}))
    assert result == original.model_copy(update={"custom": {"notes": ["first"], "score": 1}})
    assert original.custom == {"notes": ["first"]}


def test_changes_of_immutable_slots_are_ignored() -> None:
    original = host()
    forged = original.model_copy(
        update={
            "request": RequestExtension(request_id="forged"),
            "agent": None,
            "security": original.security.model_copy(
                update={
                    "classification": "public",
                    "objects": {},
                    "data": {},
                    "subject": SubjectExtension(id="eve", type="user"),
                }
            ),
        }
    )
    assert merged(original, forged, *Capability) is original


def test_headers_are_replaced_only_with_the_capability() -> None:
    original = host()
    changed = original.model_copy(update={"http": HttpExtension(headers={"X": "1"})})
    assert merged(original, changed, "read_headers") is original
    assert merged(original, changed, "write_headers").http.headers == {"X": "1"}
    assert merged(original, original.model_copy(update={"http": None}), "write_headers") is original
    assert merged(Extensions(), changed, "write_headers").http.headers == {"X": "1"}


def test_headers_edited_in_place_count_when_the_view_comes_back() -> None:
    original = host()
    view = shown(original, "write_headers")
    view.http.headers["X"] = "1"
    assert merged(original, view, "write_headers").http.headers == {"Authorization": "Bearer s3cret", "X": "1"}
    assert original.http.headers == {"Authorization": "Bearer s3cret"}


def test_headers_that_are_no_texts_are_refused() -> None:
    original = host()
    view = shown(original, "write_headers")
    view.http.headers["X"] = 1
    with pytest.raises(ValidationError):
        merged(original, view, "write_headers")


def test_labels_are_added_only_with_the_capability() -> None:
    original = host()
    security = original.security.model_copy(update={"labels": frozenset({"PII", "FIN"})})
    changed = original.model_copy(update={"security": security})
    assert merged(original, changed, "read_labels") is original
    result = merged(original, changed, "append_labels")
    assert result.security == security
    assert result.security.subject is original.security.subject


def test_removing_a_label_is_a_violation() -> None:
    original = host()
    changed = original.model_copy(update={"security": SecurityExtension(labels={"FIN"})})
    with pytest.raises(TierViolationError) as caught:
        merged(original, changed, "append_labels")
    assert caught.value.slot == SlotName.SECURITY_LABELS
    assert caught.value.detail == "labels may be added, never removed; gone: `PII`"


def test_a_labelling_plugin_may_create_the_security_slot_with_labels_alone() -> None:
    security = SecurityExtension(labels={"PII"}, classification="public", subject={"id": "eve", "type": "user"})
    answer = Extensions(security=security)
    assert merged(Extensions(), answer, "append_labels").security == SecurityExtension(labels={"PII"})
    empty = Extensions()
    assert merged(empty, Extensions(security=SecurityExtension()), "append_labels") is empty
    assert merged(empty, answer) is empty


def test_hops_are_appended_only_with_the_capability() -> None:
    original = host()
    changed = original.model_copy(update={"delegation": original.delegation.with_new_hop(hop("tool"))})
    assert merged(original, changed, "read_delegation") is original
    result = merged(original, changed, "append_delegation").delegation
    assert [each.subject_id for each in result.chain] == ["ada", "bot", "tool"]
    assert result.chain[0] is original.delegation.chain[0]


def test_what_a_chain_tells_is_recomputed_from_its_hops() -> None:
    with use_clock(FixedClock(now())) as clock:
        original = Extensions(delegation=chain_of("ada"))
        clock.advance(60)
        forged = DelegationExtension(
            chain=(*original.delegation.chain, hop("bot"), hop("tool")),
            depth=1,
            origin_subject_id="root",
            actor_subject_id="root",
            delegated=False,
            age_seconds=-1,
        )
        result = merged(original, Extensions(delegation=forged), "append_delegation").delegation
    assert result == original.delegation.model_copy(
        update={"chain": forged.chain, "depth": 3, "actor_subject_id": "tool", "age_seconds": 60.0}
    )


def test_facts_about_an_unchanged_chain_cannot_be_rewritten() -> None:
    original = host()
    forged = original.delegation.model_copy(update={"origin_subject_id": "root", "depth": 0})
    assert merged(original, Extensions(delegation=forged, custom=original.custom), "append_delegation") is original


def test_a_first_chain_may_be_created() -> None:
    result = merged(Extensions(), Extensions(delegation=chain_of("ada")), "append_delegation").delegation
    assert (result.depth, result.origin_subject_id, result.delegated) == (1, "ada", True)


@pytest.mark.parametrize(
    ("subjects", "detail"),
    [
        (["ada"], "the chain of 2 hops came back with 1"),
        (["ada", "eve", "tool"], "a hop that was already in the chain has changed"),
    ],
)
def test_shortening_or_rewriting_the_chain_is_a_violation(subjects: list[str], detail: str) -> None:
    with use_clock(FixedClock(now())):
        original = Extensions(delegation=chain_of("ada", "bot"))
        changed = Extensions(delegation=chain_of(*subjects))
    with pytest.raises(TierViolationError) as caught:
        merged(original, changed, "append_delegation")
    assert (caught.value.slot, caught.value.tier, caught.value.detail) == (
        "delegation",
        MutabilityTier.MONOTONIC,
        detail,
    )


def test_custom_is_replaced_freely_and_none_wipes_it() -> None:
    original = host()
    assert merged(original, original.model_copy(update={"custom": {"a": 1}})).custom == {"a": 1}
    assert merged(original, original.model_copy(update={"custom": None})).custom is None
    assert merged(Extensions(), Extensions(custom={"a": 1})).custom == {"a": 1}


def test_custom_that_differs_only_in_type_is_a_change() -> None:
    original = Extensions(custom={"approved": 1})
    assert merged(original, Extensions(custom={"approved": True})).custom["approved"] is True


def test_custom_edited_in_place_counts_when_the_view_comes_back() -> None:
    original = host()
    view = shown(original)
    view.custom["notes"].append("second")
    assert merged(original, view).custom == {"notes": ["first", "second"]}


def test_entries_of_custom_that_the_plugin_left_alone_stay_the_hosts_objects() -> None:
    class Opaque:
        pass

    original = Extensions(custom={"opaque": Opaque(), "n": 1})
    view = shown(original)
    view.custom["n"] = 2
    result = merged(original, view)
    assert result.custom["opaque"] is original.custom["opaque"]
    assert result.custom["n"] == 2


def test_custom_that_is_no_dict_is_refused() -> None:
    with pytest.raises(ValidationError):
        merged(Extensions(), Extensions().model_copy(update={"custom": ["a"]}))


def test_the_plugin_keeps_no_reference_into_what_was_accepted() -> None:
    headers, notes = {"X": "1"}, ["a"]
    answer = Extensions(http=HttpExtension(headers=headers), custom={"notes": notes})
    result = merged(Extensions(), answer, "write_headers")
    answer.http.headers["X"] = "2"
    answer.custom["notes"].append("b")
    assert (result.http.headers, result.custom) == ({"X": "1"}, {"notes": ["a"]})


def test_slots_given_as_dicts_by_an_unvalidated_copy_are_validated() -> None:
    answer = host().model_copy(
        update={"http": {"headers": {"X": "1"}}, "security": {"labels": ["PII", "FIN"]}, "delegation": {"chain": []}}
    )
    with pytest.raises(TierViolationError):
        merged(host(), answer, "append_delegation")
    result = merged(host(), answer, "write_headers", "append_labels")
    assert result.http == HttpExtension(headers={"X": "1"})
    assert result.security.labels == {"PII", "FIN"}


def test_labels_that_lie_about_themselves_are_judged_by_their_content() -> None:
    class Lying(frozenset):
        def __ge__(self, other: object) -> bool:
            return True

    original = host()
    security = original.security.model_copy(update={"labels": Lying({"FIN"})})
    with pytest.raises(TierViolationError):
        merged(original, original.model_copy(update={"security": security}), "append_labels")


def test_a_hosts_subclass_of_the_container_stays_one() -> None:
    class HostExtensions(Extensions):
        ticket: str = ""

    original = HostExtensions(ticket="T-1", custom={"a": 1})
    result = merged(original, shown(original).model_copy(update={"custom": {"a": 2}}))
    assert isinstance(result, HostExtensions)
    assert (result.ticket, result.custom) == ("T-1", {"a": 2})


# The strict judge.


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
