"""The plugin that every transport must run alike. The name of the tool says what it is to do."""

from __future__ import annotations

import asyncio
from typing import Any

from cpex.framework import (
    Plugin,
    PluginContext,
    PluginError,
    PluginViolation,
    PluginViolationError,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)
from cpex.framework.extensions import Extensions
from cpex.framework.models.result import PluginErrorModel, PluginResult


class ContractPlugin(Plugin):
    """One behaviour for each tool name; an unknown one is allowed."""

    async def tool_pre_invoke(
        self, payload: ToolPreInvokePayload, context: PluginContext, extensions: Extensions | None
    ) -> PluginResult[Any]:
        """Do what the tool's name says."""
        behaviour = getattr(self, f"on_{payload.name}", None)
        return await behaviour(payload, context, extensions) if behaviour is not None else PluginResult()

    async def tool_post_invoke(self, payload: ToolPostInvokePayload, context: PluginContext) -> PluginResult[Any]:
        """Tell what the pre hook left behind."""
        result = {"state": dict(context.state), "metadata": dict(context.metadata), "was": payload.result}
        return PluginResult(modified_payload=payload.model_copy(update={"result": result}))

    async def on_describe(self, payload: Any, context: PluginContext, extensions: Any) -> PluginResult[Any]:
        """Tell the type of every argument, and of what the context holds."""
        told = {name: f"{type(value).__name__} {value!r}" for name, value in payload.args.items()}
        shared = context.global_context
        user = shared.user_context.model_dump(mode="json") if shared.user_context is not None else None
        told["context"] = repr((shared.request_id, shared.user, user, shared.tenant_id, shared.content_type))
        return PluginResult(metadata={"told": told})

    async def on_add(self, payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        """Rewrite one argument and leave the others alone."""
        changed = payload.model_copy(update={"args": {**payload.args, "added": [1, 2.5, None, "ü\n\u2028"]}})
        return PluginResult(modified_payload=changed, metadata={"note": 1}, http_headers={"x-a": "b"}, retry_delay_ms=7)

    async def on_deny(self, payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        """Deny, with everything that a denial can say."""
        violation = PluginViolation(
            reason="no",
            description="not today",
            code="NO",
            details={"count": 3, "share": 0.5, "list": [1, {"a": None}]},
            mcp_error_code=-32001,
            http_status_code=429,
            http_headers={"Retry-After": "3"},
        )
        return PluginResult(
            continue_processing=False,
            violation=violation,
            metadata={"seen": 2},
            denial_metadata={"score": 0.25, "limit": 10, "hard": True},
            http_headers={"x-limit": "10"},
            retry_delay_ms=3000,
        )

    async def on_raise(self, payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        """Fail."""
        raise ValueError("this plugin is broken")

    async def on_raise_denial(self, payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        """Deny by raising."""
        violation = PluginViolation(reason="raised", description="as an exception", code="RAISED")
        raise PluginViolationError("raised", violation)

    async def on_remember(self, payload: Any, context: PluginContext, extensions: Any) -> PluginResult[Any]:
        """Write to every map of the context, and delete from the shared state."""
        context.set_state("seen", {"n": 1, "list": [payload.args["what"]]})
        context.metadata["mine"] = "yes"
        shared = context.global_context.state
        shared["written"] = 5
        shared.pop("doomed", None)
        shared.get("nested", {})["deep"] = True
        return PluginResult()

    async def on_look(self, payload: Any, context: Any, extensions: Extensions | None) -> PluginResult[Any]:
        """Tell which slots are in sight, and add a label."""
        if extensions is None:
            return PluginResult(metadata={"slots": None})
        slots = sorted(name for name in Extensions.model_fields if getattr(extensions, name) is not None)
        labels = sorted(extensions.security.labels) if extensions.security is not None else []
        headers = dict(extensions.http.headers) if extensions.http is not None else None
        told = {"slots": slots, "labels": labels, "headers": headers, "custom": extensions.custom}
        if extensions.security is None:
            return PluginResult(metadata=told)
        grown = extensions.security.model_copy(update={"labels": extensions.security.labels | {"SEEN"}})
        changed = extensions.model_copy(update={"security": grown, "custom": {"by": "plugin", "n": 1}})
        return PluginResult(metadata=told, modified_extensions=changed)

    async def on_secret(self, payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        """Tell what a secret looks like from here, and rewrite another argument."""
        secret = payload.args["secret"]
        seen = secret.get_secret_value() if hasattr(secret, "get_secret_value") else secret
        changed = payload.model_copy(update={"args": {**payload.args, "other": 2}})
        return PluginResult(modified_payload=changed, metadata={"length": len(seen), "stars": set(seen) == {"*"}})

    async def on_hang(self, payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        """Wait for what never comes."""
        await asyncio.Event().wait()
        raise AssertionError("the event is never set")

    async def on_fail_in_detail(self, payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        """Fail with everything that an error can say."""
        details = {"where": ["here", 1]}
        raise PluginError(PluginErrorModel(message="in detail", plugin_name="p", code="DETAILED", details=details))

    swells = 0

    async def on_swell(self, payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        """Answer with more than any transport carries, and count how often that was asked for."""
        self.swells += 1
        return PluginResult(metadata={"much": "x" * 20_000_000})

    async def on_count_swells(self, payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        """Tell how often that was."""
        return PluginResult(metadata={"swells": self.swells})

    async def on_cancel(self, payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        """End as if somebody had cancelled it."""
        raise asyncio.CancelledError

    async def on_echo(self, payload: Any, context: PluginContext, extensions: Any) -> PluginResult[Any]:
        """Give the answer of this very call, after letting others overtake."""
        for _ in range(int(payload.args["turns"])):
            await asyncio.sleep(0)
        context.set_state("number", payload.args["number"])
        return PluginResult(metadata={"number": payload.args["number"]})
