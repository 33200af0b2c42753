"""What flows through an operation, as a message of the common format, and back.

A result in a form that no part of a message has is shown as its JSON text. Plugins can judge that, and deny; a rewrite
of it cannot be carried back and is an error, never dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from pydantic import BaseModel

from cpex.framework.cmf.adapters import AdapterError, from_mcp_content, from_mcp_prompt, to_mcp_content, to_mcp_prompt
from cpex.framework.cmf.jsontext import json_text
from cpex.framework.cmf.message import (
    ContentPart,
    Message,
    PromptRequest,
    PromptRequestContentPart,
    PromptResult,
    PromptResultContentPart,
    Resource,
    ResourceContentPart,
    ResourceRefContentPart,
    ResourceReference,
    ResourceType,
    Role,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)
from cpex.framework.errors import GuardError
from cpex.framework.guard.operations import Shown
from cpex.framework.hooks.message import MessageHookType, MessagePayload

__all__ = ["shown", "taken"]


class _Twin(NamedTuple):
    show: Callable[[Shown, Any], list[Message]]
    take: Callable[[Shown, Any, dict[int, Message]], Any]


def shown(hook: str, op: Shown, state: Any) -> list[Any]:
    """What flows, as payloads of a `cmf.*` hook."""
    stands = MessageHookType(hook.removeprefix("cmf."))
    return [MessagePayload(message=message, hook=stands) for message in _TWINS[hook].show(op, state)]


def taken(hook: str, op: Shown, state: Any, changed: Mapping[int, MessagePayload]) -> Any:
    """What flows on.

    Raises:
        GuardError: A plugin turned the message into one that says something else than the operation can.
    """
    return _TWINS[hook].take(op, state, {index: payload.message for index, payload in changed.items()})


def _show_call(op: Shown, payload: Any) -> list[Message]:
    call = ToolCall(tool_call_id=op.id, name=payload.name, namespace=op.server, arguments=payload.args or {})
    return [Message(role=Role.ASSISTANT, content=[ToolCallContentPart(content=call)])]


def _take_call(op: Shown, payload: Any, changed: dict[int, Message]) -> Any:
    call = _only(changed[0], ToolCallContentPart, "one call of a tool").content
    if call.namespace != op.server:
        raise GuardError(
            f"a plugin moved the call of tool `{payload.name}` to another server, which the guard cannot follow; let "
            "it change `name` and `arguments` only"
        )
    return payload.model_copy(update={"name": call.name, "args": dict(call.arguments)})


def _show_result(op: Shown, result: Any) -> list[Message]:
    held = ToolResult(
        tool_call_id=op.id, tool_name=op.payload.name, content=result, is_error=_says(result, "isError", "is_error")
    )
    return [Message(role=Role.TOOL, content=[ToolResultContentPart(content=held)])]


def _take_result(op: Shown, result: Any, changed: dict[int, Message]) -> Any:
    return _only(changed[0], ToolResultContentPart, "one result of a tool").content.content


def _show_prompt(op: Shown, payload: Any) -> list[Message]:
    request = PromptRequest(
        prompt_request_id=op.id, name=payload.prompt_id, arguments=payload.args or {}, server_id=op.server
    )
    return [Message(role=Role.USER, content=[PromptRequestContentPart(content=request)])]


def _take_prompt(op: Shown, payload: Any, changed: dict[int, Message]) -> Any:
    request = _only(changed[0], PromptRequestContentPart, "one request of a prompt").content
    return payload.model_copy(update={"prompt_id": request.name, "args": dict(request.arguments)})


def _show_rendered(op: Shown, result: Any) -> list[Message]:
    name = op.payload.prompt_id
    if isinstance(wire := _wire(result), Mapping) and isinstance(wire.get("messages"), list):
        try:
            return [from_mcp_prompt(wire, request_id=op.id, name=name)]
        except AdapterError:
            # Messages of another format: shown as text, below.
            pass
    held = PromptResult(prompt_request_id=op.id, prompt_name=name, content=_text(result))
    return [Message(role=Role.USER, content=[PromptResultContentPart(content=held)])]


def _take_rendered(op: Shown, result: Any, changed: dict[int, Message]) -> Any:
    held = _only(changed[0], PromptResultContentPart, "one rendered prompt").content
    if isinstance(result, str):
        return held.content
    if held.messages:
        return _unwired(result, to_mcp_prompt(changed[0]))
    if held.content == _text(result):
        return result
    raise _one_way("prompt", op.payload.prompt_id)


def _show_reference(op: Shown, payload: Any) -> list[Message]:
    reference = ResourceReference(resource_request_id=op.id, uri=payload.uri, resource_type=_type_of(payload.uri))
    return [Message(role=Role.USER, content=[ResourceRefContentPart(content=reference)])]


def _take_reference(op: Shown, payload: Any, changed: dict[int, Message]) -> Any:
    reference = _only(changed[0], ResourceRefContentPart, "one reference to a resource").content
    return payload.model_copy(update={"uri": reference.uri})


def _show_content(op: Shown, content: Any) -> list[Message]:
    wire = _wire(content)
    if isinstance(wire, Mapping) and isinstance(wire.get("contents"), list):
        blocks = [{"type": "resource", "resource": each} for each in wire["contents"]]
        try:
            return [Message.model_validate({"role": Role.TOOL, "content": from_mcp_content(blocks)})]
        except AdapterError:
            pass
    is_bytes = isinstance(content, bytes | bytearray)
    resource = Resource(
        resource_request_id=op.id,
        uri=op.payload.uri,
        resource_type=_type_of(op.payload.uri),
        content=None if is_bytes else _text(content),
        blob=bytes(content) if is_bytes else None,
    )
    return [Message(role=Role.TOOL, content=[ResourceContentPart(content=resource)])]


def _take_content(op: Shown, content: Any, changed: dict[int, Message]) -> Any:
    if isinstance(content, str | bytes | bytearray):
        resource = _only(changed[0], ResourceContentPart, "one resource").content
        return resource.blob if resource.blob is not None else resource.content
    wire = _wire(content)
    if isinstance(wire, Mapping) and isinstance(wire.get("contents"), list):
        blocks = to_mcp_content(changed[0].content)
        return _unwired(content, {**wire, "contents": [block["resource"] for block in blocks]})
    if _only(changed[0], ResourceContentPart, "one resource").content.content == _text(content):
        return content
    raise _one_way("resource", op.payload.uri)


def _show_all(op: Shown, messages: Any) -> list[Message]:
    return list(messages)


def _take_all(op: Shown, messages: Any, changed: dict[int, Message]) -> Any:
    return [changed.get(index, message) for index, message in enumerate(messages)]


_TWINS = {
    "cmf.tool_pre_invoke": _Twin(_show_call, _take_call),
    "cmf.tool_post_invoke": _Twin(_show_result, _take_result),
    "cmf.prompt_pre_fetch": _Twin(_show_prompt, _take_prompt),
    "cmf.prompt_post_fetch": _Twin(_show_rendered, _take_rendered),
    "cmf.resource_pre_fetch": _Twin(_show_reference, _take_reference),
    "cmf.resource_post_fetch": _Twin(_show_content, _take_content),
    "cmf.llm_input": _Twin(_show_all, _take_all),
    "cmf.llm_output": _Twin(_show_all, _take_all),
}


def _only(message: Message, kind: type[ContentPart], what: str) -> Any:
    if len(message.content) != 1 or not isinstance(message.content[0], kind):
        raise GuardError(
            f"a plugin answered with a message that is not {what}; let it change the part that it was shown"
        )
    return message.content[0]


def _one_way(kind: str, target: str) -> GuardError:
    return GuardError(
        f"a plugin of a `cmf.` hook rewrote the result of {kind} `{target}`, which it saw as text because the host "
        "gives an object of its own; give a text or the form that MCP has, or rewrite it in the hook without `cmf.`"
    )


def _says(result: Any, *names: str) -> bool:
    """Whether a result says that it is an error; MCP's form or the SDK's class."""
    if isinstance(result, Mapping):
        return any(result.get(name) is True for name in names)
    return any(getattr(result, name, None) is True for name in names)


def _wire(result: Any) -> Any:
    """A result as it goes over the wire, where it is a model that knows."""
    if isinstance(result, BaseModel):
        return result.model_dump(mode="json", by_alias=True, exclude_none=True)
    return result


def _unwired(before: Any, wire: dict[str, Any]) -> Any:
    """What came over the wire, as an object of the class that the host gave."""
    return type(before).model_validate(wire) if isinstance(before, BaseModel) else wire


def _text(result: Any) -> str:
    return result if isinstance(result, str) else json_text(result, ensure_ascii=False)


def _type_of(uri: str) -> ResourceType:
    return ResourceType.FILE if uri.startswith("file:") else ResourceType.URI
