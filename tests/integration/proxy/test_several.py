"""Several servers behind one proxy, each under its own name."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from integration.proxy.servers import TIMEOUT_S, Command, client_of, node_server, plugins
from integration.proxy.test_everything import Client, outcome
from mcp import MCPError

BREAKING = [sys.executable, str(Path(__file__).with_name("breaking.py"))]
ONLY_READING = """
plugins:
  - name: tools
    kind: security.ToolAllowListPlugin
    mode: sequential
    hooks: [tool_list, tool_pre_invoke]
    config:
      rules: [{servers: [files], allowed_tools: ["read_*"]}]
      allowed_tools: ["*"]
  - {name: lists, kind: hiding.Hiding, mode: sequential, hooks: [prompt_list, resource_list, prompt_post_fetch]}
"""
HIDING = """
from cpex.framework import Plugin, PluginResult, PluginViolation


class Hiding(Plugin):
    async def prompt_list(self, payload, context):
        kept = [prompt for prompt in payload.prompts if prompt["name"] != "simple-prompt"]
        return PluginResult(modified_payload=payload.model_copy(update={"prompts": kept}))

    async def resource_list(self, payload, context):
        named = [{**template, "description": context.global_context.server_id} for template in payload.templates]
        return PluginResult(modified_payload=payload.model_copy(update={"templates": named}))

    async def prompt_post_fetch(self, payload, context):
        violation = PluginViolation(reason="no", description="not at all", code="NO", mcp_error_code=-32050)
        return PluginResult(continue_processing=False, violation=violation)
"""


def entry(command: Command) -> dict[str, Any]:
    return {"command": command[0], "args": command[1:]}


def behind(folder: Path, servers: dict[str, Command]) -> Command:
    listed = {"mcpServers": {name: entry(command) for name, command in servers.items()}}
    (folder / "servers.json").write_text(json.dumps(listed), encoding="utf-8")
    (folder / "hiding.py").write_text(HIDING, encoding="utf-8")
    config = plugins(folder, f"plugin_dirs: [{folder}]\n{ONLY_READING}")
    own = [sys.executable, "-m", "cpex.tools.cli", "proxy", "--config", str(config), "--log-level", "ERROR"]
    return [*own, "--servers", str(folder / "servers.json")]


@pytest.fixture
def two(tmp_path: Path) -> Command:
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "a.txt").write_text("of a file", encoding="utf-8")
    files = [*node_server("server-filesystem"), str(tmp_path / "files")]
    return behind(tmp_path, {"all": node_server("server-everything"), "files": files})


async def test_tools_carry_the_name_of_their_server_and_rules_see_it(two: Command, tmp_path: Path) -> None:
    async with asyncio.timeout(TIMEOUT_S), client_of(two) as session:
        names = {tool.name for tool in (await session.list_tools()).tools}
        assert {"all__echo", "all__get-sum", "files__read_text_file"} <= names
        assert not any(name.startswith("files__write") for name in names)
        assert (await session.call_tool("all__echo", {"message": "hi"})).content[0].text == "Echo: hi"
        read = await session.call_tool("files__read_text_file", {"path": str(tmp_path / "files" / "a.txt")})
        assert read.content[0].text == "of a file"
        wrote = await session.call_tool("files__write_file", {"path": "b", "content": "x"})
        assert wrote.is_error
        for name in ("echo", "other__echo", "all_echo"):
            assert (await outcome(session.call_tool(name, {})))["code"] == -32602


async def test_prompts_and_resources_are_found_by_their_servers(two: Command) -> None:
    async with asyncio.timeout(TIMEOUT_S), client_of(two) as session:
        assert next(each.name for each in (await session.list_prompts()).prompts) == "all__args-prompt"
        with pytest.raises(MCPError, match=r"denied: no \[NO\]") as caught:
            await session.get_prompt("all__args-prompt", {"city": "Berlin"})
        assert caught.value.error.code == -32050
        assert caught.value.error.data["cpex/violation"]["plugin"] == "lists"
        assert (await outcome(session.read_resource("demo://resource/dynamic/text/1")))["code"] == -32602
        assert (await session.list_resource_templates()).resource_templates[0].description == "all"
        assert (await session.read_resource("demo://resource/dynamic/text/1")).contents
        listed = await session.list_resources()
        assert (await session.read_resource(listed.resources[0].uri)).contents


async def test_what_servers_ask_goes_to_the_client_and_back_to_whoever_asked(two: Command) -> None:
    client = Client()
    async with asyncio.timeout(TIMEOUT_S), client_of(two, **client.callbacks()) as session:
        asked = session.call_tool("all__trigger-sampling-request", {"prompt": "say", "maxTokens": 5})
        answers = await asyncio.gather(asked, session.call_tool("all__trigger-elicitation-request", {}))
        assert "a sample" in answers[0].content[0].text + str(answers[0].content)
        assert "Ada" in str(answers[1].content)


async def test_a_server_that_is_missing_or_dies_leaves_the_others(tmp_path: Path) -> None:
    servers = {"gone": ["no-such-server"], "dying": BREAKING, "all": node_server("server-everything")}
    async with asyncio.timeout(TIMEOUT_S), client_of(behind(tmp_path, servers)) as session:
        assert (await outcome(session.call_tool("gone__x", {})))["code"] == -32000
        assert "status 3" in (await outcome(session.call_tool("dying__die", {})))["message"]
        assert {tool.name.partition("__")[0] for tool in (await session.list_tools()).tools} == {"all"}
        assert not (await session.call_tool("all__echo", {"message": "hi"})).is_error
