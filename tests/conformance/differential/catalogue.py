"""What each hook can be called with, what a plugin can do to such a payload in place, and what it can return."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Edit = dict[str, Any]


@dataclass(frozen=True)
class HookFacts:
    """One hook, as the scenarios use it."""

    payloads: tuple[dict[str, Any], ...]
    edits: tuple[Edit, ...] = ()
    """In place; some do not fit some payloads, which makes the plugin fail."""
    changes: tuple[dict[str, Any], ...] = ()
    """Fields of a modified payload."""
    replies: tuple[Any, ...] = ()
    """Modified payloads of another type than the payload's."""
    writable: tuple[str, ...] = ()
    """Fields that a policy of the scenarios may open."""
    entity: tuple[str, str] | None = None
    """Set of a condition, and the field of the payload it is compared with."""


def _content() -> dict[str, Any]:
    return {"text": "a", "box": {"deep": {"n": 1}, "items": [1, {"z": 2}]}, "items": [3, 1, 2]}


def _edits(*path: str | int) -> tuple[Edit, ...]:
    """Edits of `_content()` at a path: at the top, in depth, inside lists."""
    top, box = list(path), [*path, "box"]
    return (
        {"path": top, "do": "set", "key": "text", "value": "edited"},
        {"path": top, "do": "set", "key": "text", "value": "a"},
        {"path": top, "do": "set", "key": "new", "value": {"a": [1]}},
        {"path": top, "do": "delete", "key": "text"},
        {"path": top, "do": "clear"},
        {"path": top, "do": "update", "value": {"text": "updated", "more": 1}},
        {"path": box, "do": "set", "key": "edited", "value": True},
        {"path": [*box, "deep"], "do": "set", "key": "n", "value": 2},
        {"path": [*box, "items"], "do": "append", "value": 9},
        {"path": [*box, "items", 1], "do": "set", "key": "z", "value": 3},
        {"path": [*path, "items"], "do": "insert", "value": 0},
        {"path": [*path, "items"], "do": "reverse"},
    )


def _headers(name: str = "headers") -> tuple[Edit, ...]:
    return (
        {"path": [name], "do": "set", "key": "X-New", "value": "1"},
        {"path": [name], "do": "set", "key": "A", "value": "edited"},
    )


_MESSAGES = [{"role": "user", "content": {"type": "text", "text": "hello"}}, {"role": "assistant", "content": "hi"}]
_MESSAGE_EDITS: tuple[Edit, ...] = (
    {"path": ["messages", 0, "content"], "do": "assign", "key": "text", "value": "edited"},
    {"path": ["messages", 0], "do": "assign", "key": "role", "value": "system"},
    {"path": ["messages"], "do": "append", "value": {"role": "tool", "content": "x"}},
    {"path": ["messages"], "do": "pop"},
)
_MESSAGE = {
    "role": "user",
    "content": [
        {"content_type": "text", "text": "hello"},
        {
            "content_type": "tool_call",
            "content": {"tool_call_id": "1", "name": "t", "arguments": _content()},
        },
    ],
}
_CALL = ("message", "content", 1, "content", "arguments")
_TALK = HookFacts(
    payloads=({"message": _MESSAGE}, {"message": {"role": "user", "content": []}, "hook": "llm_input"}),
    edits=(*_edits(*_CALL), {"path": ["message", "content"], "do": "pop"}),
    changes=({"hook": "llm_output"}, {}),
    writable=("message",),
    entity=("tools", "message"),
)
_HTTP = {"path": "/a", "method": "GET", "client_host": "h", "headers": {"A": "1"}}
_HEADER_REPLIES: tuple[dict[str, str], ...] = ({"A": "2"}, {"B": "3"}, {"C": "4", "A": "5"}, {})

HOOKS: dict[str, HookFacts] = {
    "tool_pre_invoke": HookFacts(
        payloads=(
            {"name": "t", "args": _content()},
            {"name": "u", "args": _content(), "headers": {"A": "1"}},
            {"name": "t", "args": {}},
            {"name": "t", "args": None},
            {"name": "", "args": {"text": "a"}},
        ),
        edits=(*_edits("args"), *_headers()),
        changes=({"args": {"text": "b"}}, {"name": "u"}, {"name": "v", "args": {}}, {"args": None}, {}),
        writable=("name", "args", "headers"),
        entity=("tools", "name"),
    ),
    "tool_post_invoke": HookFacts(
        payloads=(
            {"name": "t", "result": _content()},
            {"name": "u", "result": {"content": [{"type": "text", "text": "secret"}]}},
            {"name": "t", "result": "text"},
            {"name": "t", "result": None},
            {"name": "t", "result": [1, {"a": 1}]},
        ),
        edits=(*_edits("result"), {"path": ["result", "content", 0], "do": "set", "key": "text", "value": "***"}),
        changes=({"result": {"text": "b"}}, {"result": "c"}, {"name": "u"}, {"result": None}, {}),
        writable=("result", "name"),
        entity=("tools", "name"),
    ),
    "prompt_pre_fetch": HookFacts(
        payloads=(
            {"prompt_id": "t", "args": {"text": "a"}},
            {"prompt_id": "u", "args": {}},
            {"prompt_id": "t", "args": None},
        ),
        edits=_edits("args")[:6],
        changes=({"args": {"text": "b"}}, {"prompt_id": "u"}, {}),
        writable=("prompt_id", "args"),
        entity=("prompts", "prompt_id"),
    ),
    "prompt_post_fetch": HookFacts(
        payloads=(
            {"prompt_id": "t", "result": {"messages": _MESSAGES, "description": "d"}},
            {"prompt_id": "u", "result": [1]},
        ),
        edits=(
            {"path": ["result", "messages", 0, "content"], "do": "assign", "key": "text", "value": "edited"},
            {"path": ["result"], "do": "assign", "key": "description", "value": "edited"},
            {"path": ["result", "messages"], "do": "pop"},
            {"path": ["result"], "do": "append", "value": 2},
        ),
        changes=({"result": {"messages": []}}, {"prompt_id": "u"}, {}),
        writable=("result",),
        entity=("prompts", "prompt_id"),
    ),
    "resource_pre_fetch": HookFacts(
        payloads=({"uri": "t", "metadata": _content()}, {"uri": "u", "metadata": None}, {"uri": "t"}),
        edits=_edits("metadata"),
        changes=({"metadata": {"text": "b"}}, {"uri": "u"}, {}),
        writable=("uri", "metadata"),
        entity=("resources", "uri"),
    ),
    "resource_post_fetch": HookFacts(
        payloads=({"uri": "t", "content": _content()}, {"uri": "u", "content": "text"}, {"uri": "t", "content": [{}]}),
        edits=_edits("content"),
        changes=({"content": {"text": "b"}}, {"content": "c"}, {"uri": "u"}, {}),
        writable=("content",),
        entity=("resources", "uri"),
    ),
    "agent_pre_invoke": HookFacts(
        payloads=(
            {"agent_id": "t", "messages": _MESSAGES, "tools": ["a"], "parameters": _content()},
            {"agent_id": "u", "messages": [], "model": "m"},
        ),
        edits=(*_edits("parameters"), *_MESSAGE_EDITS, {"path": ["tools"], "do": "append", "value": "b"}),
        changes=({"agent_id": "u"}, {"messages": []}, {"model": "n", "system_prompt": "s"}, {"tools": ["b"]}, {}),
        writable=("agent_id", "messages", "tools", "model", "system_prompt", "parameters", "headers"),
        entity=("agents", "agent_id"),
    ),
    "agent_post_invoke": HookFacts(
        payloads=({"agent_id": "t", "messages": _MESSAGES, "tool_calls": [{"name": "a", "args": {"x": 1}}]},),
        edits=(*_MESSAGE_EDITS, {"path": ["tool_calls", 0, "args"], "do": "set", "key": "x", "value": 2}),
        changes=({"messages": []}, {"tool_calls": None}, {}),
        writable=("messages", "tool_calls"),
        entity=("agents", "agent_id"),
    ),
    "http_pre_request": HookFacts(payloads=(_HTTP,), edits=_headers(), replies=_HEADER_REPLIES, writable=("headers",)),
    "http_post_request": HookFacts(
        payloads=({**_HTTP, "response_headers": {"A": "1"}, "status_code": 200},),
        edits=_headers("response_headers"),
        replies=_HEADER_REPLIES,
        writable=("headers",),
    ),
    "http_auth_resolve_user": HookFacts(
        payloads=({"credentials": {"type": "bearer", "box": {"deep": 1}}, "headers": {"A": "1"}},),
        edits=({"path": ["credentials", "box"], "do": "set", "key": "deep", "value": 2}, *_headers()),
        replies=({"email": "a@b"}, {"email": "c@d", "groups": ["x"]}),
    ),
    "http_auth_check_permission": HookFacts(
        payloads=({"user_email": "a@b", "permission": "p", "is_admin": False},),
        replies=({"granted": True, "reason": "yes"}, {"granted": False, "reason": "no"}, {"granted": True}),
        writable=("reason",),
    ),
    "token_delegate": HookFacts(
        payloads=({"target_name": "t", "bearer_token": "secret-token-1234", "required_permissions": ["a"]},),
        edits=({"path": ["required_permissions"], "do": "append", "value": "b"},),
        replies=({"delegated_token": "x"}, {"delegated_token": "y", "forwarded_headers": {"A": "1"}}),
        entity=("tools", "target_name"),
    ),
    "identity_resolve": HookFacts(
        payloads=({"raw_token": "secret-token-1234", "headers": {"A": "1"}},),
        edits=({"path": ["headers"], "do": "set", "key": "A", "value": "2"},),
        replies=({"raw_claims": {"sub": "me"}}, {"raw_claims": {"sub": "you"}, "reject_reason": "r"}),
    ),
    "evaluate": _TALK,
    "cmf.tool_pre_invoke": _TALK,
    "cmf.llm_output": _TALK,
}

PAIRS: dict[str, str] = {
    "tool_pre_invoke": "tool_post_invoke",
    "prompt_pre_fetch": "prompt_post_fetch",
    "resource_pre_fetch": "resource_post_fetch",
    "agent_pre_invoke": "agent_post_invoke",
    "http_pre_request": "http_post_request",
    "http_auth_resolve_user": "http_auth_check_permission",
}
"""The hook that follows another in the same request."""
