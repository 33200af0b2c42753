from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from cpex.builtins.security.tool_allow_list import ToolAllowListPlugin
from cpex.framework import (
    AgentPreInvokePayload,
    GlobalContext,
    PluginConfig,
    PluginContext,
    PluginMode,
    PluginViolation,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)
from cpex.framework.cmf.message import (
    Message,
    Role,
    TextContent,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)
from cpex.framework.hooks.message import MessagePayload

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


async def test_an_agent_is_denied_in_a_mode_that_can_take_no_tool_away(
    configure: Configure, context: PluginContext
) -> None:
    config = configure(denied_tools=["b"]).model_copy(update={"mode": PluginMode.CONCURRENT})
    plugin = ToolAllowListPlugin(config)
    payload = AgentPreInvokePayload(agent_id="x", messages=[], tools=["a", "b"])
    denied = await plugin.agent_pre_invoke(payload, context)
    assert denied.violation is not None
    assert denied.violation.code == "TOOL_NOT_ALLOWED"
    assert denied.metadata == {}
    allowed = AgentPreInvokePayload(agent_id="x", messages=[], tools=["a"])
    assert (await plugin.agent_pre_invoke(allowed, context)).continue_processing


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


def asking(tenant: str | None = None, server: str | None = None) -> PluginContext:
    return PluginContext(global_context=GlobalContext(request_id="r", tenant_id=tenant, server_id=server))


async def test_the_first_rule_for_a_tenant_and_server_counts_instead_of_the_general_list(configure: Configure) -> None:
    rules = [
        {"tenants": ["acme"], "servers": ["files-*"], "allowed_tools": ["file_*"], "denied_tools": ["file_delete"]},
        {"tenants": ["acme"], "allowed_tools": ["*"]},
    ]
    plugin = ToolAllowListPlugin(configure(allowed_tools=["search"], denied_tools=["shell"], rules=rules))
    verdicts = {
        (tool, tenant, server): await allowed(plugin, tool, asking(tenant, server))
        for tool in ("search", "file_read", "file_delete", "shell")
        for tenant, server in (("acme", "files-1"), ("acme", "web"), ("umbrella", "files-1"), (None, None))
    }
    assert [call for call, verdict in verdicts.items() if verdict] == [
        ("search", "acme", "web"),
        ("search", "umbrella", "files-1"),
        ("search", None, None),
        ("file_read", "acme", "files-1"),
        ("file_read", "acme", "web"),
        ("file_delete", "acme", "web"),
    ]


async def test_rules_for_some_allow_nothing_to_all_others(configure: Configure) -> None:
    plugin = ToolAllowListPlugin(configure(rules=[{"tenants": ["acme"], "allowed_tools": ["search"]}]))
    assert await allowed(plugin, "search", asking("acme"))
    assert not await allowed(plugin, "search", asking("umbrella"))
    assert not await allowed(plugin, "search", asking())


SCHEMA = {
    "type": "object",
    "properties": {"path": {"type": "string", "pattern": "^/data/[a-z/]+$"}, "lines": {"type": "array"}},
    "required": ["path"],
    "additionalProperties": False,
}


async def test_arguments_that_do_not_fit_are_denied_with_places_and_never_with_values(
    configure: Configure, context: PluginContext
) -> None:
    plugin = ToolAllowListPlugin(configure(schemas={"file_read": SCHEMA}))
    good = await plugin.tool_pre_invoke(ToolPreInvokePayload(name="file_read", args={"path": "/data/a"}), context)
    assert good.continue_processing
    bad = {"path": "/etc/hunter2", "lines": "hunter2", "hunter2 again": 1}
    result = await plugin.tool_pre_invoke(ToolPreInvokePayload(name="file_read", args=bad), context)
    assert result.violation is not None
    assert (result.violation.code, result.violation.reason) == (
        "TOOL_ARGS_INVALID",
        "Arguments of tool 'file_read' do not fit its schema",
    )
    details = result.violation.details or {}
    assert sorted((misfit["path"], misfit["rule"]) for misfit in details["misfits"]) == [
        ("args", "additionalProperties"),
        ("args.lines", "type"),
        ("args.path", "pattern"),
    ]
    assert "hunter2" not in result.violation.model_dump_json()
    missing = await plugin.tool_pre_invoke(ToolPreInvokePayload(name="file_read", args=None), context)
    assert missing.violation is not None
    assert missing.violation.description == "Not as the schema has it: args (required)."


async def test_all_schemas_that_match_a_name_count_and_other_tools_may_be_left_alone_or_not(
    configure: Configure, context: PluginContext
) -> None:
    schemas = {"file_*": {"maxProperties": 1}, "file_read": {"required": ["path"]}, "never": False}
    open_plugin = ToolAllowListPlugin(configure(schemas=schemas))
    closed_plugin = ToolAllowListPlugin(configure(schemas=schemas, on_missing_schema="deny"))
    calls = {"file_read": {"path": 1}, "file_stat": {"a": 1, "b": 2}, "never": {}, "search": {"q": 1}}
    verdicts = {
        name: [
            (await plugin.tool_pre_invoke(ToolPreInvokePayload(name=name, args=args), context)).continue_processing
            for plugin in (open_plugin, closed_plugin)
        ]
        for name, args in calls.items()
    }
    assert verdicts == {
        "file_read": [True, True],
        "file_stat": [False, False],
        "never": [False, False],
        "search": [True, False],
    }


@pytest.mark.parametrize(
    ("args", "rule"), [({1: "a"}, "json"), ({"path": "a" * 100_000 + "!"}, "pattern"), ({"deep": None}, "json")]
)
async def test_no_argument_stalls_or_breaks_the_check(
    configure: Configure, context: PluginContext, args: dict[Any, Any], rule: str
) -> None:
    if "deep" in args:
        for _ in range(100_000):
            args = {"deep": args}
    schema = {"properties": {"path": {"pattern": "^(a+)+$"}}, "additionalProperties": {"$ref": "#"}, "maxProperties": 3}
    plugin = ToolAllowListPlugin(configure(schemas={"t": schema}))
    result = await plugin.tool_pre_invoke(ToolPreInvokePayload.model_construct(name="t", args=args), context)
    assert result.violation is not None
    assert [misfit["rule"] for misfit in (result.violation.details or {})["misfits"]] == [rule]


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "objekt"}, "the schema of tool `t` cannot be used: "),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "is outside the schema, and nothing is fetched"),
        (
            {"properties": {"a": {"pattern": "(?=a)b"}}},
            'the schema of tool `t` cannot be used: "(?=a)b" is not a "regex"',
        ),
    ],
)
def test_a_schema_that_cannot_be_used_stops_the_start(configure: Configure, schema: Any, message: str) -> None:
    with pytest.raises(ValueError) as raised:
        ToolAllowListPlugin(configure(schemas={"t": schema}))
    assert message in str(raised.value)


def test_without_the_library_the_message_names_the_extra() -> None:
    # A module that is `None` in `sys.modules` is one that cannot be imported; a fresh interpreter spares the others.
    code = (
        "import sys; sys.modules['jsonschema_rs'] = None\n"
        "from cpex.builtins.security.argument_schemas import ArgumentSchemas\n"
        "ArgumentSchemas({})\n"
        "try: ArgumentSchemas({'t': {}})\n"
        "except ModuleNotFoundError as error: print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout == (
        "schemas of arguments need the library `jsonschema-rs`; install it with `pip install 'cpex[schemas]'`\n"
    )


async def test_every_tool_in_a_message_is_judged(configure: Configure) -> None:
    rules = [{"servers": ["files"], "allowed_tools": ["get"]}]
    plugin = ToolAllowListPlugin(configure(allowed_tools=["search"], rules=rules, schemas={"get": {"required": ["k"]}}))

    async def judged(*parts: Any) -> str | None:
        payload = MessagePayload(message=Message(role=Role.ASSISTANT, content=list(parts)))
        result = await getattr(plugin, "cmf.llm_output")(payload, asking())
        return result.violation.code if result.violation else None

    def calling(name: str, **fields: Any) -> ToolCallContentPart:
        return ToolCallContentPart(content=ToolCall(tool_call_id="1", name=name, **fields))

    answer = ToolResultContentPart(content=ToolResult(tool_call_id="1", tool_name="shell", content="x"))
    assert await judged(TextContent(text="hi"), calling("search")) is None
    assert await judged(calling("search"), calling("get")) == "TOOL_NOT_ALLOWED"
    assert await judged(calling("get", namespace="files")) == "TOOL_ARGS_INVALID"
    assert await judged(calling("get", namespace="files", arguments={"k": 1})) is None
    assert await judged(answer) == "TOOL_NOT_ALLOWED"


@pytest.mark.parametrize(
    "settings",
    [
        {"allowed_tools": None},
        {"allowed_tools": "search"},
        {"alowed_tools": []},
        {"rules": [{"allowed_tools": ["a"]}]},
        {"rules": [{"tenants": ["a"]}]},
        {"schemas": {"t": "object"}},
    ],
)
def test_a_list_that_is_none_stops_the_start(configure: Configure, settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        ToolAllowListPlugin(configure(**settings))
