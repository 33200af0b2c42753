"""Which of a plugin's changes of the extensions count."""

import pytest
from pydantic import ValidationError
from unit.extensions.specimens import NONE, chain_of, hop, host, merged, shown

from cpex.framework.clock import FixedClock, now, use_clock
from cpex.framework.extensions import (
    Capability,
    DelegationExtension,
    Extensions,
    HttpExtension,
    MutabilityTier,
    RequestExtension,
    SecurityExtension,
    SlotName,
    SubjectExtension,
    TierViolationError,
)
from cpex.framework.extensions.tiers import (
    merge_extensions,
)


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


class Row:
    """Equal by its key, as rows of databases are."""

    key = 1

    def __init__(self, ssn: str) -> None:
        self.ssn = ssn

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Row) and self.key == other.key

    __hash__ = None


class Titled(list[Row]):
    ssn = ""


def test_custom_whose_objects_take_themselves_for_unchanged_is_judged_by_what_they_hold() -> None:
    original = Extensions(custom={"row": Row("123"), "rows": Titled([Row("123")])})
    view = shown(original)
    assert view.custom is not None
    assert original.custom is not None
    view.custom["row"].ssn = "***"
    view.custom["rows"][0].ssn = "***"
    result = merged(original, view).custom
    assert (result["row"].ssn, result["rows"][0].ssn) == ("***", "***")
    assert (original.custom["row"].ssn, original.custom["rows"][0].ssn) == ("123", "123")
    assert merged(original, shown(original).model_copy()) is original


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
