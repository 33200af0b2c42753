"""Which agent framework runs the operation."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from cpex.framework.extensions.base import ExtensionModel

__all__ = ["FrameworkExtension"]


class FrameworkExtension(ExtensionModel):
    """The agent framework, and the place in its graph of nodes."""

    framework: str | None = None
    framework_version: str | None = None
    node_id: str | None = None
    graph_id: str | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
