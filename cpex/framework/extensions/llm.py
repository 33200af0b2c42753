"""Which language model is involved."""

from __future__ import annotations

from pydantic import Field

from cpex.framework.extensions.base import ExtensionModel

__all__ = ["LLMExtension"]


class LLMExtension(ExtensionModel):
    """The language model behind the operation."""

    model_id: str | None = None
    provider: str | None = None
    capabilities: list[str] = Field(default_factory=list)
    """What the model can do; unrelated to the capabilities of plugins."""
