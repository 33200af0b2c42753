"""What the engine's tests share: plugins made of functions, managers made of plugins, a provider that keeps spans."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from cpex.framework.base import Plugin
from cpex.framework.hooks.policies import DefaultHookPolicy, HookPayloadPolicy
from cpex.framework.hooks.tools import ToolPreInvokePayload
from cpex.framework.manager import TenantPluginManager
from cpex.framework.models.config import Config, PluginConfig
from cpex.framework.models.context import GlobalContext, PluginContextTable
from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginResult, PluginViolation

TOOL = "tool_pre_invoke"
Handler = Callable[..., Awaitable[Any]]


class FunctionPlugin(Plugin):
    """A plugin whose handler for every hook of its configuration is one function."""

    def __init__(self, config: PluginConfig, handler: Handler) -> None:
        super().__init__(config)
        for hook in config.hooks:
            setattr(self, hook, handler)


def plugin(handler: Handler, name: str = "p", hooks: Iterable[str] = (TOOL,), **config: Any) -> FunctionPlugin:
    """A plugin around one handler; everything else as `PluginConfig` has it."""
    return FunctionPlugin(PluginConfig(name=name, kind="test.Plugin", hooks=list(hooks), **config), handler)


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


def denial(code: str = "NO", **result: Any) -> PluginResult[Any]:
    """An answer that denies."""
    violation = PluginViolation(reason="because", description="it is so", code=code)
    return PluginResult(continue_processing=False, violation=violation, **result)


def record_of(records: Iterable[ControlExecutionRecord], name: str = "p") -> ControlExecutionRecord:
    """The one record of a plugin."""
    (record,) = [each for each in records if each.plugin_name == name]
    return record


def other_tasks() -> set[asyncio.Task[Any]]:
    """Every task of the running loop but the caller's."""
    return {task for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def allow(payload: Any, context: Any) -> PluginResult[Any]:
    """A handler that has nothing to say."""
    return PluginResult()


async def deny(payload: Any, context: Any) -> PluginResult[Any]:
    """A handler that always denies."""
    return denial()


async def never(payload: Any, context: Any) -> PluginResult[Any]:
    """A handler that waits for what never comes."""
    await asyncio.Event().wait()
    raise AssertionError("the event is never set")


@dataclass
class SpanLog:
    """An observability provider that keeps what it is told."""

    started: list[dict[str, Any]] = field(default_factory=list)
    ended: list[dict[str, Any]] = field(default_factory=list)

    def start_span(self, **span: Any) -> str:
        """Keep a span under its number."""
        self.started.append(span)
        return str(len(self.started) - 1)

    def end_span(self, **end: Any) -> None:
        """Keep its end."""
        self.ended.append(end)

    def open(self) -> list[str]:
        """Names of spans that were not closed exactly once."""
        closed = [end["span_id"] for end in self.ended]
        return [span["name"] for number, span in enumerate(self.started) if closed.count(str(number)) != 1]

    def end_of(self, name: str, trace_id: str | None = None) -> dict[str, Any]:
        """How the one span of that name (in that trace) ended."""
        (number,) = [
            str(number)
            for number, span in enumerate(self.started)
            if span["name"] == name and trace_id in (None, span["trace_id"])
        ]
        (end,) = [end for end in self.ended if end["span_id"] == number]
        return end
