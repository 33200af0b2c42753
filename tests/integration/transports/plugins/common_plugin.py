"""A plugin that release 0.1.4 runs as this one does. The name of the tool says what it is to do."""

from __future__ import annotations

import asyncio
from typing import Any

from cpex.framework import Plugin, PluginContext, PluginResult, PluginViolation, ToolPreInvokePayload


class CommonPlugin(Plugin):
    """Written against the names that both have."""

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> PluginResult[Any]:
        """Do what the tool's name says."""
        args = payload.args or {}
        if payload.name == "deny":
            violation = PluginViolation(reason="no", description="not today", code="NO", details={"count": 3})
            return PluginResult(continue_processing=False, violation=violation)
        if payload.name == "add":
            return PluginResult(modified_payload=payload.model_copy(update={"args": {**args, "added": "ü"}}))
        if payload.name == "remember":
            context.state["seen"] = args
            context.global_context.state["shared"] = [1, None, "x"]
        if payload.name == "raise":
            raise ValueError("this plugin is broken")
        if payload.name == "echo":
            for _ in range(args["turns"]):
                await asyncio.sleep(0)
            return PluginResult(metadata={"number": args["number"]})
        return PluginResult()
