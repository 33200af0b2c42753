"""The guard in a real FastMCP server, asked by its real client."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from fastmcp import Client, FastMCP
from fastmcp.client.transports import StreamableHttpTransport
from fastmcp.exceptions import ToolError
from fastmcp.prompts.base import Message, PromptResult
from fastmcp.resources.base import ResourceContent, ResourceResult
from fastmcp.tools.base import ToolResult
from integration.adapters.handlers import crash, echo_of_asked, hooks_of, mask, recorders, rewriting, without
from integration.adapters.serving import serving
from mcp import MCPError
from mcp.types import TextContent
from pydantic_core import to_jsonable_python
from support import allow, deny, manager_of, plugin

from cpex.adapters.fastmcp import GuardMiddleware
from cpex.adapters.mcp_server import DENIED
from cpex.framework import PluginResult, PluginViolation
from cpex.framework.models.coverage import CoverageConfig, CoverageMode

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

    mandatory = options.pop("coverage", [])
    coverage = CoverageConfig(mode=CoverageMode.RAISE, mandatory=mandatory) if mandatory else None
    if plugins:
        server.add_middleware(GuardMiddleware(manager_of(*plugins, coverage=coverage), **options))
    return server


@asynccontextmanager
async def client_of(*plugins: Any, **options: Any) -> AsyncIterator[Client]:
    async with asyncio.timeout(60), Client(server_of(*plugins, **options)) as client:
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


async def test_metadata_of_results_is_seen_and_rewritten_as_well() -> None:
    async def redact(payload: Any, context: Any) -> PluginResult[Any]:
        field = "content" if hasattr(payload, "content") else "result"
        # Of a prompt plugins have attributes, of the others keys.
        told = to_jsonable_python(getattr(payload, field))
        meta = {**told["_meta"], "note": told["_meta"]["note"].replace("secret", "***")}
        return PluginResult(modified_payload=payload.model_copy(update={field: {**told, "_meta": meta}}))

    server = server_of(plugin(redact, hooks=["tool_post_invoke", "prompt_post_fetch", "resource_post_fetch"]))
    meta = {"note": "a secret"}

    @server.tool
    async def noted() -> ToolResult:
        return ToolResult([TextContent(type="text", text="done")], meta=meta)

    @server.prompt
    async def hint() -> PromptResult:
        return PromptResult([Message("hello")], meta=meta)

    @server.resource("file:///notes/kept")
    async def kept() -> ResourceResult:
        return ResourceResult([ResourceContent("text")], meta=meta)

    async with asyncio.timeout(60), Client(server) as client:
        results = [
            await client.call_tool_mcp("noted", {}),
            await client.get_prompt_mcp("hint"),
            await client.read_resource_mcp("file:///notes/kept"),
        ]
    assert [result.meta["note"] for result in results] == ["a ***"] * 3


def on_the_wire(text: str) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], "structuredContent": {"result": text}}


async def test_state_goes_from_pre_to_post_and_parallel_calls_are_kept_apart() -> None:
    both = echo_of_asked(3, on_the_wire)
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


async def test_lists_are_filtered_and_described_by_plugins() -> None:
    async with client_of(
        plugin(without("tools", "search"), "tools", hooks=["tool_list"]),
        plugin(without("prompts", "greet"), "prompts", hooks=["prompt_list"]),
        plugin(without("templates"), "resources", hooks=["resource_list"]),
    ) as client:
        tools = await client.list_tools()
        assert [(each.name, each.description) for each in tools] == [
            ("weigh", "looked at: weigh"),
            ("look_up", "looked at: look_up"),
        ]
        assert tools[0].input_schema["properties"] == {"item": {"type": "string"}}
        assert await client.list_prompts() == []
        assert [each.description for each in await client.list_resource_templates()] == ["looked at: read"]
        # What is hidden can still be called by name.
        assert (await client.call_tool("search", {"q": "tea"})).data == "found tea"


async def test_a_denied_list_is_an_error_that_says_why() -> None:
    async with client_of(plugin(deny, hooks=["tool_list"])) as client:
        with pytest.raises(MCPError, match=r"denied: because \(NO\)") as caught:
            await client.list_tools()
    assert caught.value.code == DENIED


async def test_what_cannot_be_rewritten_in_a_list_is_an_error_and_not_dropped() -> None:
    tool = {"name": "search", "inputSchema": {}, "annotations": {"readOnlyHint": True}}
    for listed in ([{"name": "new", "inputSchema": {}}], [tool]):
        async with client_of(plugin(rewriting(tools=listed), hooks=["tool_list"])) as client:
            with pytest.raises(MCPError):
                await client.list_tools()


async def test_over_http_plugins_see_the_headers_and_keep_their_state_apart() -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        seen.append(extensions.http.headers["x-desk"])
        return PluginResult()

    both = echo_of_asked(2, on_the_wire)
    app = server_of(plugin(look, "look", capabilities=["read_headers"]), both, hidden()).http_app()
    async with asyncio.timeout(60), serving(app) as address, desk(address, "1") as first, desk(address, "2") as second:
        results = await asyncio.gather(first.call_tool("look_up", {"q": "a"}), second.call_tool("look_up", {"q": "b"}))
        assert [each.name for each in await first.list_tools()] == ["weigh", "look_up"]
        assert len(await second.list_tools()) == 3
    assert [result.content[0].text for result in results] == ["a", "b"]
    assert sorted(seen) == ["1", "2"]


def hidden() -> Any:
    """Hides a tool from whoever sits at the first desk."""

    async def hide(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        names = ["search"] if extensions.http.headers["x-desk"] == "1" else []
        left = [each for each in payload.tools if each["name"] not in names]
        return PluginResult(modified_payload=payload.model_copy(update={"tools": left}))

    return plugin(hide, "hide", hooks=["tool_list"], capabilities=["read_headers"])


def desk(address: str, number: str) -> Client:
    return Client(StreamableHttpTransport(f"{address}/mcp", headers={"x-desk": number}))


async def test_mandatory_hooks_that_no_plugin_handles_stop_the_call(caplog: pytest.LogCaptureFixture) -> None:
    async with client_of(plugin(allow), coverage=[POST]) as client:
        with pytest.raises(ToolError, match="the guard failed, so the request was not handled"):
            await client.call_tool("search", {"q": "tea"})
    assert "tool `search` went past mandatory hook `tool_post_invoke`" in caplog.text


async def test_the_hooks_that_fire_are_those_of_the_table() -> None:
    seen: set[str] = set()
    async with client_of(*recorders(seen)) as client:
        await asked(client)
        await client.list_prompts()
        await client.list_resources()
    assert seen == hooks_of("FastMCP")
