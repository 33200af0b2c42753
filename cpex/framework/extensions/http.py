"""The HTTP request that carried the operation."""

from __future__ import annotations

from pydantic import Field

from cpex.framework.extensions.base import ExtensionModel

__all__ = ["HttpExtension"]


class HttpExtension(ExtensionModel):
    """The request's headers, credentials included."""

    headers: dict[str, str] = Field(default_factory=dict)
    """Spelled as the host received them."""
