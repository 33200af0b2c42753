"""The tool allow list: which tools may be invoked, and which never."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from typing import Any, Literal

from pydantic import BaseModel

from cpex.framework import (
    AgentPreInvokePayload,
    AgentPreInvokeResult,
    Plugin,
    PluginConfig,
    PluginContext,
    PluginViolation,
    ToolPostInvokePayload,
    ToolPostInvokeResult,
    ToolPreInvokePayload,
    ToolPreInvokeResult,
)

__all__ = ["ToolAllowListPlugin", "ToolAllowListSettings"]

logger = logging.getLogger(__name__)

CODE = "TOOL_NOT_ALLOWED"
_MAX_NAMED = 10
"""Tools that a message names before it is cut."""


class ToolAllowListSettings(BaseModel, extra="forbid", frozen=True):
    """Names of tools, or globs (`*`, `?`, `[abc]`), compared letter by letter."""

    allowed_tools: list[str] = []
    """What may be invoked; empty means everything that is not denied."""
    denied_tools: list[str] = []
    """What may not, whatever `allowed_tools` says."""
    agent_tools: Literal["remove", "deny"] = "remove"
    """What happens on `agent_pre_invoke` to tools that an agent must not have: they are taken away, or it is denied."""


class ToolAllowListPlugin(Plugin):
    """Denies tools that are not on the allow list, or are on the deny list.

    On `tool_pre_invoke` and `tool_post_invoke` the tool is judged by its name; on `agent_pre_invoke` the tools that the
    agent is given. Code of every denial: `TOOL_NOT_ALLOWED`. Without any list everything is allowed, with a warning at
    start.

    Source: docs/plugins/tool_allow_list.md.
    """

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings and compile the lists.

        Raises:
            pydantic.ValidationError: A setting is unknown or does not fit.
        """
        super().__init__(config)
        self._settings = ToolAllowListSettings.model_validate(config.config or {})
        self._allowed = _matcher(self._settings.allowed_tools)
        self._denied = _matcher(self._settings.denied_tools)
        self._warned = False

    async def initialize(self) -> None:
        """Warn once when there is nothing to enforce."""
        if not self._warned and not (self._settings.allowed_tools or self._settings.denied_tools):
            self._warned = True
            logger.warning("plugin `%s` allows every tool; set `allowed_tools` or `denied_tools`", self.name)

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> ToolPreInvokeResult:
        """Deny a tool before it runs."""
        violation = self._judge(payload.name)
        return ToolPreInvokeResult(continue_processing=violation is None, violation=violation)

    async def tool_post_invoke(self, payload: ToolPostInvokePayload, context: PluginContext) -> ToolPostInvokeResult:
        """Keep back the result of a tool that should not have run."""
        violation = self._judge(payload.name)
        return ToolPostInvokeResult(continue_processing=violation is None, violation=violation)

    async def agent_pre_invoke(self, payload: AgentPreInvokePayload, context: PluginContext) -> AgentPreInvokeResult:
        """Take from an agent the tools that it must not have, or deny it."""
        refused = [name for name in payload.tools or [] if self._judge(name) is not None]
        if not refused:
            return AgentPreInvokeResult()
        if self._settings.agent_tools == "deny":
            return AgentPreInvokeResult(continue_processing=False, violation=self._judge(refused[0]))
        kept = [name for name in payload.tools or [] if name not in refused]
        return AgentPreInvokeResult(
            modified_payload=payload.model_copy(update={"tools": kept}),
            metadata={self.name: {"removed_tools": refused[:_MAX_NAMED], "removed": len(refused)}},
        )

    def _judge(self, tool: str) -> PluginViolation | None:
        if self._denied(tool):
            return _violation(f"Tool '{tool}' is on the deny list", "This tool must not be invoked.", tool)
        if self._settings.allowed_tools and not self._allowed(tool):
            return _violation(f"Tool '{tool}' not in allow list", "Only explicitly allowed tools may be invoked.", tool)
        return None


def _violation(reason: str, description: str, tool: str) -> PluginViolation:
    return PluginViolation(reason=reason, description=description, code=CODE, details={"tool": tool})


def _matcher(globs: Iterable[str]) -> Callable[[str], Any]:
    """One compiled test for all globs, with the meaning of `fnmatch.fnmatchcase`."""
    joined = "|".join(translate(glob) for glob in globs)
    # An empty alternation would match the empty name.
    return re.compile(joined or r"(?!)").match
