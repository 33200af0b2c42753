"""The tool allow list: which tools may be invoked, by whom, with which arguments, and which never."""

from __future__ import annotations

import logging
from typing import Any, Literal

from pydantic import BaseModel, Field

from cpex.builtins.content import MESSAGE_HOOKS
from cpex.builtins.guard import Guard, GuardedCall
from cpex.builtins.security.argument_schemas import ArgumentSchemas, Misfit
from cpex.builtins.security.tool_rules import ToolLists, ToolRule
from cpex.builtins.targets import Target, targets_of
from cpex.framework import (
    AgentPreInvokePayload,
    PluginConfig,
    PluginMode,
    PluginResult,
    PluginViolation,
    ToolListPayload,
)

__all__ = ["ToolAllowListPlugin", "ToolAllowListSettings"]

logger = logging.getLogger(__name__)

CODE = "TOOL_NOT_ALLOWED"
CODE_ARGS = "TOOL_ARGS_INVALID"
_MAX_NAMED = 10
"""Tools that a message names before it is cut."""


class ToolAllowListSettings(BaseModel, extra="forbid", frozen=True):
    """Names of tools, or globs (`*`, `?`, `[abc]`), compared letter by letter."""

    allowed_tools: list[str] = []
    """What may be invoked; empty means everything that is not denied, or nothing when there are `rules`."""
    denied_tools: list[str] = []
    """What may not, whatever anything else says."""
    rules: list[ToolRule] = []
    """Lists of their own for some tenants and servers; the first that applies counts instead of `allowed_tools`."""
    schemas: dict[str, dict[str, Any] | bool] = Field(default={})
    """JSON Schemas of arguments by tool name or glob; arguments must fit all that match."""
    on_missing_schema: Literal["allow", "deny"] = "allow"
    """What becomes of a tool that is allowed and that no schema is about."""
    agent_tools: Literal["remove", "deny"] = "remove"
    """What happens on `agent_pre_invoke` to tools that an agent must not have: they are taken away, or it is denied.

    In mode `concurrent`, which can take nothing away, it is denied.
    """


class ToolAllowListPlugin(Guard):
    """Denies tools that are not on the allow list or are on the deny list, and arguments that do not fit a schema.

    On `tool_list` tools that may not be called are left out. On `tool_pre_invoke` and `tool_post_invoke` the tool is
    judged by its name, its arguments by its schemas; on `agent_pre_invoke` the tools that the agent is given; in a
    message every tool that it calls or has an answer of.
    Codes: `TOOL_NOT_ALLOWED`, and `TOOL_ARGS_INVALID` with the places and the keywords that were not met. Without any
    list everything is allowed, with a warning at start.

    Source: docs/plugins/tool_allow_list.md.
    """

    settings_model = ToolAllowListSettings
    guards = ("tool_list", "tool_pre_invoke", "tool_post_invoke", "agent_pre_invoke", *MESSAGE_HOOKS)

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings, compile lists and schemas.

        Raises:
            pydantic.ValidationError: A setting is unknown or does not fit.
            ValueError: A schema cannot be used.
            ModuleNotFoundError: There are schemas, and the library for them is not installed.
        """
        super().__init__(config)
        self._settings = settings = ToolAllowListSettings.model_validate(config.config or {})
        self._lists = ToolLists(settings.allowed_tools, settings.denied_tools, settings.rules)
        self._schemas = ArgumentSchemas(settings.schemas)
        self._warned = False

    async def initialize(self) -> None:
        """Warn once when there is nothing to enforce."""
        settings = self._settings
        if not self._warned and not (settings.allowed_tools or settings.denied_tools or settings.rules):
            self._warned = True
            logger.warning("plugin `%s` allows every tool; set `allowed_tools` or `denied_tools`", self.name)

    async def on_hook(self, call: GuardedCall) -> PluginResult[Any]:
        """Judge every tool that the call is about."""
        if isinstance(call.payload, AgentPreInvokePayload):
            return self._judge_agent(call, call.payload)
        if isinstance(call.payload, ToolListPayload):
            return self._judge_list(call, call.payload)
        for target in targets_of(call.hook, call.payload):
            if target.kind == "tool" and (violation := self._judge(call, target)) is not None:
                return PluginResult(continue_processing=False, violation=violation)
        return PluginResult()

    def _judge(self, call: GuardedCall, target: Target) -> PluginViolation | None:
        shared = call.context.global_context
        reason = self._lists.refusal(target.name, shared.tenant_id, target.server or shared.server_id)
        if reason is not None:
            return _not_allowed(target.name, reason)
        if target.answer is not None or call.hook == "tool_post_invoke":
            return None
        if misfits := self._schemas.misfits(target.name, target.args or {}):
            return _misfit(target, misfits)
        if self._settings.on_missing_schema == "deny" and not self._schemas.covers(target.name):
            return _not_allowed(target.name, "has no schema")
        return None

    def _judge_agent(self, call: GuardedCall, payload: AgentPreInvokePayload) -> PluginResult[Any]:
        """Take from an agent the tools that it must not have, or deny it."""
        shared = call.context.global_context
        refused = {
            name: reason
            for name in payload.tools or []
            if (reason := self._lists.refusal(name, shared.tenant_id, shared.server_id)) is not None
        }
        if not refused:
            return PluginResult()
        # SECURITY: what is removed in this mode the pipeline drops, and the agent would keep every tool.
        if self._settings.agent_tools == "deny" or self.config.mode is PluginMode.CONCURRENT:
            return PluginResult(continue_processing=False, violation=_not_allowed(*next(iter(refused.items()))))
        kept = [name for name in payload.tools or [] if name not in refused]
        return PluginResult(
            modified_payload=payload.model_copy(update={"tools": kept}),
            metadata={self.name: {"removed_tools": list(refused)[:_MAX_NAMED], "removed": len(refused)}},
        )

    def _judge_list(self, call: GuardedCall, payload: ToolListPayload) -> PluginResult[Any]:
        """Hide from a client what it may not call."""
        shared = call.context.global_context
        must_fit = self._settings.on_missing_schema == "deny"
        kept = [
            tool
            for tool in payload.tools
            if self._lists.refusal(name := str(tool.get("name")), shared.tenant_id, shared.server_id) is None
            and (not must_fit or self._schemas.covers(name))
        ]
        hidden = len(payload.tools) - len(kept)
        if not hidden:
            return PluginResult()
        return PluginResult(modified_payload=ToolListPayload(tools=kept), metadata={self.name: {"hidden": hidden}})


def _not_allowed(tool: str, reason: str) -> PluginViolation:
    description = "Only explicitly allowed tools may be invoked."
    if reason == "is on the deny list":
        description = "This tool must not be invoked."
    return PluginViolation(reason=f"Tool '{tool}' {reason}", description=description, code=CODE, details={"tool": tool})


def _misfit(target: Target, misfits: list[Misfit]) -> PluginViolation:
    places = ", ".join(f"{misfit['path']} ({misfit['rule']})" for misfit in misfits)
    return PluginViolation(
        reason=f"Arguments of tool '{target.name}' do not fit its schema",
        description=f"Not as the schema has it: {places}.",
        code=CODE_ARGS,
        details={"tool": target.name, "misfits": misfits},
    )
