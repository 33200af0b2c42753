"""Headers that repeat what stands in a message, for whoever routes by them on the way to a server.

Source: https://modelcontextprotocol.io/specification/2026-07-28/basic/transports, "Standard headers", "Custom headers".
"""

from __future__ import annotations

from typing import Any

from mcp.shared.inbound import (
    MCP_METHOD_HEADER,
    MCP_NAME_HEADER,
    MCP_PROTOCOL_VERSION_HEADER,
    NAME_BEARING_METHODS,
    encode_header_value,
    find_invalid_x_mcp_header,
    mcp_param_headers,
    x_mcp_header_map,
)

from cpex.proxy.eras import PROTOCOL_VERSION
from cpex.proxy.port import Message, RequestId, id_of

__all__ = ["RepeatedArguments"]

_MAX_TOOLS = 10_000


class RepeatedArguments:
    """Knows which arguments of a server's tools are repeated in headers, from its list of them."""

    def __init__(self) -> None:
        self._asked: set[RequestId] = set()
        self._maps: dict[str, dict[tuple[str, ...], str]] = {}

    def headers(self, message: Message) -> dict[str, str]:
        """The headers of a request that carries all that is needed in itself."""
        method, params = message["method"], message["params"]
        id = id_of(message)
        if method == "tools/list" and id is not None:
            self._asked.add(id)
        headers = {MCP_PROTOCOL_VERSION_HEADER: str(params["_meta"][PROTOCOL_VERSION]), MCP_METHOD_HEADER: method}
        name = params.get(NAME_BEARING_METHODS.get(method, ""))
        if isinstance(name, str):
            headers[MCP_NAME_HEADER] = encode_header_value(name)
        arguments = params.get("arguments")
        if method == "tools/call" and isinstance(name, str) and isinstance(arguments, dict):
            headers |= mcp_param_headers(self._maps.get(name, {}), arguments)
        return headers

    def learn(self, message: Message) -> None:
        """Take note of a list of tools among a server's answers."""
        id = id_of(message)
        if "method" in message or id not in self._asked or id is None:
            return
        self._asked.discard(id)
        result = message.get("result")
        tools = result.get("tools") if isinstance(result, dict) else None
        for tool in tools if isinstance(tools, list) else ():
            if isinstance(tool, dict) and isinstance(tool.get("name"), str):
                self._take(tool["name"], tool.get("inputSchema"))

    def _take(self, name: str, schema: Any) -> None:
        self._maps.pop(name, None)
        found = x_mcp_header_map(schema) if find_invalid_x_mcp_header(schema) is None else {}
        if found and len(self._maps) < _MAX_TOOLS:
            self._maps[name] = dict(found)
