"""What the observability plugins have in common: one handler for every hook, and failures that do not spread."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from cpex.builtins.observability._failures import Failures
from cpex.framework import (
    ControlExecutionRecord,
    Plugin,
    PluginConfig,
    PluginContext,
    PluginMode,
    PluginResult,
    get_hook_registry,
)
from cpex.framework.models import HookOutcome

Handler = Callable[..., Awaitable[PluginResult[Any]]]


@dataclass(frozen=True, slots=True)
class HookCall:
    """One turn of the plugin in one hook call."""

    hook: str
    payload: Any
    context: PluginContext
    extensions: Any


class HookObserver(Plugin):
    """A plugin that watches the hooks that its configuration lists, and always allows.

    Subclasses say what they do when the plugin has its turn (`on_call`) and when a call was decided (`on_outcome`).
    Calls that were denied before the plugin had its turn are seen through `on_outcome` alone, unless the configuration
    has conditions: then only calls in which the plugin ran.
    """

    observes_all = True
    stops_calls = False
    """Whether a failure in a turn that the caller waits for is left to `on_error`, instead of being counted only."""

    def __init__(self, config: PluginConfig) -> None:
        """Bind a handler to every listed hook that the framework knows; others are reported at registration."""
        super().__init__(config)
        self.failures = Failures(logging.getLogger(type(self).__module__), config.name)
        """What went wrong without stopping a call."""
        for hook in config.hooks:
            # A hook of the host's may be called like one of our own attributes; ours must not be lost.
            if not hasattr(self, hook) and get_hook_registry().is_registered(hook):
                setattr(self, hook, _handler(self, hook))

    async def on_call(self, call: HookCall) -> None:
        """Take note of the plugin's turn."""

    async def on_outcome(self, outcome: HookOutcome) -> None:
        """Take note of a decision."""

    async def hook_completed(self, outcome: HookOutcome) -> None:
        """Take note of a decision, if it is one on a hook that this plugin watches. Never raises an `Exception`."""
        if outcome.hook not in self.hooks or (self.conditions and self.own_record(outcome) is None):
            return
        try:
            await self.on_outcome(outcome)
        # Nobody waits for this, and the framework would log each one.
        except Exception as error:
            self.failures.report(f"the outcome of `{outcome.hook}` was not taken down", error)

    def own_record(self, outcome: HookOutcome) -> ControlExecutionRecord | None:
        """What the framework noted of this plugin's turn, `None` when it had none."""
        return next((each for each in outcome.executions if each.plugin_name == self.name), None)

    async def _observe(self, call: HookCall) -> None:
        try:
            await self.on_call(call)
        # Telemetry is not worth a failed call, unless its owner says so.
        except Exception as error:
            self.failures.report(f"a call of `{call.hook}` was not taken down", error)
            if self.stops_calls and self.mode is not PluginMode.FIRE_AND_FORGET:
                raise


def _handler(observer: HookObserver, hook: str) -> Handler:
    """A handler that knows its hook, which neither the payload's class nor the context tells for certain."""

    async def handle(payload: Any, context: PluginContext, extensions: Any) -> PluginResult[Any]:
        await observer._observe(HookCall(hook, payload, context, extensions))
        return PluginResult(continue_processing=True)

    return handle
