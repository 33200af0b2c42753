"""Plugins made of functions, plugins that keep what they see, and a tracing provider that keeps spans.

They stand beside the plugin under test, or in place of one that needs a network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from cpex.framework.base import Plugin
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.outcome import HookOutcome
from cpex.framework.models.result import PluginResult, PluginViolation

__all__ = [
    "FunctionPlugin",
    "Handler",
    "RecordingPlugin",
    "SpanLog",
    "allow",
    "crash",
    "denial",
    "deny",
    "never",
    "plugin_of",
]

Handler = Callable[..., Awaitable[Any]]
"""`async (payload, context)` or `async (payload, context, extensions)`, returning a `PluginResult`."""


class FunctionPlugin(Plugin):
    """A plugin whose handler for every hook of its configuration is one function."""

    def __init__(self, config: PluginConfig, handler: Handler) -> None:
        super().__init__(config)
        for hook in config.hooks:
            setattr(self, hook, handler)


def plugin_of(
    handler: Handler, name: str = "p", hooks: Iterable[str] = ("tool_pre_invoke",), **config: Any
) -> FunctionPlugin:
    """A plugin around one handler.

    Args:
        config: Fields of `PluginConfig`, such as `mode` and `priority`.
    """
    return FunctionPlugin(PluginConfig(name=name, kind="test.Plugin", hooks=list(hooks), **config), handler)


class RecordingPlugin(Plugin):
    """Allows everything and keeps what it is shown. In the last phase, that is what the pipeline made of a call.

    Attributes:
        calls: `(hook, payload, context)` of each call that reached it, in order.
        outcomes: How each hook call of the manager ended, also of calls that did not reach it; complete after
            `await harness.settle()`.
    """

    observes_all = True

    def __init__(
        self, name: str = "recorder", hooks: Iterable[str] = ("tool_pre_invoke", "tool_post_invoke"), **config: Any
    ) -> None:
        """Configure it.

        Args:
            config: Fields of `PluginConfig`; without a `mode` it is `audit`.
        """
        super().__init__(
            PluginConfig(name=name, kind="test.RecordingPlugin", hooks=list(hooks), **{"mode": "audit", **config})
        )
        self.calls: list[tuple[str, Any, Any]] = []
        self.outcomes: list[HookOutcome] = []
        for hook in self.hooks:
            setattr(self, hook, self._keeping(hook))

    def _keeping(self, hook: str) -> Handler:
        async def keep(payload: Any, context: Any) -> PluginResult[Any]:
            self.calls.append((hook, payload, context))
            return PluginResult()

        return keep

    async def hook_completed(self, outcome: HookOutcome) -> None:
        """Keep how a call ended."""
        self.outcomes.append(outcome)


def denial(code: str = "NO", **result: Any) -> PluginResult[Any]:
    """An answer that denies.

    Args:
        result: Further fields of the result.
    """
    violation = PluginViolation(reason="because", description="it is so", code=code)
    return PluginResult(continue_processing=False, violation=violation, **result)


async def allow(payload: Any, context: Any) -> PluginResult[Any]:
    """A handler that has nothing to say."""
    return PluginResult()


async def deny(payload: Any, context: Any) -> PluginResult[Any]:
    """A handler that always denies, with the code `NO`."""
    return denial()


async def crash(payload: Any, context: Any) -> PluginResult[Any]:
    """A handler that always fails."""
    raise RuntimeError("this plugin always fails")


async def never(payload: Any, context: Any) -> PluginResult[Any]:
    """A handler that waits for what never comes, until it is cancelled."""
    await asyncio.Event().wait()
    raise AssertionError("the event is never set")


@dataclass
class SpanLog:
    """An observability provider that keeps what it is told."""

    started: list[dict[str, Any]] = field(default_factory=list)
    """Arguments of `start_span` that were given, in order."""
    ended: list[dict[str, Any]] = field(default_factory=list)
    """Arguments of `end_span`, in order."""

    def start_span(
        self,
        trace_id: str,
        name: str,
        kind: str = "",
        resource_type: str | None = None,
        resource_name: str | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> str:
        """Keep a span; its id is its number, from 0."""
        told = {"trace_id": trace_id, "name": name, "kind": kind or None, "attributes": attributes}
        told |= {"resource_type": resource_type, "resource_name": resource_name}
        self.started.append({key: value for key, value in told.items() if value is not None})
        return str(len(self.started) - 1)

    def end_span(self, span_id: str | None, status: str = "ok", attributes: dict[str, Any] | None = None) -> None:
        """Keep its end."""
        self.ended.append({"span_id": span_id, "status": status, "attributes": attributes})

    def open(self) -> list[str]:
        """Names of spans that were not closed exactly once."""
        closed = [end["span_id"] for end in self.ended]
        return [span["name"] for number, span in enumerate(self.started) if closed.count(str(number)) != 1]

    def end_of(self, name: str, trace_id: str | None = None) -> dict[str, Any]:
        """How the one span of that name (in that trace) ended.

        Raises:
            ValueError: There is not exactly one such span, or it has not ended exactly once.
        """
        (number,) = [
            str(number)
            for number, span in enumerate(self.started)
            if span["name"] == name and trace_id in (None, span["trace_id"])
        ]
        (end,) = [end for end in self.ended if end["span_id"] == number]
        return end
