"""Which request this is, and where it stands in a distributed trace."""

from __future__ import annotations

from cpex.framework.extensions.base import ExtensionModel

__all__ = ["RequestExtension"]


class RequestExtension(ExtensionModel):
    """The identity of one request, as the host has set it."""

    environment: str | None = None
    """Free text such as `production`, `staging` or `dev`."""
    request_id: str | None = None
    timestamp: str | None = None
    """ISO 8601 text; kept as it was given."""
    trace_id: str | None = None
    span_id: str | None = None
