"""What plugins know of a request: who asks, with which headers, of which server, and what is known of the thing."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
from integration.proxy.servers import TIMEOUT_S, client_of, plugins
from integration.proxy.test_http import listening, running
from integration.proxy.test_lists import CATALOGUE, behind
from mcp import ClientSession, types
from mcp.client.streamable_http import streamable_http_client
from ports import free_port

SEEING = """
import json
from cpex.framework import Plugin, PluginResult


class Seeing(Plugin):
    def _seen(self, context, extensions):
        shared = context.global_context
        known = {key: value for key, value in shared.metadata.items() if key != "session_id"}
        http = extensions.http if extensions is not None else None
        mcp = extensions.mcp if extensions is not None else None
        return {
            "plugin": self.name,
            "server": shared.server_id,
            "known": known,
            "authorization": http.headers.get("authorization") if http is not None else None,
            "mcp": mcp.model_dump(exclude_defaults=True) if mcp is not None else None,
        }

    async def tool_post_invoke(self, payload, context, extensions):
        text = json.dumps(self._seen(context, extensions))
        content = [*payload.result["content"], {"type": "text", "text": text}]
        result = {**payload.result, "content": content}
        return PluginResult(modified_payload=payload.model_copy(update={"result": result}))

    async def prompt_post_fetch(self, payload, context, extensions):
        payload.result.messages[0].content.text = json.dumps(self._seen(context, extensions))
        return PluginResult(modified_payload=payload)

    async def resource_post_fetch(self, payload, context, extensions):
        text = json.dumps(self._seen(context, extensions))
        contents = [{**each, "text": text} for each in payload.content["contents"]]
        return PluginResult(modified_payload=payload.model_copy(update={"content": {"contents": contents}}))

    async def tool_list(self, payload, context, extensions):
        named = [{**tool, "description": json.dumps(self._seen(context, extensions))} for tool in payload.tools]
        return PluginResult(modified_payload=payload.model_copy(update={"tools": named}))
"""
HOOKS = "mode: sequential, kind: seeing.Seeing, hooks: [tool_post_invoke, prompt_post_fetch, resource_post_fetch]"
ME = types.Implementation(name="a-client", version="3")
CLIENT = {"client": {"name": "a-client", "version": "3"}, "protocol_version": "2025-11-25"}


def config(folder: Path, *entries: str) -> Path:
    (folder / "seeing.py").write_text(SEEING, encoding="utf-8")
    return plugins(folder, f"plugin_dirs: [{folder}]\nplugins:\n" + "".join(f"  - {{{each}}}\n" for each in entries))


async def test_headers_are_seen_by_plugins_that_may_read_them(tmp_path: Path) -> None:
    port = free_port()
    configured = config(
        tmp_path,
        f"name: reader, capabilities: [read_headers], {HOOKS}",
        f"name: other, {HOOKS}",
        "name: lister, capabilities: [read_headers], kind: seeing.Seeing, mode: sequential, hooks: [tool_list]",
    )
    server = ["--", *CATALOGUE, "pipes"]
    async with (
        asyncio.timeout(TIMEOUT_S),
        running(listening(configured, *server, port=port), "The proxy listens"),
        httpx2.AsyncClient(headers={"authorization": "Bearer hunter2"}, timeout=TIMEOUT_S) as http,
        streamable_http_client(f"http://127.0.0.1:{port}/mcp", http_client=http) as (read, write),
        ClientSession(read, write, client_info=ME) as session,
    ):
        await session.initialize()
        result = await session.call_tool("tool-01", {})
        _, reader, other = (json.loads(each.text) if "{" in each.text else None for each in result.content)
        assert (reader["authorization"], other["authorization"]) == ("Bearer hunter2", None)
        assert reader["known"] == other["known"] == CLIENT
        listed = json.loads((await session.list_tools()).tools[0].description or "")
        assert (listed["authorization"], listed["known"]) == ("Bearer hunter2", CLIENT)


async def test_the_thing_that_is_used_is_named_with_its_server(tmp_path: Path) -> None:
    configured = config(tmp_path, f"name: other, {HOOKS}")
    async with (
        asyncio.timeout(TIMEOUT_S),
        client_of(behind(["--name", "shelf", "--", *CATALOGUE, "pipes"], configured), client_info=ME) as session,
    ):

        async def seen_of_call() -> Any:
            return json.loads((await session.call_tool("tool-01", {})).content[1].text)["mcp"]

        tool = {"name": "tool-01", "server_id": "shelf", "namespace": "shelf"}
        assert await seen_of_call() == {"tool": tool}
        await session.list_tools()
        annotations = {"readOnlyHint": True}
        assert await seen_of_call() == {"tool": {**tool, "title": "Tool 1", "annotations": annotations}}
        prompt = (await session.get_prompt("prompt-01")).messages[0].content.text
        assert json.loads(prompt) == {
            "plugin": "other",
            "server": "shelf",
            "known": CLIENT,
            "authorization": None,
            "mcp": {"prompt": {"name": "prompt-01", "server_id": "shelf"}},
        }
        await session.list_resources()
        text = (await session.read_resource("shelf://one/01")).contents[0].text
        assert json.loads(text)["mcp"] == {
            "resource": {"uri": "shelf://one/01", "name": "01", "server_id": "shelf"},
        }


async def test_plugins_are_selected_by_the_server_that_is_asked(tmp_path: Path) -> None:
    child = {"command": CATALOGUE[0], "args": [*CATALOGUE[1:], "pipes"]}
    servers = {"mcpServers": {"near": child, "far": child}}
    (tmp_path / "servers.json").write_text(json.dumps(servers), encoding="utf-8")
    configured = config(tmp_path, f"name: other, conditions: [{{server_ids: [far]}}], {HOOKS}")
    async with (
        asyncio.timeout(TIMEOUT_S),
        client_of(behind(["--servers", str(tmp_path / "servers.json")], configured)) as session,
    ):
        assert len((await session.call_tool("near__tool-01", {})).content) == 1
        _, seen = (await session.call_tool("far__tool-01", {})).content
        tool = json.loads(seen.text)["mcp"]["tool"]
        assert (tool["name"], tool["server_id"], tool["namespace"]) == ("tool-01", "far", "far")
