"""The processes that are measured: `python -m benchmarks.proxy.parts echo-pipes | echo-http | bare-pipes | bare-http`.

The bare proxies do what is least with the SDK: over pipes they hand messages from one stream to the other, over HTTP a
server forwards each call through one client session. Neither looks at anything.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import mcp_types as types
import uvicorn
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.lowlevel import Server
from mcp.server.stdio import stdio_server

SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}}}


async def _list(_: Any, __: Any) -> types.ListToolsResult:
    return types.ListToolsResult(tools=[types.Tool(name="echo", description="Echo.", input_schema=SCHEMA)])


async def _echo(_: Any, params: types.CallToolRequestParams) -> types.CallToolResult:
    text = str((params.arguments or {}).get("text"))
    return types.CallToolResult(content=[types.TextContent(type="text", text=text)])


async def echo_pipes() -> None:
    """A server over pipes."""
    server = Server("echo", on_list_tools=_list, on_call_tool=_echo)
    async with stdio_server() as (read, write):
        await server.run(read, write, server.create_initialization_options())


async def echo_http(port: str) -> None:
    """A server over HTTP."""
    await _serve(Server("echo", on_list_tools=_list, on_call_tool=_echo), int(port))


async def bare_pipes(*command: str) -> None:
    """A proxy over pipes: two streams, tied together."""
    parameters = StdioServerParameters(command=command[0], args=list(command[1:]))
    async with stdio_client(parameters) as (server_read, server_write), stdio_server() as (read, write):

        async def forward(source: Any, sink: Any) -> None:
            async for message in source:
                if not isinstance(message, Exception):
                    await sink.send(message)
            tasks.cancel_scope.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(forward, read, server_write)
            tasks.start_soon(forward, server_read, write)


async def bare_http(port: str, url: str) -> None:
    """A proxy over HTTP: a server that asks another one."""
    async with streamable_http_client(url) as (read, write), ClientSession(read, write) as session:
        await session.initialize()

        async def listing(_: Any, __: Any) -> types.ListToolsResult:
            return await session.list_tools()

        async def call(_: Any, params: types.CallToolRequestParams) -> Any:
            return await session.call_tool(params.name, params.arguments)

        await _serve(Server("bare", on_list_tools=listing, on_call_tool=call), int(port))


async def _serve(server: Server[Any], port: int) -> None:
    config = uvicorn.Config(server.streamable_http_app(), port=port, log_level="error")
    await uvicorn.Server(config).serve()


PARTS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    "echo-pipes": echo_pipes,
    "echo-http": echo_http,
    "bare-pipes": bare_pipes,
    "bare-http": bare_http,
}

if __name__ == "__main__":
    asyncio.run(PARTS[sys.argv[1]](*sys.argv[2:]))
