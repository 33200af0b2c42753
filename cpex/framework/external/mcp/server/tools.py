"""A plugin server as an MCP server: three tools, whose results are text items that hold JSON.

Source: docs/reference/external.md, "MCP".
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from mcp_types import CallToolRequestParams, CallToolResult, ListToolsResult, TextContent, Tool

from cpex.framework.constants import (
    CONTEXT,
    GET_PLUGIN_CONFIG,
    GET_PLUGIN_CONFIGS,
    HOOK_TYPE,
    INVOKE_HOOK,
    MCP_SERVER_INSTRUCTIONS,
    MCP_SERVER_NAME,
    NAME,
    PAYLOAD,
    PLUGIN_NAME,
    RESULT,
)
from cpex.framework.external.mcp.link import FRAME
from cpex.framework.external.mcp.messages import frame_of, text_of_frame
from cpex.framework.external.port import Service, plain_answer

if TYPE_CHECKING:
    from mcp.server.lowlevel.server import Server

__all__ = ["call_tool", "mcp_server_of"]

_TEXT, _OBJECT = {"type": "string"}, {"type": "object", "additionalProperties": True}
Schema: TypeAlias = dict[str, Any]


def _takes(**properties: Schema) -> Schema:
    return {"type": "object", "properties": properties, "required": list(properties)}


_CONFIGS = {
    "type": "object",
    "properties": {RESULT: {"type": "array", "items": _OBJECT}},
    "required": [RESULT],
}
# `frame` is no part of the schema: who uses it has been told of it, and nobody else needs to see it.
TOOLS = [
    Tool(
        name=GET_PLUGIN_CONFIGS,
        description="The configuration of every plugin of this server.",
        input_schema=_takes(),
        output_schema=_CONFIGS,
    ),
    Tool(name=GET_PLUGIN_CONFIG, description="The configuration of one plugin.", input_schema=_takes(name=_TEXT)),
    Tool(
        name=INVOKE_HOOK,
        description="Run one hook of one plugin.",
        input_schema=_takes(hook_type=_TEXT, plugin_name=_TEXT, payload=_OBJECT, context=_OBJECT),
    ),
]


def mcp_server_of(service: Service) -> Server[Any]:
    """An MCP server that answers from a service, over whatever it is run on."""
    from mcp.server.lowlevel.server import Server

    async def list_tools(_: Any, __: Any) -> ListToolsResult:
        return ListToolsResult(tools=TOOLS)

    async def on_call(_: Any, params: CallToolRequestParams) -> CallToolResult:
        return await call_tool(service, params.name, params.arguments or {})

    return Server(MCP_SERVER_NAME, instructions=MCP_SERVER_INSTRUCTIONS, on_list_tools=list_tools, on_call_tool=on_call)


async def call_tool(service: Service, name: str, arguments: dict[str, Any]) -> CallToolResult:
    """Answer a call. What is wrong with the call is an answer too."""
    fault = _fault(name, arguments)
    if fault:
        return CallToolResult(content=[TextContent(type="text", text=fault)], is_error=True)
    if name == GET_PLUGIN_CONFIGS:
        configs = await service.get_plugin_configs()
        return CallToolResult(content=[_item(each) for each in configs], structured_content={RESULT: configs})
    if name == GET_PLUGIN_CONFIG:
        return CallToolResult(content=[_item(await service.get_plugin_config(arguments[NAME]) or {})])
    if FRAME in arguments:
        answer = text_of_frame(await service.exchange(frame_of(arguments[FRAME])))
        return CallToolResult(content=[TextContent(type="text", text=answer)])
    plain = await service.invoke_hook(*(arguments[each] for each in (HOOK_TYPE, PLUGIN_NAME, PAYLOAD, CONTEXT)))
    return CallToolResult(content=[_item(plain_answer(plain))])


def _item(value: dict[str, Any]) -> TextContent:
    # What JSON has no word for becomes text, as in release 0.1.
    return TextContent(type="text", text=json.dumps(value, default=str))


def _fault(name: str, arguments: dict[str, Any]) -> str:
    """What is wrong with a call; empty when nothing is."""
    tool = next((each for each in TOOLS if each.name == name), None)
    if tool is None:
        return f"Unknown tool: {name[:100]}; this server has {', '.join(each.name for each in TOOLS)}"
    kinds: dict[str, type] = {"string": str, "object": dict}
    expected = {key: kinds[value["type"]] for key, value in tool.input_schema["properties"].items()}
    if name == INVOKE_HOOK and FRAME in arguments:
        expected[FRAME] = str
    faults = [
        f"{key}: {'Field required' if key not in arguments else f'must be a {kind.__name__}'}"
        for key, kind in expected.items()
        if not isinstance(arguments.get(key), kind)
    ]
    return f"Error executing tool {name}: {'; '.join(faults)}" if faults else ""
