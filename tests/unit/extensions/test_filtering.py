"""What a plugin is shown of the extensions."""

import pickle
import threading
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from unit.extensions.specimens import NONE, host, shown

from cpex.framework.extensions import (
    AgentExtension,
    Capability,
    Extensions,
    MCPExtension,
    PromptMetadata,
    SecurityExtension,
    SubjectExtension,
)
from cpex.framework.extensions.tiers import (
    filter_extensions,
)


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
