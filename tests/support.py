"""What the engine's tests share beside `cpex.testing`: managers of ready plugins, and calls of them in one line."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from cpex.framework.base import Plugin
from cpex.framework.hooks.policies import DefaultHookPolicy, HookPayloadPolicy
from cpex.framework.hooks.tools import ToolPreInvokePayload
from cpex.framework.manager import TenantPluginManager
from cpex.framework.models.config import Config
from cpex.framework.models.context import GlobalContext, PluginContextTable
from cpex.framework.models.outcome import HookOutcome
from cpex.framework.models.result import PluginResult
from cpex.testing import FunctionPlugin, SpanLog, allow, denial, deny, never, record_of
from cpex.testing import plugin_of as plugin
from cpex.testing.fakes import Handler

__all__ = [
    "BEGUN_BY_THEN_S",
    "FunctionPlugin",
    "Handler",
    "SpanLog",
    "Watching",
    "allow",
    "call",
    "denial",
    "deny",
    "manager_of",
    "never",
    "of_ours",
    "other_tasks",
    "plugin",
    "record_of",
    "tool_payload",
]

TOOL = "tool_pre_invoke"
BEGUN_BY_THEN_S = 0.5
"""`hook_timeout_s` of a call that runs out of time, enough for its plugins to begin on a busy machine."""


def manager_of(
    *plugins: Plugin,
    timeout: float | None = 30,
    observability: Any = None,
    hook_policies: dict[str, HookPayloadPolicy] | None = None,
    default_hook_policy: str | DefaultHookPolicy | None = None,
    **limits: Any,
) -> TenantPluginManager:
    """A started manager with these plugins; `limits` are fields of `Config`."""
    manager = TenantPluginManager(Config(**limits), timeout, observability, hook_policies, default_hook_policy)
    # Managers make plugins from dotted names; functions have none that a configuration could say.
    for each in plugins:
        manager._registry.register(each)
    manager._initialized = True
    return manager


async def call(
    manager: TenantPluginManager, payload: Any = None, context: GlobalContext | None = None, **options: Any
) -> tuple[PluginResult[Any], PluginContextTable | None]:
    """Call the tool hook, or `hook=...`, with defaults for everything."""
    payload = payload if payload is not None else tool_payload()
    context = context if context is not None else GlobalContext(request_id="r")
    return await manager.invoke_hook(options.pop("hook", TOOL), payload, context, **options)


def tool_payload(**args: Any) -> ToolPreInvokePayload:
    """A call of the tool `t`."""
    return ToolPreInvokePayload(name="t", args=args or {"x": {"y": 1}})


def other_tasks() -> set[asyncio.Task[Any]]:
    """Every task of the running loop but the caller's."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


def of_ours(records: list[logging.LogRecord]) -> list[logging.LogRecord]:
    """What this package has logged: threads and objects of earlier tests may have something to say as well."""
    return [record for record in records if record.name.partition(".")[0] == "cpex"]


class Watching(FunctionPlugin):
    """A plugin that keeps the outcomes it was told."""

    def __init__(self, handler: Handler, name: str = "watching", **config: Any) -> None:
        super().__init__(plugin(handler, name, **config).config, handler)
        self.outcomes: list[HookOutcome] = []

    async def hook_completed(self, outcome: HookOutcome) -> None:
        self.outcomes.append(outcome)
