"""Hooks around the rendering of a prompt."""

from __future__ import annotations

from enum import Enum
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field

from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult
from cpex.framework.utils import coerce_nested

__all__ = [
    "PromptHookType",
    "PromptPosthookPayload",
    "PromptPosthookResult",
    "PromptPrehookPayload",
    "PromptPrehookResult",
]


class PromptHookType(str, Enum):
    """Names of the prompt hooks."""

    PROMPT_PRE_FETCH = "prompt_pre_fetch"
    PROMPT_POST_FETCH = "prompt_post_fetch"


class PromptPrehookPayload(PluginPayload):
    """A prompt that is about to be rendered."""

    prompt_id: str
    args: dict[str, str] | None = Field(default_factory=dict)
    """`{argument: text}`; MCP prompts take text only."""


def _with_attributes(result: Any) -> Any:
    return coerce_nested(result, whole=True) if isinstance(result, dict) else result


class PromptPosthookPayload(PluginPayload):
    """A prompt that was rendered."""

    prompt_id: str
    result: Annotated[Any, BeforeValidator(_with_attributes)]
    """The host's own object, or a dict, which becomes readable by attribute: `result.messages[0].content.text`."""


PromptPrehookResult: TypeAlias = PluginResult[PromptPrehookPayload]
PromptPosthookResult: TypeAlias = PluginResult[PromptPosthookPayload]
