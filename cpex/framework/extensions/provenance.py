"""Where a message came from."""

from __future__ import annotations

from cpex.framework.extensions.base import ExtensionModel

__all__ = ["ProvenanceExtension"]


class ProvenanceExtension(ExtensionModel):
    """The origin of a message and the message it answers."""

    source: str | None = None
    message_id: str | None = None
    parent_id: str | None = None
