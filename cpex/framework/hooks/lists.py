"""Hooks about lists of tools, prompts and resources that a client is about to see.

A plugin takes out what the client may not use, or rewrites what is said of it. What is hidden can still be called by
name: the hooks around the call decide about that.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

from pydantic import Field

from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult

__all__ = [
    "ListHookType",
    "PromptListPayload",
    "PromptListResult",
    "ResourceListPayload",
    "ResourceListResult",
    "ToolListPayload",
    "ToolListResult",
]


class ListHookType(str, Enum):
    """Names of the list hooks."""

    TOOL_LIST = "tool_list"
    PROMPT_LIST = "prompt_list"
    RESOURCE_LIST = "resource_list"


class ToolListPayload(PluginPayload):
    """A list of tools, or a page of one."""

    tools: list[dict[str, Any]]
    """Each as MCP's `Tool`: `name`, and perhaps `title`, `description`, `inputSchema`, `outputSchema`, ..."""


class PromptListPayload(PluginPayload):
    """A list of prompts, or a page of one."""

    prompts: list[dict[str, Any]]
    """Each as MCP's `Prompt`: `name`, and perhaps `title`, `description`, `arguments`, ..."""


class ResourceListPayload(PluginPayload):
    """A list of resources or one of templates, or a page of one; the other is empty."""

    resources: list[dict[str, Any]] = Field(default_factory=list)
    """Each as MCP's `Resource`: `uri` and `name`, and perhaps `description`, `mimeType`, ..."""
    templates: list[dict[str, Any]] = Field(default_factory=list)
    """Each as MCP's `ResourceTemplate`: `uriTemplate` and `name`, and perhaps `description`, `mimeType`, ..."""


ToolListResult: TypeAlias = PluginResult[ToolListPayload]
PromptListResult: TypeAlias = PluginResult[PromptListPayload]
ResourceListResult: TypeAlias = PluginResult[ResourceListPayload]
