"""The guard in real servers of the MCP SDK, asked by its real client."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from integration.adapters.handlers import crash, hooks_of, recorders, rewriting, without
from integration.adapters.serving import serving
from mcp import Client, MCPError
from mcp.server import MCPServer
from support import allow, deny, manager_of, plugin

from cpex.adapters.mcp_server import DENIED, McpGuard
from cpex.framework import PluginResult, PluginViolation, TenantPluginManager
from cpex.framework.cmf.rewrite import rewrite_text
from cpex.framework.models.config import Config
from cpex.framework.models.coverage import CoverageConfig, CoverageMode

PRE, POST = "tool_pre_invoke", "tool_post_invoke"
MODES = pytest.mark.parametrize("mode", ["auto", "legacy"])


def server_of(manager: TenantPluginManager, **options: Any) -> MCPServer:
    server = MCPServer("shop")

    @server.tool()
    async def search(q: str) -> str:
        return f"found {q}"

    @server.tool()
    async def weigh(item: str) -> dict[str, Any]:
        return {"item": item, "grams": 5}

    @server.tool()
    async def look_up(q: str) -> str:
        return f"looked up {q}"

    @server.prompt()
    async def greet(name: str) -> str:
        return f"say hello to {name}"

    @server.resource("file:///{name}")
    async def read(name: str) -> str:
        return f"content of {name}"

    server.middleware.append(McpGuard(manager, **options))
    return server


@asynccontextmanager
async def client_of(manager: TenantPluginManager, mode: Any = "auto", **options: Any) -> AsyncIterator[Client]:
    async with asyncio.timeout(60), Client(server_of(manager, **options), mode=mode) as client:
        yield client


async def mask(payload: Any, context: Any) -> PluginResult[Any]:
    """Replaces a word in the text blocks of a result."""
    text = re.sub("tea", "***", payload.result["content"][0]["text"])
    result = {**payload.result, "content": [{"type": "text", "text": text}], "structuredContent": {"result": text}}
    return PluginResult(modified_payload=payload.model_copy(update={"result": result}))


@MODES
async def test_what_no_plugin_objects_to_passes_as_it_is(mode: str) -> None:
    hooks = [PRE, POST, "prompt_pre_fetch", "prompt_post_fetch", "resource_pre_fetch", "resource_post_fetch"]
    async with client_of(manager_of(plugin(allow, hooks=hooks)), mode) as client:
        guarded = [
            await client.call_tool("search", {"q": "tea"}),
            await client.call_tool("weigh", {"item": "tea"}),
            await client.get_prompt("greet", {"name": "ann"}),
            await client.read_resource("file:///a"),
            await client.list_tools(),
        ]
    async with client_of(TenantPluginManager(Config()), mode) as client:
        bare = [
            await client.call_tool("search", {"q": "tea"}),
            await client.call_tool("weigh", {"item": "tea"}),
            await client.get_prompt("greet", {"name": "ann"}),
            await client.read_resource("file:///a"),
            await client.list_tools(),
        ]
    assert guarded == bare


@MODES
async def test_a_denied_tool_is_answered_with_a_result_that_says_why(mode: str) -> None:
    async with client_of(manager_of(plugin(deny)), mode) as client:
        result = await client.call_tool("search", {"q": "tea"})
    assert result.is_error
    assert [block.model_dump()["text"] for block in result.content] == ["denied: because (NO)"]
    assert result.meta is not None
    assert result.meta["cpex/violation"] == {"code": "NO", "reason": "because"}


@MODES
@pytest.mark.parametrize("hook", ["prompt_pre_fetch", "resource_post_fetch"])
async def test_a_denied_prompt_or_resource_is_answered_with_an_error(hook: str, mode: str) -> None:
    async with client_of(manager_of(plugin(deny, hooks=[hook])), mode) as client:
        with pytest.raises(MCPError) as caught:
            await (client.get_prompt("greet", {"name": "a"}) if "prompt" in hook else client.read_resource("file:///a"))
    assert (caught.value.code, caught.value.message) == (DENIED, "denied: because")
    assert caught.value.data == {"code": "NO", "reason": "because"}


async def test_the_error_code_of_a_violation_counts_for_tools_as_well() -> None:
    async def refuse(payload: Any, context: Any) -> PluginResult[Any]:
        violation = PluginViolation(reason="not here", description="", code="X", mcp_error_code=-32050)
        return PluginResult(continue_processing=False, violation=violation)

    async with client_of(manager_of(plugin(refuse))) as client:
        with pytest.raises(MCPError, match="denied: not here") as caught:
            await client.call_tool("search", {"q": "tea"})
    assert caught.value.code == -32050


@MODES
async def test_arguments_and_results_are_rewritten(mode: str) -> None:
    manager = manager_of(plugin(rewriting(args={"q": "green tea"}), "pre"), plugin(mask, "post", hooks=[POST]))
    async with client_of(manager, mode) as client:
        result = await client.call_tool("search", {"q": "coffee"})
    assert [block.model_dump()["text"] for block in result.content] == ["found green ***"]
    assert result.structured_content == {"result": "found green ***"}


async def test_a_rewritten_name_or_address_is_what_the_server_answers_for() -> None:
    manager = manager_of(
        plugin(rewriting(name="look_up"), "tool"),
        plugin(rewriting(uri="file:///b"), "resource", hooks=["resource_pre_fetch"]),
    )
    async with client_of(manager) as client:
        assert (await client.call_tool("search", {"q": "tea"})).structured_content == {"result": "looked up tea"}
        content = (await client.read_resource("file:///a")).contents[0]
    assert content.model_dump()["text"] == "content of b"


async def test_plugins_of_the_common_format_rewrite_all_three() -> None:
    async def masked(payload: Any, context: Any) -> PluginResult[Any]:
        message = rewrite_text(payload.message, lambda leaf: leaf.text.replace("secret", "***"))
        return PluginResult(modified_payload=payload.model_copy(update={"message": message}))

    hooks = ["cmf.tool_post_invoke", "cmf.prompt_post_fetch", "cmf.resource_post_fetch"]
    async with client_of(manager_of(plugin(masked, hooks=hooks))) as client:
        tool = await client.call_tool("search", {"q": "secret"})
        prompt = await client.get_prompt("greet", {"name": "secret"})
        resource = await client.read_resource("file:///secret")
    assert tool.structured_content == {"result": "found ***"}
    assert prompt.messages[0].content.model_dump()["text"] == "say hello to ***"
    assert resource.contents[0].model_dump()["text"] == "content of ***"


async def test_state_goes_from_pre_to_post_and_parallel_calls_are_kept_apart() -> None:
    arrived = asyncio.Barrier(3)

    async def pre(payload: Any, context: Any) -> PluginResult[Any]:
        context.set_state("asked", payload.args["q"])
        await asyncio.wait_for(arrived.wait(), 60)
        return PluginResult()

    async def post(payload: Any, context: Any) -> PluginResult[Any]:
        result = {"content": [{"type": "text", "text": context.get_state("asked")}]}
        return PluginResult(modified_payload=payload.model_copy(update={"result": {**payload.result, **result}}))

    both = plugin(pre, hooks=[PRE, POST])
    both.tool_post_invoke = post
    async with client_of(manager_of(both)) as client:
        results = await asyncio.gather(*(client.call_tool("search", {"q": q}) for q in "abc"))
    assert [result.content[0].model_dump()["text"] for result in results] == ["a", "b", "c"]


@MODES
async def test_lists_are_filtered_and_described_by_plugins(mode: str) -> None:
    manager = manager_of(
        plugin(without("tools", "search"), "tools", hooks=["tool_list"]),
        plugin(without("prompts", "greet"), "prompts", hooks=["prompt_list"]),
        plugin(without("templates"), "resources", hooks=["resource_list"]),
    )
    async with client_of(manager, mode) as client:
        tools = (await client.list_tools()).tools
        assert [(each.name, each.description) for each in tools] == [
            ("weigh", "looked at: weigh"),
            ("look_up", "looked at: look_up"),
        ]
        assert (await client.list_prompts()).prompts == []
        templates = (await client.list_resource_templates()).resource_templates
        assert [each.description for each in templates] == ["looked at: read"]
        # What is hidden can still be called by name.
        assert not (await client.call_tool("search", {"q": "tea"})).is_error


async def test_a_denied_list_is_an_error_that_says_why() -> None:
    async with client_of(manager_of(plugin(deny, hooks=["tool_list"]))) as client:
        with pytest.raises(MCPError, match="denied: because") as caught:
            await client.list_tools()
    assert caught.value.code == DENIED


async def test_plugins_that_do_not_run_are_an_error_for_lists_as_well(caplog: pytest.LogCaptureFixture) -> None:
    manager = TenantPluginManager(Config(plugins=[{"name": "a", "kind": "a.B", "hooks": ["tool_list"]}]))
    async with client_of(manager) as client:
        with pytest.raises(MCPError, match="the guard failed, so the request was not handled"):
            await client.list_tools()
    assert "no plugins are running" in caplog.text


async def test_mandatory_hooks_that_no_plugin_handles_stop_the_call(caplog: pytest.LogCaptureFixture) -> None:
    coverage = CoverageConfig(mode=CoverageMode.RAISE, mandatory=[POST])
    async with client_of(manager_of(plugin(allow), coverage=coverage)) as client:
        with pytest.raises(MCPError, match="the guard failed, so the request was not handled"):
            await client.call_tool("search", {"q": "tea"})
    assert "tool `search` went past mandatory hook `tool_post_invoke`" in caplog.text


async def test_the_hooks_that_fire_are_those_of_the_table() -> None:
    seen: set[str] = set()
    async with client_of(manager_of(*recorders(seen))) as client:
        await client.call_tool("search", {"q": "tea"})
        await client.get_prompt("greet", {"name": "ann"})
        await client.read_resource("file:///a")
        await client.list_tools()
        await client.list_prompts()
        await client.list_resources()
    assert seen == hooks_of("MCP SDK")


async def test_a_plugin_that_fails_is_an_error_that_tells_nothing_of_the_inside() -> None:
    async with client_of(manager_of(plugin(crash, "guard"))) as client:
        with pytest.raises(MCPError) as caught:
            await client.call_tool("search", {"q": "tea"})
    assert caught.value.message == "plugin guard failed, so the request was not handled"


async def test_errors_of_the_server_itself_pass_through_the_hooks_as_results() -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(payload.result["isError"])
        return PluginResult()

    async with client_of(manager_of(plugin(look, hooks=[POST]))) as client:
        for name, args in (("search", {"wrong": 1}), ("no such tool", {})):
            assert (await client.call_tool(name, args)).is_error
    assert seen == [True, True]


@pytest.mark.parametrize("params", [None, {}, {"name": 5}, {"name": "search", "arguments": ["a"]}])
async def test_parameters_that_cannot_be_shown_are_left_to_the_server_to_refuse(params: Any) -> None:
    seen: list[Any] = []

    async def refuse(ctx: Any) -> None:
        seen.append(ctx.params)
        raise MCPError(-32602, "Invalid request parameters")

    # A client of the SDK does not send such a thing.
    ctx = SimpleNamespace(method="tools/call", request_id=1, params=params)
    with pytest.raises(MCPError):
        await McpGuard(manager_of(plugin(deny)))(ctx, refuse)
    assert seen == [params]


async def test_what_the_host_knows_is_told_to_plugins() -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append((context.global_context.user, context.global_context.tenant_id))
        return PluginResult()

    manager = manager_of(plugin(look))
    async with client_of(manager, facts=lambda ctx: {"user": "ann", "tenant_id": ctx.method}) as client:
        await client.call_tool("search", {"q": "tea"})
    assert seen == [("ann", "tools/call")]


async def test_over_http_plugins_see_the_headers_and_the_session() -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        headers = extensions.http.headers
        session = context.global_context.metadata.get("session_id")
        seen.append((headers["user-agent"].startswith("python-httpx"), session == headers.get("mcp-session-id")))
        return PluginResult()

    app = server_of(manager_of(plugin(look, capabilities=["read_headers"]))).streamable_http_app()
    async with asyncio.timeout(60), serving(app) as address, Client(f"{address}/mcp", mode="legacy") as client:
        assert (await client.call_tool("search", {"q": "tea"})).structured_content == {"result": "found tea"}
    assert seen == [(True, True)]
