"""Hooks around the reading of a resource."""

from __future__ import annotations

from enum import Enum
from typing import Any, TypeAlias

from pydantic import Field

from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult

__all__ = [
    "ResourceHookType",
    "ResourcePostFetchPayload",
    "ResourcePostFetchResult",
    "ResourcePreFetchPayload",
    "ResourcePreFetchResult",
]


class ResourceHookType(str, Enum):
    """Names of the resource hooks."""

    RESOURCE_PRE_FETCH = "resource_pre_fetch"
    RESOURCE_POST_FETCH = "resource_post_fetch"


class ResourcePreFetchPayload(PluginPayload):
    """A resource that is about to be read."""

    uri: str
    """Any text; it is not checked to be a URI."""
    metadata: dict[str, Any] | None = Field(default_factory=dict)


class ResourcePostFetchPayload(PluginPayload):
    """A resource that was read."""

    uri: str
    content: Any
    """What was read, as the host has it; a dict stays a dict."""


ResourcePreFetchResult: TypeAlias = PluginResult[ResourcePreFetchPayload]
ResourcePostFetchResult: TypeAlias = PluginResult[ResourcePostFetchPayload]
