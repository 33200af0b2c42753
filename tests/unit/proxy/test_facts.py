"""What is remembered of lists, and how a thing is named to plugins."""

from __future__ import annotations

from typing import Any

import pytest

from cpex.framework.extensions.mcp import MCPExtension, PromptMetadata, ResourceMetadata, ToolMetadata
from cpex.proxy import facts
from cpex.proxy.facts import Listings, Requester, told_client

TOOL = ToolMetadata(name="a", server_id="s", namespace="s")


def test_what_was_not_listed_is_known_by_its_name_and_server() -> None:
    known = Listings()
    assert known.of("tools/call", {"name": "a"}, "s") == MCPExtension(tool=TOOL)
    assert known.of("prompts/get", {"name": "a"}, "s") == MCPExtension(prompt=PromptMetadata(name="a", server_id="s"))
    resource = ResourceMetadata(uri="x:1", server_id="s")
    assert known.of("resources/read", {"uri": "x:1"}, "s") == MCPExtension(resource=resource)
    assert known.of("tools/call", {"name": 1}, "s") is None


def test_tools_of_the_same_name_are_kept_apart_by_their_servers() -> None:
    known = Listings()
    known.learn("s", "tools", [{"name": "a", "description": "of s", "inputSchema": {}}])
    known.learn("t", "tools", [{"name": "a", "description": "of t"}])
    found = known.of("tools/call", {"name": "a"}, "s")
    assert found is not None
    assert found.tool == TOOL.model_copy(update={"description": "of s"})


@pytest.mark.parametrize("odd", [None, "a", {"name": 1}, {}, {"name": "a", "title": 1, "annotations": []}])
def test_lists_that_are_none_tell_nothing(odd: Any) -> None:
    known = Listings()
    known.learn("s", "tools", [odd])
    assert known.of("tools/call", {"name": "a"}, "s") == MCPExtension(tool=TOOL)


def test_the_oldest_entries_are_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    # The bound is no setting; a small one makes the test short.
    monkeypatch.setattr(facts, "_MAX_ENTRIES", 2)
    known = Listings()
    known.learn("s", "tools", [{"name": name, "title": name} for name in "abac"])
    titles = [
        found.tool.title for name in "abc" if (found := known.of("tools/call", {"name": name}, "s")) and found.tool
    ]
    assert titles == ["a", None, "c"]


@pytest.mark.parametrize(
    ("info", "expected"),
    [({"name": "n", "version": "1", "title": "t"}, {"name": "n", "version": "1"}), ({"name": 1}, None), ("n", None)],
)
def test_of_a_client_its_name_and_version_are_told(info: Any, expected: Any) -> None:
    assert told_client(info) == expected


def test_headers_are_not_shown_where_an_asker_is_printed() -> None:
    assert "hunter2" not in repr(Requester({"authorization": "hunter2"}))
