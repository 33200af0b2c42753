from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from cpex.builtins.security.tool_allow_list import ToolAllowListPlugin
from cpex.framework import (
    AgentPreInvokePayload,
    PluginConfig,
    PluginContext,
    PluginViolation,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)

Configure = Callable[..., PluginConfig]


async def allowed(plugin: ToolAllowListPlugin, tool: str, context: PluginContext) -> bool:
    return (await plugin.tool_pre_invoke(ToolPreInvokePayload(name=tool), context)).continue_processing


async def test_a_tool_that_is_not_listed_is_denied(configure: Configure, context: PluginContext) -> None:
    plugin = ToolAllowListPlugin(configure(allowed_tools=["web_search", "calculator"]))
    assert await allowed(plugin, "web_search", context)
    result = await plugin.tool_pre_invoke(ToolPreInvokePayload(name="shell"), context)
    assert not result.continue_processing
    assert result.violation == PluginViolation(
        reason="Tool 'shell' not in allow list",
        description="Only explicitly allowed tools may be invoked.",
        code="TOOL_NOT_ALLOWED",
        details={"tool": "shell"},
    )


async def test_globs_are_compared_letter_by_letter(configure: Configure, context: PluginContext) -> None:
    plugin = ToolAllowListPlugin(configure(allowed_tools=["file_*", "db.[rs]ead", "q?"]))
    verdicts = {
        tool: await allowed(plugin, tool, context)
        for tool in ("file_read", "file_", "File_read", "my_file_read", "db.read", "db.write", "q1", "q12", "file_x\n")
    }
    assert [tool for tool, verdict in verdicts.items() if verdict] == [
        "file_read",
        "file_",
        "db.read",
        "q1",
        "file_x\n",
    ]


async def test_the_deny_list_wins(configure: Configure, context: PluginContext) -> None:
    plugin = ToolAllowListPlugin(configure(allowed_tools=["*"], denied_tools=["shell*"]))
    assert await allowed(plugin, "search", context)
    result = await plugin.tool_pre_invoke(ToolPreInvokePayload(name="shell_exec"), context)
    assert result.violation is not None
    assert (result.violation.reason, result.violation.code) == (
        "Tool 'shell_exec' is on the deny list",
        "TOOL_NOT_ALLOWED",
    )


async def test_a_deny_list_alone_allows_the_rest(configure: Configure, context: PluginContext) -> None:
    plugin = ToolAllowListPlugin(configure(denied_tools=["shell"]))
    assert await allowed(plugin, "search", context)
    assert not await allowed(plugin, "shell", context)


async def test_the_result_of_a_denied_tool_is_kept_back(configure: Configure, context: PluginContext) -> None:
    plugin = ToolAllowListPlugin(configure(allowed_tools=["a"]))
    payload = ToolPostInvokePayload(name="b", result=1)
    assert not (await plugin.tool_post_invoke(payload, context)).continue_processing


async def test_an_agent_loses_the_tools_that_it_must_not_have(configure: Configure, context: PluginContext) -> None:
    plugin = ToolAllowListPlugin(configure(allowed_tools=["a*"]))
    payload = AgentPreInvokePayload(agent_id="x", messages=[], tools=["a1", "b", "a2"])
    result = await plugin.agent_pre_invoke(payload, context)
    assert result.modified_payload is not None
    assert result.modified_payload.tools == ["a1", "a2"]
    assert result.metadata == {"guard": {"removed_tools": ["b"], "removed": 1}}
    assert payload.tools == ["a1", "b", "a2"]


async def test_an_agent_may_be_denied_instead(configure: Configure, context: PluginContext) -> None:
    plugin = ToolAllowListPlugin(configure(allowed_tools=["a*"], agent_tools="deny"))
    payload = AgentPreInvokePayload(agent_id="x", messages=[], tools=["a1", "b"])
    assert not (await plugin.agent_pre_invoke(payload, context)).continue_processing
    assert (
        await plugin.agent_pre_invoke(AgentPreInvokePayload(agent_id="x", messages=[]), context)
    ).continue_processing


async def test_without_lists_everything_is_allowed_with_one_warning(
    configure: Configure, context: PluginContext, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = ToolAllowListPlugin(configure())
    with caplog.at_level(logging.WARNING):
        await plugin.initialize()
        await plugin.initialize()
    assert [record.getMessage() for record in caplog.records] == [
        "plugin `guard` allows every tool; set `allowed_tools` or `denied_tools`"
    ]
    assert await allowed(plugin, "anything", context)


@pytest.mark.parametrize("settings", [{"allowed_tools": None}, {"allowed_tools": "search"}, {"alowed_tools": []}])
def test_a_list_that_is_none_stops_the_start(configure: Configure, settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        ToolAllowListPlugin(configure(**settings))
