"""What an MCP server says about the tool, resource or prompt involved."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from cpex.framework.extensions.base import ExtensionModel

__all__ = ["MCPExtension", "PromptMetadata", "ResourceMetadata", "ToolMetadata"]


class ToolMetadata(ExtensionModel):
    """A tool as its server lists it."""

    name: str
    title: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    """JSON Schema."""
    output_schema: dict[str, Any] | None = None
    """JSON Schema."""
    server_id: str | None = None
    namespace: str | None = None
    annotations: dict[str, Any] = Field(default_factory=dict)


class ResourceMetadata(ExtensionModel):
    """A resource as its server lists it."""

    uri: str
    name: str | None = None
    description: str | None = None
    mime_type: str | None = None
    server_id: str | None = None
    annotations: dict[str, Any] = Field(default_factory=dict)


class PromptMetadata(ExtensionModel):
    """A prompt as its server lists it."""

    name: str
    description: str | None = None
    arguments: list[dict[str, Any]] | None = None
    """One dict per argument, as MCP's `PromptArgument`."""
    server_id: str | None = None
    annotations: dict[str, Any] = Field(default_factory=dict)


class MCPExtension(ExtensionModel):
    """Metadata of the entity involved; by convention one of the three is set."""

    tool: ToolMetadata | None = None
    resource: ResourceMetadata | None = None
    prompt: PromptMetadata | None = None
