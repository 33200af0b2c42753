"""Hooks around the invocation of an agent."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field

from cpex.framework.hooks.headers import HttpHeaderPayload, warns_of_headers
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult
from cpex.framework.utils import coerce_nested

__all__ = [
    "AgentHookType",
    "AgentPostInvokePayload",
    "AgentPostInvokeResult",
    "AgentPreInvokePayload",
    "AgentPreInvokeResult",
]


class AgentHookType(str, Enum):
    """Names of the agent hooks."""

    AGENT_PRE_INVOKE = "agent_pre_invoke"
    AGENT_POST_INVOKE = "agent_post_invoke"


def _with_attributes(messages: Any) -> Any:
    if not isinstance(messages, list | tuple):
        return messages
    return [coerce_nested(each, whole=True) if isinstance(each, dict) else each for each in messages]


Messages: TypeAlias = Annotated[list[Any], BeforeValidator(_with_attributes)]
"""The host's own message objects, or dicts, which become readable by attribute."""


class AgentPreInvokePayload(PluginPayload):
    """An agent that is about to be invoked."""

    agent_id: str
    """May be rewritten to route the call to another agent."""
    messages: Messages
    tools: list[str] | None = None
    """Names of the tools that the agent may use."""
    headers: Annotated[HttpHeaderPayload | None, warns_of_headers("AgentPreInvokePayload")] = None
    """Deprecated in favour of `extensions.http.headers`."""
    model: str | None = None
    system_prompt: str | None = None
    parameters: dict[str, Any] | None = Field(default_factory=dict)
    """Settings of the language model, such as `temperature`."""


class AgentPostInvokePayload(PluginPayload):
    """An agent that has answered."""

    agent_id: str
    messages: Messages
    tool_calls: list[dict[str, Any]] | None = None
    """The calls that the agent asks for, in the host's format."""


AgentPreInvokeResult: TypeAlias = PluginResult[AgentPreInvokePayload]
AgentPostInvokeResult: TypeAlias = PluginResult[AgentPostInvokePayload]
