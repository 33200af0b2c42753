"""Items of OpenAI's Responses format as messages of the common format, and back.

Each item is a message of its own. What the common format has no part for is kept whole in a part that plugins can see
and deny, and cannot rewrite.

Source: https://platform.openai.com/docs/api-reference/responses/create, "input" and "output".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from cpex.framework.cmf.message import (
    ContentPart,
    Message,
    OpaqueContentPart,
    Role,
    TextContent,
    ThinkingContent,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
    Unknown,
)
from cpex.framework.errors import GuardError

__all__ = ["shown", "written"]

_TEXTS = {"input_text": "text", "output_text": "text", "refusal": "refusal"}
"""Kinds of parts that are text, and the key that has it."""
_SPEAKERS = {"user": Role.USER, "assistant": Role.ASSISTANT, "system": Role.SYSTEM, "developer": Role.SYSTEM}


def shown(items: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Items as messages, one for each."""
    names = {each.get("call_id"): str(each.get("name")) for each in items if each.get("type") == "function_call"}
    return [_message(each, names) for each in items]


def _message(item: Mapping[str, Any], names: Mapping[Any, str]) -> Message:
    kind = item.get("type", "message")
    role = Role.ASSISTANT
    parts: list[ContentPart] = [_opaque(item)]
    if kind == "message":
        role, parts = _SPEAKERS.get(str(item.get("role")), Role.USER), _texts(item.get("content"))
    elif kind == "function_call" and (arguments := _arguments(item.get("arguments"))) is not None:
        call = ToolCall(tool_call_id=str(item.get("call_id")), name=str(item.get("name")), arguments=arguments)
        parts = [ToolCallContentPart(content=call)]
    elif kind == "function_call_output":
        call_id = item.get("call_id")
        name = names.get(call_id, "")
        result = ToolResult(tool_call_id=str(call_id), tool_name=name, content=item.get("output"))
        role, parts = Role.TOOL, [ToolResultContentPart(content=result)]
    elif kind == "reasoning" and item.get("summary"):
        parts = [ThinkingContent(text=str(each.get("text"))) for each in item["summary"]]
    return Message.model_validate({"role": role, "content": parts}, context={"unknown": Unknown.KEEP})


def _texts(content: Any) -> list[ContentPart]:
    if isinstance(content, str):
        return [TextContent(text=content)]
    return [
        TextContent(text=str(each.get(_TEXTS[each["type"]]))) if each.get("type") in _TEXTS else _opaque(each)
        for each in content or []
    ]


def _arguments(text: Any) -> dict[str, Any] | None:
    try:
        read = json.loads(text or "{}")
    except (TypeError, ValueError):
        return None
    return read if isinstance(read, dict) else None


def _opaque(block: Mapping[str, Any]) -> ContentPart:
    kind = str(block.get("type", "message"))
    return OpaqueContentPart.model_validate(
        {"content_type": f"openai.{kind}", "block": dict(block)}, context={"unknown": Unknown.KEEP}
    )


def written(item: Mapping[str, Any], message: Message) -> dict[str, Any]:
    """The item that a changed message says.

    Raises:
        GuardError: A plugin made it into something else, or rewrote what cannot be written back.
    """
    kind, parts = item.get("type", "message"), message.content
    only = parts[0] if len(parts) == 1 else None
    if kind == "message":
        return {**item, "content": _written_texts(item.get("content"), parts)}
    if isinstance(only, ToolCallContentPart) and kind == "function_call":
        return {**item, "name": only.content.name, "arguments": json.dumps(dict(only.content.arguments))}
    if isinstance(only, ToolResultContentPart) and kind == "function_call_output":
        return {**item, "output": only.content.content}
    if kind == "reasoning" and len(parts) == len(item.get("summary") or []):
        texts = [each.text if isinstance(each, ThinkingContent) else None for each in parts]
        if None not in texts:
            pairs = zip(item["summary"], texts, strict=True)
            return {**item, "summary": [{**old, "text": text} for old, text in pairs]}
    raise _unlike(str(kind))


def _written_texts(content: Any, parts: Sequence[ContentPart]) -> Any:
    if isinstance(content, str):
        if len(parts) == 1 and isinstance(parts[0], TextContent):
            return parts[0].text
        raise _unlike("message")
    if len(parts) != len(content or []):
        raise _unlike("message")
    return [_written_part(old, new) for old, new in zip(content or [], parts, strict=True)]


def _written_part(old: Mapping[str, Any], new: ContentPart) -> Mapping[str, Any]:
    key = _TEXTS.get(str(old.get("type")))
    if key is not None and isinstance(new, TextContent):
        return {**old, key: new.text}
    if key is None and isinstance(new, OpaqueContentPart) and (new.model_extra or {}).get("block") == old:
        return old
    raise _unlike(str(old.get("type")))


def _unlike(kind: str) -> GuardError:
    return GuardError(
        f"a plugin turned an item of kind `{kind[:100]}` into something else; let it change the texts, arguments and "
        "results that it was shown"
    )
