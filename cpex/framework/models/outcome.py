"""What was finally decided in one hook call, for plugins that need to know."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cpex.framework.models.record import ControlExecutionRecord
from cpex.framework.models.result import PluginViolation


@dataclass(frozen=True, slots=True)
class HookOutcome:
    """The end of one hook call, as handed to `Plugin.hook_completed`."""

    hook: str
    request_id: str
    allowed: bool
    """False when a plugin denied, and when the call failed or was cancelled."""
    violation: PluginViolation | None
    """Why it was denied, if it was."""
    payload: Any
    """A snapshot of the final payload; of a denied call, after the transform phase, so that it is redacted too."""
    executions: list[ControlExecutionRecord] = field(default_factory=list)
    """One record per plugin that took part, the plugin's own copies; those of background plugins may still be pending,
    and are then the host's, which are completed in place."""
    duration_ns: int = 0
    """Nanoseconds from entry to decision."""
    decided_ns: int = 0
    """When it was decided, on the stopwatch of `cpex.framework.clock.elapsed_ns`: observers are told a little later."""
    session: str | None = None
    """The conversation, when the host has told it."""
    user: Any = None
    tenant_id: str | None = None
    error_code: str | None = None
    """Code of the failure, when the call ended in one."""
