"""Content blocks, tool calls and prompts of the Model Context Protocol.

Source: https://modelcontextprotocol.io/specification/2025-06-18/schema, `ContentBlock`, `CallToolRequest`,
`CallToolResult`, `GetPromptResult`.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable, Mapping
from typing import Any

from cpex.framework.cmf.adapters.common import AdapterError, made, message_of, opaque, rest_of
from cpex.framework.cmf.jsontext import json_ready
from cpex.framework.cmf.message import (
    AudioContentPart,
    AudioSource,
    ContentPart,
    ImageContentPart,
    ImageSource,
    Message,
    OpaqueContentPart,
    PromptResult,
    PromptResultContentPart,
    Resource,
    ResourceContentPart,
    ResourceRefContentPart,
    ResourceReference,
    ResourceType,
    TextContent,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)

__all__ = [
    "from_mcp_content",
    "from_mcp_prompt",
    "from_mcp_tool_call",
    "from_mcp_tool_result",
    "to_mcp_content",
    "to_mcp_prompt",
    "to_mcp_tool_call",
    "to_mcp_tool_result",
]

_PREFIX = "mcp."
_MEDIA: dict[str, tuple[Any, Any]] = {
    "image": (ImageContentPart, ImageSource),
    "audio": (AudioContentPart, AudioSource),
}


def from_mcp_content(blocks: Iterable[Mapping[str, Any]], place: str = "content") -> list[ContentPart]:
    """A part for each content block. Blocks of other types become `OpaqueContentPart`.

    Args:
        place: What errors call the list.

    Raises:
        AdapterError: A block is malformed.
    """
    return [_part(block, f"{place}[{index}]") for index, block in enumerate(blocks)]


def _part(block: Any, place: str) -> ContentPart:
    if not isinstance(block, Mapping):
        raise AdapterError(place, "is no object")
    kind = block.get("type")
    if kind == "text":
        return made(TextContent, place, rest_of(block, "type", "text"), text=block.get("text"))
    if kind in _MEDIA:
        part, source = _MEDIA[kind]
        values: dict[str, Any] = {"type": "base64", "data": block.get("data"), "media_type": block.get("mimeType")}
        rest = rest_of(block, "type", "data", "mimeType")
        # The table's classes have no type in common that `made` could be told to return.
        return made(part, place, rest, content=made(source, place, **values))  # type: ignore[no-any-return]
    if kind == "resource_link":
        reference = made(ResourceReference, place, rest_of(block, "type", "uri", "name"), **_named(block))
        return ResourceRefContentPart(content=reference)
    held = block.get("resource")
    if kind == "resource" and isinstance(held, Mapping):
        rest = rest_of(block, "type", "resource")
        return made(ResourceContentPart, place, rest, content=_resource(held, f"{place}.resource"))
    return opaque("mcp", block, place)


def _named(block: Mapping[str, Any]) -> dict[str, Any]:
    uri = block.get("uri")
    is_file = isinstance(uri, str) and uri.startswith("file:")
    kind = ResourceType.FILE if is_file else ResourceType.URI
    return {"resource_request_id": uri, "uri": uri, "name": block.get("name"), "resource_type": kind}


def _resource(held: Mapping[str, Any], place: str) -> Resource:
    blob = held.get("blob")
    try:
        data = None if blob is None else base64.b64decode(blob, validate=True)
    except (TypeError, binascii.Error):
        raise AdapterError(f"{place}.blob", "is no base64") from None
    rest = rest_of(held, "uri", "name", "text", "blob", "mimeType")
    values = {"content": held.get("text"), "blob": data, "mime_type": held.get("mimeType")}
    return made(Resource, place, rest, **_named(held), **values)


def to_mcp_content(parts: Iterable[ContentPart], place: str = "content") -> list[dict[str, Any]]:
    """A content block for each part.

    Raises:
        AdapterError: A part has no counterpart.
    """
    return [_block(part, f"{place}[{index}]") for index, part in enumerate(parts)]


def _block(part: Any, place: str) -> dict[str, Any]:
    rest = part.model_extra or {}
    if isinstance(part, TextContent):
        return {"type": "text", "text": part.text, **rest}
    if isinstance(part, ImageContentPart | AudioContentPart) and part.content.type == "base64":
        source = part.content
        return {"type": part.content_type.value, "data": source.data, "mimeType": source.media_type, **rest}
    if isinstance(part, ResourceRefContentPart):
        reference = part.content
        named = reference.name if reference.name is not None else reference.uri
        return {"type": "resource_link", "uri": reference.uri, "name": named, **(reference.model_extra or {}), **rest}
    if isinstance(part, ResourceContentPart):
        return {"type": "resource", "resource": _written_resource(part.content, place), **rest}
    if isinstance(part, OpaqueContentPart) and part.content_type.startswith(_PREFIX):
        return {"type": part.content_type.removeprefix(_PREFIX), **rest.get("block", {})}
    raise AdapterError(place, "is of a kind that the protocol has no content block for")


def _written_resource(resource: Resource, place: str) -> dict[str, Any]:
    written: dict[str, Any] = {"uri": resource.uri}
    if resource.name is not None:
        written["name"] = resource.name
    if resource.mime_type is not None:
        written["mimeType"] = resource.mime_type
    if resource.content is not None:
        written["text"] = resource.content
    elif resource.blob is not None:
        written["blob"] = base64.b64encode(resource.blob).decode()
    else:
        raise AdapterError(place, "is a resource without content")
    return written | (resource.model_extra or {})


def from_mcp_tool_call(params: Mapping[str, Any], *, call_id: str, server: str | None = None) -> Message:
    """The message that calls a tool, from the `params` of `tools/call`.

    Args:
        call_id: Ties the result to the call; the protocol has the id of the request for it.
        server: The server that is asked; becomes the namespace.

    Raises:
        AdapterError: The parameters are malformed.
    """
    rest = rest_of(params, "name", "arguments")
    values: dict[str, Any] = {
        "tool_call_id": call_id,
        "name": params.get("name"),
        "arguments": params.get("arguments") or {},
    }
    call = made(ToolCall, "params", rest, namespace=server, **values)
    return message_of("assistant", [ToolCallContentPart(content=call)], "params")


def to_mcp_tool_call(message: Message) -> dict[str, Any]:
    """The `params` of `tools/call`.

    Raises:
        AdapterError: The message is not one call of one tool.
    """
    call = _only(message, ToolCallContentPart, "call of a tool").content
    return {"name": call.name, "arguments": json_ready(call.arguments), **(call.model_extra or {})}


def from_mcp_tool_result(result: Mapping[str, Any], *, call_id: str, tool_name: str) -> Message:
    """The message that brings a tool's result, from the result of `tools/call`.

    What the tool has answered is `{"content": [blocks], "structuredContent": ...}`, as it came.

    Raises:
        AdapterError: The result is malformed.
    """
    if not isinstance(result.get("content"), list):
        raise AdapterError("result.content", "is no list of blocks")
    values: dict[str, Any] = {"tool_call_id": call_id, "tool_name": tool_name, "content": rest_of(result, "isError")}
    held = made(ToolResult, "result", is_error=result.get("isError") or False, **values)
    return message_of("tool", [ToolResultContentPart(content=held)], "result")


def to_mcp_tool_result(message: Message) -> dict[str, Any]:
    """The result of `tools/call`; an answer that is no such result becomes one text block.

    Raises:
        AdapterError: The message is not one result of one tool.
    """
    result = _only(message, ToolResultContentPart, "result of a tool").content
    answer = result.content
    if not (isinstance(answer, Mapping) and isinstance(answer.get("content"), list)):
        view = next(message.iter_views())
        answer = {"content": [{"type": "text", "text": view.text or ""}]}
    return {**answer, "isError": True} if result.is_error else dict(answer)


def from_mcp_prompt(result: Mapping[str, Any], *, request_id: str, name: str) -> Message:
    """The message that brings a rendered prompt, from the result of `prompts/get`.

    Raises:
        AdapterError: The result is malformed.
    """
    told = result.get("messages")
    if not isinstance(told, list):
        raise AdapterError("result.messages", "is no list")
    messages = []
    for index, each in enumerate(told):
        place = f"messages[{index}]"
        if not isinstance(each, Mapping):
            raise AdapterError(place, "is no object")
        parts = [_part(each.get("content"), f"{place}.content")]
        messages.append(message_of(str(each.get("role")), parts, place))
    rest = rest_of(result, "messages")
    values: dict[str, Any] = {"prompt_request_id": request_id, "prompt_name": name, "messages": messages}
    prompt = made(PromptResult, "result", rest, **values)
    return message_of("user", [PromptResultContentPart(content=prompt)], "result")


def to_mcp_prompt(message: Message) -> dict[str, Any]:
    """The result of `prompts/get`; a message of several parts becomes as many messages of its role.

    Raises:
        AdapterError: The message is not one rendered prompt, or a part has no counterpart.
    """
    prompt = _only(message, PromptResultContentPart, "rendered prompt").content
    messages = []
    for index, each in enumerate(prompt.messages):
        for block in to_mcp_content(each.content, f"messages[{index}].content"):
            messages.append({"role": each.role.value, "content": block})
    return {**(prompt.model_extra or {}), "messages": messages}


def _only(message: Message, kind: Any, what: str) -> Any:
    if len(message.content) != 1 or not isinstance(message.content[0], kind):
        raise AdapterError("message", f"is not one {what}")
    return message.content[0]
