"""Labels that the host puts on an operation for its own purposes."""

from __future__ import annotations

from pydantic import Field

from cpex.framework.extensions.base import ExtensionModel

__all__ = ["MetaExtension"]


class MetaExtension(ExtensionModel):
    """The host's own tags and properties."""

    tags: frozenset[str] = frozenset()
    scope: str | None = None
    properties: dict[str, str] = Field(default_factory=dict)
