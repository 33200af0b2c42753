"""Messages of the Anthropic messages API.

Source: `messages` and `system` of https://docs.anthropic.com/en/api/messages.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from cpex.framework.cmf.adapters.common import AdapterError, ToolNames, made, message_of, opaque, rest_of
from cpex.framework.cmf.jsontext import json_ready, json_text
from cpex.framework.cmf.message import (
    ContentPart,
    DocumentContentPart,
    DocumentSource,
    ImageContentPart,
    ImageSource,
    Message,
    OpaqueContentPart,
    Role,
    TextContent,
    ThinkingContent,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)

__all__ = ["from_anthropic", "to_anthropic"]

_PREFIX = "anthropic."


def from_anthropic(
    messages: Iterable[Mapping[str, Any]],
    *,
    system: str | Iterable[Mapping[str, Any]] | None = None,
    tool_names: Mapping[str, str] | None = None,
    separator: str | None = None,
) -> list[Message]:
    """One message of the common format for each of `messages`, after one for the system prompt if there is one.

    Blocks without a counterpart, such as those of tools that the provider runs, become `OpaqueContentPart`.

    Args:
        system: The system prompt, as text or blocks.
        tool_names: `{tool_use_id: name}` of calls that are not among the messages.
        separator: What joins a namespace to a tool's name, such as `__`; by default names have no namespace.

    Raises:
        AdapterError: A message is malformed.
    """
    names = ToolNames(separator, tool_names)
    found = [] if system is None else [message_of("system", _parts(system, "system", names), "system")]
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        if not isinstance(message, Mapping) or message.get("role") not in ("user", "assistant"):
            raise AdapterError(place, "is no message of a user or an assistant")
        if unknown := [key for key in message if key not in ("role", "content")]:
            raise AdapterError(place, f"keys without a counterpart: {', '.join(unknown)}")
        found.append(message_of(message["role"], _parts(message.get("content"), f"{place}.content", names), place))
    return found


def _parts(content: Any, place: str, names: ToolNames) -> Iterator[ContentPart]:
    if isinstance(content, str):
        yield TextContent(text=content)
        return
    if isinstance(content, Mapping) or not isinstance(content, Iterable):
        raise AdapterError(place, "is neither text nor a list of blocks")
    for index, block in enumerate(content):
        if not isinstance(block, Mapping):
            raise AdapterError(f"{place}[{index}]", "is no object")
        yield _part(block, f"{place}[{index}]", names)


def _part(block: Mapping[str, Any], place: str, names: ToolNames) -> ContentPart:
    kind = block.get("type")
    if kind == "text":
        return made(TextContent, place, rest_of(block, "type", "text"), text=block.get("text"))
    if kind == "thinking":
        return made(ThinkingContent, place, rest_of(block, "type", "thinking"), text=block.get("thinking"))
    if kind == "redacted_thinking":
        # Nobody here can read it, and nothing in it is a text.
        return made(ThinkingContent, place, {"redacted": rest_of(block, "type")}, text="")
    if kind == "tool_use":
        rest = rest_of(block, "type", "id", "name", "input")
        call = names.call(block.get("id"), block.get("name"), block.get("input"), place, rest)
        return ToolCallContentPart(content=call)
    if kind == "tool_result":
        return ToolResultContentPart(content=_result(block, place, names))
    source = block.get("source")
    included = isinstance(source, Mapping) and source.get("type") in ("base64", "url")
    if kind == "image" and included:
        return made(
            ImageContentPart, place, rest_of(block, "type", "source"), content=_source(ImageSource, source, place)
        )
    if kind == "document" and included:
        rest = rest_of(block, "type", "source", "title")
        document = _source(DocumentSource, source, place, title=block.get("title"))
        return made(DocumentContentPart, place, rest, content=document)
    return opaque("anthropic", block, place)


def _result(block: Mapping[str, Any], place: str, names: ToolNames) -> ToolResult:
    call_id = block.get("tool_use_id")
    return made(
        ToolResult,
        place,
        rest_of(block, "type", "tool_use_id", "content", "is_error"),
        tool_call_id=call_id,
        tool_name=names.of(call_id, place),
        content=block.get("content"),
        is_error=block.get("is_error") or False,
    )


def _source(cls: Any, source: Any, place: str, **more: Any) -> Any:
    data = source.get("data") if source["type"] == "base64" else source.get("url")
    rest = rest_of(source, "type", "data", "url", "media_type")
    return made(cls, place, rest, type=source["type"], data=data, media_type=source.get("media_type"), **more)


def to_anthropic(messages: Iterable[Message], *, separator: str | None = None) -> dict[str, Any]:
    """The part of a request that holds messages: `{"system": text or blocks, "messages": [...]}`.

    What tools say is said by the user, as the API wants it. Channels are not told.

    Args:
        separator: What joins a namespace to a tool's name.

    Raises:
        AdapterError: A part has no counterpart, or a system prompt comes after the conversation has begun.
    """
    names = ToolNames(separator)
    system: list[dict[str, Any]] = []
    written: list[dict[str, Any]] = []
    for index, message in enumerate(messages):
        place = f"messages[{index}]"
        blocks = [_block(part, f"{place}.content[{at}]", names) for at, part in enumerate(message.content)]
        role = Role(message.role)
        if role not in (Role.SYSTEM, Role.DEVELOPER):
            speaker = "assistant" if role is Role.ASSISTANT else "user"
            written.append({"role": speaker, "content": _content(blocks)})
        elif written:
            raise AdapterError(place, "the API takes a system prompt before the conversation only")
        else:
            system += blocks
    return {"system": _content(system), "messages": written} if system else {"messages": written}


def _content(blocks: list[dict[str, Any]]) -> Any:
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return blocks[0]["text"]
    return blocks


def _block(part: Any, place: str, names: ToolNames) -> dict[str, Any]:
    rest = part.model_extra or {}
    if isinstance(part, TextContent):
        return {"type": "text", "text": part.text, **rest}
    if isinstance(part, ThinkingContent):
        if "redacted" in rest and not part.text:
            return {"type": "redacted_thinking", **rest["redacted"]}
        return {"type": "thinking", "thinking": part.text, **rest}
    if isinstance(part, ToolCallContentPart):
        call = part.content
        name = names.flat(call, place)
        extra = call.model_extra or {}
        return {"type": "tool_use", "id": call.tool_call_id, "name": name, "input": json_ready(call.arguments), **extra}
    if isinstance(part, ToolResultContentPart):
        return _written_result(part.content)
    if isinstance(part, ImageContentPart):
        return {"type": "image", "source": _written_source(part.content), **rest}
    if isinstance(part, DocumentContentPart):
        titled = {} if part.content.title is None else {"title": part.content.title}
        return {"type": "document", "source": _written_source(part.content), **titled, **rest}
    if isinstance(part, OpaqueContentPart) and part.content_type.startswith(_PREFIX):
        return {"type": part.content_type.removeprefix(_PREFIX), **rest.get("block", {})}
    raise AdapterError(place, "is of a kind that the API has no block for")


def _written_result(result: ToolResult) -> dict[str, Any]:
    written: dict[str, Any] = {"type": "tool_result", "tool_use_id": result.tool_call_id}
    content = result.content
    if isinstance(content, str) or _are_blocks(content):
        written["content"] = content
    elif content is not None:
        written["content"] = json_text(content, ensure_ascii=False)
    if result.is_error:
        written["is_error"] = True
    return written | (result.model_extra or {})


def _are_blocks(content: Any) -> bool:
    return isinstance(content, list) and all(isinstance(block, dict) and "type" in block for block in content)


def _written_source(source: ImageSource | DocumentSource) -> dict[str, Any]:
    rest = source.model_extra or {}
    if source.type == "url":
        return {"type": "url", "url": source.data, **rest}
    return {"type": "base64", "media_type": source.media_type, "data": source.data, **rest}
