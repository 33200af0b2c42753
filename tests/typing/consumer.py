"""What hosts and plugin authors write, for the type checker alone: `make types` checks it in strict mode."""

from __future__ import annotations

from typing import assert_type

from cpex.framework import (
    ConfigLoader,
    GlobalContext,
    HookPayloadPolicy,
    Plugin,
    PluginConfig,
    PluginContext,
    PluginContextTable,
    PluginMode,
    PluginPayload,
    PluginResult,
    PluginViolation,
    TenantPluginManager,
    ToolPostInvokePayload,
    ToolPostInvokeResult,
    ToolPreInvokePayload,
    ToolPreInvokeResult,
    hook,
)
from cpex.framework.extensions import Extensions
from cpex.framework.models import Config, HookOutcome


class EmailPayload(PluginPayload):
    """A hook of the host's own."""

    to: str


EmailResult = PluginResult[EmailPayload]


class Guard(Plugin):
    """Uses every form that a handler may have."""

    def __init__(self, config: PluginConfig) -> None:
        super().__init__(config)
        self._allowed: set[str] = set((config.config or {}).get("allowed", []))

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> ToolPreInvokeResult:
        """Two arguments."""
        assert_type(payload.name, str)
        if payload.name not in self._allowed:
            violation = PluginViolation(reason="no", description="not on the list", code="NO")
            return ToolPreInvokeResult(continue_processing=False, violation=violation)
        context.set_state("seen", True)
        return ToolPreInvokeResult(modified_payload=payload.model_copy(update={"args": {**(payload.args or {})}}))

    async def tool_post_invoke(
        self, payload: ToolPostInvokePayload, context: PluginContext, extensions: Extensions | None
    ) -> ToolPostInvokeResult:
        """Three arguments."""
        session = extensions.agent.session_id if extensions and extensions.agent else None
        return ToolPostInvokeResult(metadata={"session": session})

    @hook("email_pre_send", EmailPayload, EmailResult)
    async def on_email(self, payload: EmailPayload, context: PluginContext) -> PluginResult[EmailPayload]:
        """A hook of the host's own."""
        assert_type(payload.to, str)
        return EmailResult()

    async def hook_completed(self, outcome: HookOutcome) -> None:
        """What was finally decided."""
        assert_type(outcome.allowed, bool)


async def host() -> None:
    """The calls that a host makes."""
    config: Config = ConfigLoader.load_config("plugins.yaml")
    policies = {"tool_pre_invoke": HookPayloadPolicy(writable_fields=frozenset({"args"}))}
    manager = TenantPluginManager(config, hook_policies=policies)
    await manager.initialize()
    payload = ToolPreInvokePayload(name="search", args={"q": "x"})
    context = GlobalContext(request_id="1")
    result, table = await manager.invoke_hook("tool_pre_invoke", payload, global_context=context)
    assert_type(table, PluginContextTable | None)
    assert_type(result.continue_processing, bool)
    assert_type(result.executions[0].mode, PluginMode)
    await manager.shutdown()
