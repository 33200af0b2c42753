"""Which parts of a hook's payload carry content, as opposed to names and transport.

One table serves every built-in plugin that reads content, so that they agree on what a hook carries.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from cpex.framework import (
    AgentPostInvokePayload,
    AgentPreInvokePayload,
    PluginPayload,
    PromptPosthookPayload,
    PromptPrehookPayload,
    ResourcePostFetchPayload,
    ResourcePreFetchPayload,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)

if TYPE_CHECKING:
    # At run time messages are loaded by those who send some.
    from cpex.framework.hooks.message import MessagePayload

__all__ = [
    "AFTER_HOOKS",
    "BEFORE_HOOKS",
    "CONTENT_HOOKS",
    "GUARDED_HOOKS",
    "MESSAGE_HOOKS",
    "HookContent",
    "content_of",
    "is_message_payload",
]


@dataclass(frozen=True, slots=True)
class HookContent:
    """What one hook's payload carries."""

    hook: str
    fields: tuple[str, ...]
    """Payload fields whose content comes from users, models, tools or documents."""

    def values(self, payload: PluginPayload) -> dict[str, Any]:
        """The content fields that are there, by name."""
        found = ((name, getattr(payload, name, None)) for name in self.fields)
        return {name: value for name, value in found if value is not None}


_CONTENT: dict[type[PluginPayload], HookContent] = {
    ToolPreInvokePayload: HookContent("tool_pre_invoke", ("args",)),
    ToolPostInvokePayload: HookContent("tool_post_invoke", ("result",)),
    PromptPrehookPayload: HookContent("prompt_pre_fetch", ("args",)),
    PromptPosthookPayload: HookContent("prompt_post_fetch", ("result",)),
    ResourcePreFetchPayload: HookContent("resource_pre_fetch", ("uri", "metadata")),
    ResourcePostFetchPayload: HookContent("resource_post_fetch", ("content",)),
    AgentPreInvokePayload: HookContent("agent_pre_invoke", ("messages", "system_prompt", "parameters")),
    AgentPostInvokePayload: HookContent("agent_post_invoke", ("messages", "tool_calls")),
}

CONTENT_HOOKS = tuple(content.hook for content in _CONTENT.values())
"""Hooks whose payloads carry content, in the order in which an agent meets them."""
BEFORE_HOOKS = tuple(hook for hook in CONTENT_HOOKS if "_pre_" in hook)
AFTER_HOOKS = tuple(hook for hook in CONTENT_HOOKS if "_post_" in hook)
MESSAGE_HOOKS = (
    "evaluate",
    *("cmf.llm_input", "cmf.llm_output"),
    *("cmf.tool_pre_invoke", "cmf.tool_post_invoke"),
    *("cmf.prompt_pre_fetch", "cmf.prompt_post_fetch"),
    *("cmf.resource_pre_fetch", "cmf.resource_post_fetch"),
)
"""Hooks whose payload is a message in the common format."""
GUARDED_HOOKS = CONTENT_HOOKS + MESSAGE_HOOKS
"""Every hook that a plugin about content handles."""

_MESSAGE = HookContent("evaluate", ("message",))


def content_of(payload: PluginPayload) -> HookContent:
    """What a payload carries, by its class or the nearest base class that is known.

    Raises:
        TypeError: The class belongs to no hook that carries content.
    """
    for cls in type(payload).__mro__:
        if (content := _CONTENT.get(cls)) is not None:
            return content
    if is_message_payload(payload):
        return _MESSAGE
    raise TypeError(f"payload of class `{type(payload).__name__}` carries no content that is known here")


def is_message_payload(payload: Any) -> TypeGuard[MessagePayload]:
    """Whether a payload is a message in the common format."""
    # Before its module is loaded there can be no object of the class, and nobody pays for loading it.
    module = sys.modules.get("cpex.framework.hooks.message")
    return module is not None and isinstance(payload, module.MessagePayload)
