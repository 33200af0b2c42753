"""Hooks about lists: what they carry, and what the tool allow list leaves out."""

from __future__ import annotations

import pytest
from support import manager_of

from cpex.builtins.security.tool_allow_list import ToolAllowListPlugin
from cpex.framework import GlobalContext, PluginConfig, ToolListPayload
from cpex.framework.hooks.registry import get_hook_registry


def test_list_hooks_are_read_from_json() -> None:
    registry = get_hook_registry()
    tools = registry.json_to_payload("tool_list", '{"tools": [{"name": "a"}]}')
    assert tools.tools == [{"name": "a"}]
    assert registry.json_to_payload("resource_list", {"templates": [{"uriTemplate": "x:{a}"}]}).resources == []
    assert registry.json_to_payload("prompt_list", {"prompts": []}).prompts == []


@pytest.mark.parametrize(
    ("settings", "shown"),
    [
        ({"denied_tools": ["b"]}, ["a", "c"]),
        ({"allowed_tools": ["b*"]}, ["b"]),
        ({"rules": [{"servers": ["git"], "allowed_tools": ["c"]}], "allowed_tools": ["a"]}, ["c"]),
        ({"denied_tools": ["z"]}, ["a", "b", "c"]),
    ],
)
async def test_the_allow_list_hides_what_may_not_be_called(settings: dict[str, object], shown: list[str]) -> None:
    entry = PluginConfig(name="p", kind="security.ToolAllowListPlugin", hooks=["tool_list"], config=settings)
    manager = manager_of(ToolAllowListPlugin(entry))
    payload = ToolListPayload(tools=[{"name": "a"}, {"name": "b"}, {"name": "c"}])
    result, _ = await manager.invoke_hook("tool_list", payload, GlobalContext(request_id="1", server_id="git"))
    left = result.modified_payload or payload
    assert [tool["name"] for tool in left.tools] == shown
