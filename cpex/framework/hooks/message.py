"""Hooks about messages in the common format.

`evaluate` and the `cmf.` hooks carry the same payload. A host that speaks the common format calls them beside, or
instead of, the hooks of the single families; the framework converts nothing.
"""

from __future__ import annotations

from enum import Enum
from typing import TypeAlias

from cpex.framework.cmf.message import Message
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult

__all__ = ["CmfHookType", "MessageHookType", "MessagePayload", "MessageResult"]


class MessageHookType(str, Enum):
    """Where in the agent's loop a message stands: the value of `payload.hook`. Only `evaluate` is a hook by itself."""

    EVALUATE = "evaluate"
    LLM_INPUT = "llm_input"
    LLM_OUTPUT = "llm_output"
    TOOL_PRE_INVOKE = "tool_pre_invoke"
    TOOL_POST_INVOKE = "tool_post_invoke"
    PROMPT_PRE_FETCH = "prompt_pre_fetch"
    PROMPT_POST_FETCH = "prompt_post_fetch"
    RESOURCE_PRE_FETCH = "resource_pre_fetch"
    RESOURCE_POST_FETCH = "resource_post_fetch"


class CmfHookType(str, Enum):
    """Names of the hooks that a host calls with messages. A plugin binds them with `@hook`: they hold a dot."""

    TOOL_PRE_INVOKE = "cmf.tool_pre_invoke"
    TOOL_POST_INVOKE = "cmf.tool_post_invoke"
    LLM_INPUT = "cmf.llm_input"
    LLM_OUTPUT = "cmf.llm_output"
    RESOURCE_PRE_FETCH = "cmf.resource_pre_fetch"
    RESOURCE_POST_FETCH = "cmf.resource_post_fetch"
    PROMPT_PRE_FETCH = "cmf.prompt_pre_fetch"
    PROMPT_POST_FETCH = "cmf.prompt_post_fetch"


class MessagePayload(PluginPayload):
    """A message that passes through."""

    message: Message
    hook: MessageHookType = MessageHookType.EVALUATE
    """Where the message stands. Set by the host; the name of the called hook does not change it."""


MessageResult: TypeAlias = PluginResult[MessagePayload]
