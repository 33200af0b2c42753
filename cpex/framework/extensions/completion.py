"""How a language model's answer ended, and what it cost."""

from __future__ import annotations

from enum import Enum

from cpex.framework.extensions.base import ExtensionModel

__all__ = ["CompletionExtension", "StopReason", "TokenUsage"]


class StopReason(str, Enum):
    """Why generation ended."""

    END = "end"
    RETURN = "return"
    CALL = "call"
    MAX_TOKENS = "max_tokens"
    STOP_SEQUENCE = "stop_sequence"


class TokenUsage(ExtensionModel):
    """Tokens as the provider counted them; the total is its own figure and need not be the sum."""

    input_tokens: int
    output_tokens: int
    total_tokens: int


class CompletionExtension(ExtensionModel):
    """Facts about one completion."""

    stop_reason: StopReason | None = None
    tokens: TokenUsage | None = None
    model: str | None = None
    raw_format: str | None = None
    """Name of the provider's format that the answer was converted from."""
    created_at: str | None = None
    """ISO 8601 text; kept as it was given."""
    latency_ms: int | None = None
