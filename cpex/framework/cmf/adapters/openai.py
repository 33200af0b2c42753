"""Messages of the OpenAI chat completions API, and of the many servers that speak it.

Source: the `messages` of https://platform.openai.com/docs/api-reference/chat/create.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from cpex.framework.cmf.adapters.common import (
    AdapterError,
    ToolNames,
    data_url,
    from_data_url,
    made,
    message_of,
    rest_of,
)
from cpex.framework.cmf.jsontext import json_text
from cpex.framework.cmf.message import (
    AudioContentPart,
    AudioSource,
    ContentPart,
    DocumentContentPart,
    DocumentSource,
    ImageContentPart,
    ImageSource,
    Message,
    ResourceRefContentPart,
    ResourceReference,
    ResourceType,
    Role,
    TextContent,
    ThinkingContent,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)

__all__ = ["from_openai", "to_openai"]

_KEYS = frozenset({"role", "content", "tool_calls", "tool_call_id", "reasoning_content", "refusal"})


def from_openai(
    messages: Iterable[Mapping[str, Any]],
    *,
    tool_names: Mapping[str, str] | None = None,
    separator: str | None = None,
    drop: Collection[str] = (),
) -> list[Message]:
    """One message of the common format for each of `messages`.

    Args:
        tool_names: `{tool_call_id: name}` of calls that are not among the messages.
        separator: What joins a namespace to a tool's name, such as `__`; by default names have no namespace.
        drop: Keys of messages that may be lost, such as `name`. Keys that are `null` or empty always may.

    Raises:
        AdapterError: A message is malformed, or has something that no part can hold.
    """
    names = ToolNames(separator, tool_names)
    return [_read(message, f"messages[{index}]", names, drop) for index, message in enumerate(messages)]


def _read(message: Mapping[str, Any], place: str, names: ToolNames, drop: Collection[str]) -> Message:
    if not isinstance(message, Mapping):
        raise AdapterError(place, "is no object")
    role = message.get("role")
    lost = [key for key, value in message.items() if key not in _KEYS and key not in drop and value]
    if role == "tool" and "name" in lost:
        lost.remove("name")
    if lost:
        raise AdapterError(
            place, f"keys without a counterpart: {', '.join(lost)}; list those that may be lost in `drop`"
        )
    if role == "tool":
        return message_of("tool", [_result(message, place, names)], place)
    return message_of(str(role), _parts(message, place, names), place)


def _parts(message: Mapping[str, Any], place: str, names: ToolNames) -> Iterator[ContentPart]:
    if (thought := message.get("reasoning_content")) is not None:
        yield made(ThinkingContent, f"{place}.reasoning_content", text=thought)
    content = message.get("content")
    if isinstance(content, str):
        yield TextContent(text=content)
    elif content is not None:
        for index, block in enumerate(_listed(content, f"{place}.content")):
            yield _part(block, f"{place}.content[{index}]")
    if message.get("refusal"):
        yield made(TextContent, f"{place}.refusal", {"refusal": True}, text=message["refusal"])
    for index, call in enumerate(_listed(message.get("tool_calls") or [], f"{place}.tool_calls")):
        yield _call(call, f"{place}.tool_calls[{index}]", names)


def _listed(blocks: Any, place: str) -> list[Mapping[str, Any]]:
    if not isinstance(blocks, list | tuple) or not all(isinstance(block, Mapping) for block in blocks):
        raise AdapterError(place, "is no list of objects")
    return list(blocks)


def _part(block: Mapping[str, Any], place: str) -> ContentPart:
    kind = block.get("type")
    rest = rest_of(block, "type", str(kind))
    held = block.get(kind) if isinstance(kind, str) else None
    if kind == "text":
        return made(TextContent, place, rest, text=held)
    if kind == "refusal":
        return made(TextContent, place, {**rest, "refusal": True}, text=held)
    if not isinstance(held, Mapping):
        raise AdapterError(place, "is a part of no known type")
    if kind == "image_url":
        return made(ImageContentPart, place, rest, content=_image(held, place))
    if kind == "input_audio":
        media_type = f"audio/{held.get('format')}"
        more = rest_of(held, "data", "format")
        audio = made(AudioSource, place, more, type="base64", data=held.get("data"), media_type=media_type)
        return made(AudioContentPart, place, rest, content=audio)
    if kind == "file":
        return _file(held, rest, place)
    raise AdapterError(place, "is a part of no known type")


def _image(held: Mapping[str, Any], place: str) -> ImageSource:
    more = rest_of(held, "url")
    if (included := from_data_url(held.get("url"))) is not None:
        return made(ImageSource, place, more, type="base64", data=included[1], media_type=included[0])
    return made(ImageSource, place, more, type="url", data=held.get("url"))


def _file(held: Mapping[str, Any], rest: Mapping[str, Any], place: str) -> ContentPart:
    more = rest_of(held, "file_data", "filename", "file_id")
    if (included := from_data_url(held.get("file_data"))) is not None:
        title, media_type, data = held.get("filename"), *included
        source = made(DocumentSource, place, more, type="base64", data=data, media_type=media_type, title=title)
        return made(DocumentContentPart, place, rest, content=source)
    if (uri := held.get("file_id")) is None:
        raise AdapterError(place, "has neither `file_id` nor `file_data` that is a base64 data URL")
    ids = {"resource_request_id": uri, "uri": uri, "resource_type": ResourceType.FILE}
    reference = made(ResourceReference, place, more, name=held.get("filename"), **ids)
    return made(ResourceRefContentPart, place, rest, content=reference)


def _call(call: Mapping[str, Any], place: str, names: ToolNames) -> ToolCallContentPart:
    function = call.get("function")
    if call.get("type", "function") != "function" or not isinstance(function, Mapping):
        raise AdapterError(place, "is no call of a function")
    try:
        arguments = json.loads(function.get("arguments") or "{}")
    except (TypeError, ValueError):
        raise AdapterError(f"{place}.function.arguments", "is no JSON") from None
    rest = rest_of(call, "id", "type", "function")
    made_call = names.call(call.get("id"), function.get("name"), arguments, place, rest)
    return ToolCallContentPart(content=made_call)


def _result(message: Mapping[str, Any], place: str, names: ToolNames) -> ToolResultContentPart:
    call_id = message.get("tool_call_id")
    name = message.get("name") or names.of(call_id, place)
    result = made(ToolResult, place, tool_call_id=call_id, tool_name=name, content=message.get("content"))
    return ToolResultContentPart(content=result)


def to_openai(messages: Iterable[Message], *, separator: str | None = None) -> list[dict[str, Any]]:
    """The `messages` of a request, in order; results of tools become messages of their own, before what stands beside.

    Channels and `is_error` are not told, and results that are neither text nor a list of blocks become JSON.

    Args:
        separator: What joins a namespace to a tool's name.

    Raises:
        AdapterError: A part has no counterpart, or stands where the API takes none of its kind.
    """
    names = ToolNames(separator)
    return [each for index, message in enumerate(messages) for each in _written(message, f"messages[{index}]", names)]


def _written(message: Message, place: str, names: ToolNames) -> Iterator[dict[str, Any]]:
    blocks: list[dict[str, Any]] = []
    calls: list[dict[str, Any]] = []
    more: dict[str, Any] = {}
    role = Role(message.role)
    results = [part for part in message.content if isinstance(part, ToolResultContentPart)]
    yield from map(_written_result, results)
    others = [
        (index, part) for index, part in enumerate(message.content) if not isinstance(part, ToolResultContentPart)
    ]
    if results and not others:
        return
    if role is Role.TOOL:
        raise AdapterError(place, "a tool says something beside results, for which the API has no message")
    for index, part in others:
        where = f"{place}.content[{index}]"
        if isinstance(part, ToolCallContentPart):
            calls.append(_written_call(part, where, names))
        elif isinstance(part, ThinkingContent):
            more["reasoning_content"] = more.get("reasoning_content", "") + part.text
        else:
            blocks.append(_block(part, where))
    written: dict[str, Any] = {"role": role.value, "content": _content(blocks), **more}
    yield {**written, "tool_calls": calls} if calls else written


def _content(blocks: list[dict[str, Any]]) -> Any:
    if len(blocks) == 1 and blocks[0].keys() == {"type", "text"}:
        return blocks[0]["text"]
    return blocks or None


def _block(part: Any, place: str) -> dict[str, Any]:
    rest = part.model_extra or {}
    if isinstance(part, TextContent):
        kind = "refusal" if rest.get("refusal") else "text"
        return {"type": kind, kind: part.text, **rest_of(rest, "refusal")}
    source = getattr(part, "content", None)
    more = getattr(source, "model_extra", None) or {}
    if isinstance(source, ImageSource):
        url = source.data if source.type == "url" else data_url(source.media_type or "image/png", source.data)
        return {"type": "image_url", "image_url": {"url": url, **more}, **rest}
    if isinstance(source, AudioSource) and source.type == "base64" and source.media_type:
        audio = {"data": source.data, "format": source.media_type.removeprefix("audio/"), **more}
        return {"type": "input_audio", "input_audio": audio, **rest}
    if isinstance(source, DocumentSource) and source.type == "base64":
        file = {"filename": source.title, "file_data": data_url(source.media_type, source.data), **more}
        return {"type": "file", "file": {key: value for key, value in file.items() if value is not None}, **rest}
    if isinstance(source, ResourceReference) and "://" not in source.uri:
        named = {"filename": source.name} if source.name else {}
        return {"type": "file", "file": {"file_id": source.uri, **named, **more}, **rest}
    raise AdapterError(place, "is of a kind that the API has no part for")


def _written_call(part: ToolCallContentPart, place: str, names: ToolNames) -> dict[str, Any]:
    call = part.content
    function = {"name": names.flat(call, place), "arguments": json_text(call.arguments, ensure_ascii=False)}
    return {"id": call.tool_call_id, "type": "function", "function": function, **(call.model_extra or {})}


def _written_result(part: ToolResultContentPart) -> dict[str, Any]:
    result = part.content
    content = result.content
    if content is None:
        content = ""
    elif not isinstance(content, str) and not _are_texts(content):
        content = json_text(content, ensure_ascii=False)
    return {"role": "tool", "tool_call_id": result.tool_call_id, "content": content}


def _are_texts(content: Any) -> bool:
    return isinstance(content, list) and all(
        isinstance(block, dict) and block.keys() == {"type", "text"} and block["type"] == "text" for block in content
    )
