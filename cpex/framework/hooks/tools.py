"""Hooks around the call of a tool."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from cpex.framework.hooks.headers import HttpHeaderPayload, warns_of_headers
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult

__all__ = [
    "ToolHookType",
    "ToolPostInvokePayload",
    "ToolPostInvokeResult",
    "ToolPreInvokePayload",
    "ToolPreInvokeResult",
]


class ToolHookType(str, Enum):
    """Names of the tool hooks."""

    TOOL_PRE_INVOKE = "tool_pre_invoke"
    TOOL_POST_INVOKE = "tool_post_invoke"


class ToolPreInvokePayload(PluginPayload):
    """A tool that is about to be called."""

    name: str
    args: dict[str, Any] | None = Field(default_factory=dict)
    """`{argument: value}`, as the tool takes them."""
    headers: Annotated[HttpHeaderPayload | None, warns_of_headers("ToolPreInvokePayload")] = None
    """Deprecated in favour of `extensions.http.headers`."""


class ToolPostInvokePayload(PluginPayload):
    """A tool that has answered."""

    name: str
    result: Any
    """The tool's answer as the host has it; a dict stays a dict."""


ToolPreInvokeResult: TypeAlias = PluginResult[ToolPreInvokePayload]
ToolPostInvokeResult: TypeAlias = PluginResult[ToolPostInvokePayload]
