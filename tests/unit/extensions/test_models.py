"""What extension values accept, keep and refuse."""

import copy
import json
import pickle
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import BaseModel, ValidationError

import cpex.framework.extensions as package
from cpex.framework.clock import FixedClock, use_clock
from cpex.framework.extensions import (
    AgentExtension,
    CompletionExtension,
    ConversationContext,
    DelegationExtension,
    DelegationHop,
    Extensions,
    HttpExtension,
    MCPExtension,
    MetaExtension,
    RequestExtension,
    SecurityExtension,
    SlotName,
    StopReason,
    SubjectExtension,
    SubjectType,
    TokenUsage,
    ToolMetadata,
)

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Turn(BaseModel):
    text: str


def full() -> Extensions:
    return Extensions(
        request=RequestExtension(request_id="r-1"),
        agent=AgentExtension(input="pay my bill", conversation=ConversationContext(topics=["billing"])),
        http=HttpExtension(headers={"Accept": "text/html"}),
        security=SecurityExtension(
            labels=["PII"], subject=SubjectExtension(id="ada", type="user", roles={"admin"}, claims={"iss": "idp"})
        ),
        delegation=DelegationExtension().with_new_hop(DelegationHop(subject_id="ada", subject_type="user")),
        mcp=MCPExtension(tool=ToolMetadata(name="pay", input_schema={"type": "object"})),
        completion=CompletionExtension(
            stop_reason="end", tokens=TokenUsage(input_tokens=1, output_tokens=2, total_tokens=3)
        ),
        meta=MetaExtension(tags={"a", "b"}),
        custom={"nested": {"list": [1, 2]}},
    )


def test_the_package_exports_exactly_the_models_and_the_rule_enums() -> None:
    assert len(package.__all__) == 29
    assert all(getattr(package, name) is not None for name in package.__all__)
    assert not {"filter_extensions", "validate_tier_constraints", "SlotPolicy", "SLOT_REGISTRY"} & set(package.__all__)


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"^module 'cpex.framework.extensions' has no attribute 'Nothing'$"):
        _ = package.Nothing


@pytest.mark.parametrize("first", ["extensions", "extensions.tiers", "models.result", "hooks.tools", "decorator"])
def test_any_of_the_packages_may_be_imported_first(first: str) -> None:
    code = f"import cpex.framework.{first}; from cpex.framework.extensions import Extensions; Extensions()"
    subprocess.run([sys.executable, "-W", "error", "-c", code], check=True, timeout=60)


def test_the_container_has_twelve_empty_slots_in_a_fixed_order() -> None:
    slots = "request agent http security delegation mcp completion provenance llm framework meta custom"
    assert list(Extensions().model_dump().items()) == [(slot, None) for slot in slots.split()]


def test_no_slot_can_be_assigned() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Extensions().custom = {}
    with pytest.raises(ValidationError, match="frozen"):
        SecurityExtension().labels = frozenset({"PII"})


def test_headers_of_another_shape_are_understood_and_what_is_lost_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It is told once in a process, and another test may have been first.
    monkeypatch.setattr("cpex.framework.extensions.http._told", set())
    shape = {"request_headers": {"A": "1"}, "response_headers": {"B": "2"}, "method": "GET"}
    for _ in range(2):
        assert HttpExtension.model_validate(shape).headers == {"A": "1"}
    assert [record.message for record in caplog.records] == [
        "HttpExtension has no `method`, so what stands there is left out; known: headers",
        "HttpExtension has no `response_headers`, so what stands there is left out; known: headers",
    ]
    both = HttpExtension.model_validate({"headers": {"A": "1"}, "request_headers": {"A": "2"}})
    assert both.headers == {"A": "1"}
    assert "request_headers" in caplog.records[-1].message


def test_unknown_keys_are_dropped() -> None:
    assert Extensions.model_validate({"raw_credentials": {"token": "x"}}) == Extensions()


def test_an_instance_is_kept_and_a_dict_is_validated() -> None:
    request = RequestExtension(trace_id="t")
    assert Extensions(request=request).request is request
    assert Extensions(request={"trace_id": "t"}).request == request


def test_containers_with_content_cannot_be_hashed() -> None:
    with pytest.raises(TypeError):
        hash(full())


def test_sets_are_frozen_and_a_bare_text_is_not_a_set() -> None:
    assert SecurityExtension(labels=["a", "a"]).labels == frozenset({"a"})
    with pytest.raises(ValidationError):
        SecurityExtension(labels="abc")


def test_a_claim_that_is_no_text_is_refused() -> None:
    with pytest.raises(ValidationError):
        SubjectExtension(id="ada", type="user", claims={"exp": 1})


def test_closed_sets_are_closed_and_free_texts_are_free() -> None:
    with pytest.raises(ValidationError):
        SubjectExtension(id="ada", type="robot")
    assert DelegationHop(subject_id="x", subject_type="robot").subject_type == "robot"
    assert CompletionExtension(stop_reason="max_tokens").stop_reason is StopReason.MAX_TOKENS


def test_slot_names_print_as_their_bare_value_and_other_enums_do_not() -> None:
    assert f"{SlotName.SECURITY_LABELS}" == "security.labels"
    assert str(SubjectType.USER) == "SubjectType.USER"
    assert len(SlotName) == 19


def test_history_takes_a_hundred_entries_of_any_model_and_keeps_them() -> None:
    turn = Turn(text="hi")
    assert ConversationContext(history=[turn] * 100).history[99] is turn
    with pytest.raises(ValidationError, match="at most 100"):
        ConversationContext(history=[turn] * 101)


def test_history_crosses_json_with_its_content() -> None:
    sent = AgentExtension(conversation=ConversationContext(history=[Turn(text="hi")]))
    received = AgentExtension.model_validate_json(sent.model_dump_json())
    assert received.conversation is not None
    entry = received.conversation.history[0]
    assert (entry.text, repr(entry)) == ("hi", "ConversationEntry(text='hi')")
    assert received.model_dump() == sent.model_dump()


def test_extensions_survive_json_pickle_and_copies() -> None:
    extensions = full()
    assert Extensions.model_validate(json.loads(extensions.model_dump_json())) == extensions
    assert pickle.loads(pickle.dumps(extensions)) == extensions
    assert copy.deepcopy(extensions) == extensions


def test_json_writes_sets_as_arrays_and_utc_with_a_z() -> None:
    with use_clock(FixedClock(NOON)):
        dump = json.loads(full().model_dump_json())
    assert sorted(dump["meta"]["tags"]) == ["a", "b"]
    assert dump["delegation"]["chain"][0]["timestamp"] == "2030-01-01T12:00:00Z"


def test_a_new_hop_carries_the_clocks_time() -> None:
    with use_clock(FixedClock(NOON)):
        assert DelegationHop(subject_id="x", subject_type="agent").timestamp == NOON
    assert DelegationHop(subject_id="x", subject_type="agent").timestamp.utcoffset() == timedelta(0)


def test_appending_a_hop_makes_a_new_chain_and_recomputes_what_it_tells() -> None:
    empty = DelegationExtension()
    with use_clock(FixedClock(NOON)) as clock:
        one = empty.with_new_hop(DelegationHop(subject_id="ada", subject_type="user"))
        clock.advance(90)
        two = one.with_new_hop(DelegationHop(subject_id="bot", subject_type="agent"))
    assert empty == DelegationExtension()
    assert (one.depth, one.origin_subject_id, one.actor_subject_id, one.delegated) == (1, "ada", "ada", True)
    assert (two.depth, two.origin_subject_id, two.actor_subject_id, two.delegated) == (2, "ada", "bot", True)
    assert (one.age_seconds, two.age_seconds) == (0.0, 90.0)
    assert [hop.subject_id for hop in two.chain] == ["ada", "bot"]


def test_an_origin_that_is_set_stays_and_an_empty_one_does_not() -> None:
    hop = DelegationHop(subject_id="bot", subject_type="agent")
    assert DelegationExtension(origin_subject_id="ada").with_new_hop(hop).origin_subject_id == "ada"
    assert DelegationExtension(origin_subject_id="").with_new_hop(hop).origin_subject_id == "bot"


def test_a_first_hop_without_time_zone_is_taken_as_utc() -> None:
    naive = DelegationHop(subject_id="ada", subject_type="user", timestamp=datetime(2030, 1, 1, 12))
    with use_clock(FixedClock(NOON + timedelta(seconds=5))):
        chain = DelegationExtension().with_new_hop(naive).with_new_hop(naive)
    assert chain.age_seconds == 5.0
