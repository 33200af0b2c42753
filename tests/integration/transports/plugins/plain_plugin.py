"""A plugin of few words, written against names that release 0.1 has too."""

from __future__ import annotations

from typing import Any

from cpex.framework import (
    Plugin,
    PluginContext,
    PluginViolation,
    ToolPostInvokePayload,
    ToolPostInvokeResult,
    ToolPreInvokePayload,
    ToolPreInvokeResult,
)


class PlainPlugin(Plugin):
    """The name of the tool says what it is to do."""

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> ToolPreInvokeResult:
        """Allow, rewrite, deny or fail."""
        args: dict[str, Any] = payload.args or {}
        if payload.name == "deny":
            violation = PluginViolation(
                reason="no", description="not today", code="NO", details={"count": 3, "list": [1.5, None]}
            )
            return ToolPreInvokeResult(continue_processing=False, violation=violation)
        if payload.name == "raise":
            raise ValueError("this plugin is broken")
        if payload.name == "add":
            context.global_context.state["seen"] = args["text"]
            changed = payload.model_copy(update={"args": {**args, "added": ["x", 1.5, None, {"ü": True}]}})
            return ToolPreInvokeResult(modified_payload=changed, metadata={"note": "n"})
        return ToolPreInvokeResult()

    async def tool_post_invoke(self, payload: ToolPostInvokePayload, context: PluginContext) -> ToolPostInvokeResult:
        """Tell what the shared state holds."""
        told = {"was": payload.result, "seen": context.global_context.state.get("seen")}
        return ToolPostInvokeResult(modified_payload=payload.model_copy(update={"result": told}))
