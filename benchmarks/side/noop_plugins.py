"""The smallest plugins there are, written with names that both releases export."""

from __future__ import annotations

from cpex.framework import Plugin, PluginContext, ToolPreInvokePayload, ToolPreInvokeResult

CHANGED_KEY = "key_50"
"""The one of the large payload's keys that the rewriting plugins change."""


class NoOp(Plugin):
    """Allows everything."""

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> ToolPreInvokeResult:
        """Look at nothing, and allow."""
        return ToolPreInvokeResult(continue_processing=True)


class RewriteCopy(Plugin):
    """Replaces one argument in a new dict, as the guardrail of the published patterns does."""

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> ToolPreInvokeResult:
        """Return a payload with one argument replaced."""
        args = {**(payload.args or {}), CHANGED_KEY: "rewritten"}
        return ToolPreInvokeResult(continue_processing=True, modified_payload=payload.model_copy(update={"args": args}))


class RewriteInPlace(Plugin):
    """Replaces one argument in the dict it was handed, as plugins on the package index do."""

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> ToolPreInvokeResult:
        """Edit the payload and return it."""
        if payload.args is not None:
            payload.args[CHANGED_KEY] = "rewritten"
        return ToolPreInvokeResult(continue_processing=True, modified_payload=payload)
