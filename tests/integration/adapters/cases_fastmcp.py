"""The guard in a real FastMCP server, asked by its real client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastmcp import Client, FastMCP
from fastmcp.exceptions import ToolError
from integration.adapters.handlers import crash, echo_of_asked, mask, rewriting
from mcp import MCPError
from support import allow, deny, manager_of, plugin

from cpex.adapters.fastmcp import GuardMiddleware
from cpex.framework import PluginResult, PluginViolation

PRE, POST = "tool_pre_invoke", "tool_post_invoke"
ALL = [PRE, POST, "prompt_pre_fetch", "prompt_post_fetch", "resource_pre_fetch", "resource_post_fetch"]


def server_of(*plugins: Any, **options: Any) -> FastMCP:
    server = FastMCP("shop")

    @server.tool
    async def search(q: str) -> str:
        return f"found {q}"

    @server.tool
    async def weigh(item: str) -> dict[str, Any]:
        return {"item": item, "grams": 5}

    @server.tool
    async def look_up(q: str) -> str:
        return f"looked up {q}"

    @server.prompt
    async def greet(name: str) -> str:
        return f"say hello to {name}"

    @server.resource("file:///{name}")
    async def read(name: str) -> str:
        return f"content of {name}"

    if plugins:
        server.add_middleware(GuardMiddleware(manager_of(*plugins), **options))
    return server


@asynccontextmanager
async def client_of(*plugins: Any, **options: Any) -> AsyncIterator[Client]:
    async with asyncio.timeout(30), Client(server_of(*plugins, **options)) as client:
        yield client


async def asked(client: Client) -> list[Any]:
    return [
        (await client.call_tool("search", {"q": "tea"})).structured_content,
        (await client.call_tool("weigh", {"item": "tea"})).structured_content,
        await client.get_prompt("greet", {"name": "ann"}),
        await client.read_resource("file:///a"),
        await client.list_tools(),
    ]


async def test_what_no_plugin_objects_to_passes_as_it_is() -> None:
    async with client_of(plugin(allow, hooks=ALL)) as client:
        guarded = await asked(client)
    async with client_of() as client:
        assert guarded == await asked(client)


async def test_a_denied_tool_is_a_tool_error_that_says_why() -> None:
    async with client_of(plugin(deny)) as client:
        with pytest.raises(ToolError, match=r"denied: because \(NO\)"):
            await client.call_tool("search", {"q": "tea"})


@pytest.mark.parametrize("hook", ["prompt_pre_fetch", "resource_post_fetch"])
async def test_a_denied_prompt_or_resource_is_an_error_that_says_why(hook: str) -> None:
    async with client_of(plugin(deny, hooks=[hook])) as client:
        with pytest.raises(MCPError, match=r"denied: because \(NO\)"):
            await (client.get_prompt("greet", {"name": "a"}) if "prompt" in hook else client.read_resource("file:///a"))


async def test_the_error_code_of_a_violation_reaches_the_client() -> None:
    async def refuse(payload: Any, context: Any) -> PluginResult[Any]:
        violation = PluginViolation(reason="not here", description="", code="X", mcp_error_code=-32050)
        return PluginResult(continue_processing=False, violation=violation)

    async with client_of(plugin(refuse, hooks=["resource_pre_fetch"])) as client:
        with pytest.raises(MCPError) as caught:
            await client.read_resource("file:///a")
    assert caught.value.code == -32050


async def test_arguments_names_and_addresses_are_rewritten() -> None:
    async with client_of(
        plugin(rewriting(name="look_up", args={"q": "green tea"}), "tool"),
        plugin(rewriting(args={"name": "bob"}), "prompt", hooks=["prompt_pre_fetch"]),
        plugin(rewriting(uri="file:///b"), "resource", hooks=["resource_pre_fetch"]),
    ) as client:
        assert (await client.call_tool("search", {"q": "coffee"})).data == "looked up green tea"
        assert (await client.get_prompt("greet", {"name": "ann"})).messages[0].content.text == "say hello to bob"
        assert (await client.read_resource("file:///a"))[0].text == "content of b"


async def test_results_are_rewritten_by_plugins_of_the_common_format() -> None:
    hooks = ["cmf.tool_post_invoke", "cmf.prompt_post_fetch", "cmf.resource_post_fetch"]
    async with client_of(plugin(mask, hooks=hooks)) as client:
        tool = await client.call_tool("search", {"q": "secret"})
        assert (tool.data, tool.content[0].text) == ("found ***", "found ***")
        assert (await client.get_prompt("greet", {"name": "secret"})).messages[0].content.text == "say hello to ***"
        assert (await client.read_resource("file:///secret"))[0].text == "content of ***"


async def test_state_goes_from_pre_to_post_and_parallel_calls_are_kept_apart() -> None:
    def answer(text: str) -> dict[str, Any]:
        return {"content": [{"type": "text", "text": text}], "structuredContent": {"result": text}}

    both = echo_of_asked(3, answer)
    async with client_of(both) as client:
        results = await asyncio.gather(*(client.call_tool("search", {"q": q}) for q in "abc"))
    assert [result.data for result in results] == ["a", "b", "c"]


async def test_a_plugin_that_fails_is_an_error_that_tells_nothing_of_the_inside() -> None:
    async with client_of(plugin(crash, "guard")) as client:
        with pytest.raises(ToolError, match="plugin guard failed, so the request was not handled"):
            await client.call_tool("search", {"q": "tea"})


async def test_what_the_host_knows_is_told_to_plugins() -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append((context.global_context.user, context.global_context.tenant_id))
        return PluginResult()

    async with client_of(plugin(look), facts=lambda context: {"user": "ann", "tenant_id": context.method}) as client:
        await client.call_tool("search", {"q": "tea"})
    assert seen == [("ann", "tools/call")]
