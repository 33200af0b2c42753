"""How long operations take, from the decision that let them through to the hook that sees their result."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import BaseModel, Field

from cpex.builtins.observability._events import outcome_of
from cpex.builtins.observability._facts import Entity, entity_of
from cpex.builtins.observability._observer import HookCall, HookObserver
from cpex.builtins.observability._operations import Key, Operations, family_of, partner_of
from cpex.builtins.observability._registries import Buckets, find_registry, made_once
from cpex.framework import PluginConfig, PluginError, PluginErrorModel, PluginMode, clock
from cpex.framework.models import HookOutcome

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry, Histogram

__all__ = ["Latency", "LatencyTrackerPlugin", "LatencyTrackerSettings"]

logger = logging.getLogger(__name__)

DEFAULT_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""From a local tool to an agent that thinks for minutes."""
OTHER = "other"
"""Name of all entities beyond the first `max_names`."""
STARTED, LATENCY = "start_time", "tool_latency_ms"
"""Keys of the plugin's own context in which it notes the start (monotonic seconds) and the latency (milliseconds)."""
WARN_EVERY_S = 60.0


class LatencyTrackerSettings(BaseModel, extra="forbid", frozen=True):
    """Settings of the latency tracker."""

    namespace: str = Field(default="cpex", pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")
    """What the metric's name starts with."""
    buckets: Buckets = DEFAULT_BUCKETS_S
    """Upper bounds of the histogram, in seconds, growing."""
    max_names: int = Field(default=100, ge=1)
    """How many tools, prompts, agents … get a label value of their own; later ones are `other`."""
    registry: str | None = Field(default=None, pattern=r"^[\w.]+:[\w.]+$")
    """`module:name` of the Prometheus registry to use, instead of the client's own."""
    slow_s: float | None = Field(default=None, gt=0)
    """Seconds from which an operation is warned about, at most once a minute for each name."""
    max_open: int = Field(default=10_000, ge=1)
    """How many operations may be under way; beyond it the oldest is forgotten."""
    max_age_s: float = Field(default=3_600.0, gt=0)
    """Seconds after which an operation whose post hook never came is forgotten."""


@dataclass(frozen=True, slots=True)
class Latency:
    """One operation that ended."""

    entity: Entity
    seconds: float
    outcome: str
    """`completed`, `errored`, `denied` or `failed`; see docs/plugins/audit_log.md."""


class LatencyTrackerPlugin(HookObserver):
    """Measures each operation between its pre and its post hook, into a Prometheus histogram.

    The time of the hooks themselves is not in it. Where the plugin runs in a mode that the caller waits for, the
    latency is in its context, too, as `tool_latency_ms`.

    Source: docs/plugins/latency_tracker.md.
    """

    settings_model = LatencyTrackerSettings

    def __init__(self, config: PluginConfig, *, registry: CollectorRegistry | None = None) -> None:
        """Validate the settings; nothing is registered yet.

        Args:
            registry: Goes before the setting of that name.

        Raises:
            pydantic.ValidationError: A setting is unknown or has a value that is not allowed.
        """
        super().__init__(config)
        self._settings = LatencyTrackerSettings.model_validate(config.config or {})
        self._registry = registry
        self._histogram: Histogram | None = None
        self._names: set[tuple[str, str]] = set()
        self._warned: dict[tuple[str, str], float] = {}
        self._started: Operations[float] = Operations(
            limit=self._settings.max_open, max_age_s=self._settings.max_age_s, forget=self._forget
        )
        self.last: Latency | None = None
        """The operation that ended last."""
        self.forgotten = 0
        """Operations whose post hook never came, or came too late."""

    async def initialize(self) -> None:
        """Register the histogram. Does nothing the second time.

        Raises:
            PluginError: The registry, or the metric in it, cannot be had; code `metrics_unavailable`.
        """
        if self._histogram is not None:
            return
        settings = self._settings
        try:
            registry = self._registry or find_registry(settings.registry)
            name = f"{settings.namespace}_operation_duration_seconds"
            self._histogram = made_once(registry, name, settings.buckets, lambda: _histogram(name, settings, registry))
        except (ValueError, ImportError, AttributeError) as error:
            message = f"metrics are not available: {error}"
            raise PluginError(
                PluginErrorModel(message=message, plugin_name=self.name, code="metrics_unavailable")
            ) from error

    async def shutdown(self) -> None:
        """Forget what is under way. Does nothing the second time."""
        self._started.give_up_all()
        self._histogram = None
        self.failures.tell_rest()

    async def on_call(self, call: HookCall) -> None:
        """Note start and latency in the plugin's own context, for hosts and for this plugin's subclasses."""
        # A background plugin has a copy, which nobody reads.
        if self.mode is PluginMode.FIRE_AND_FORGET:
            return
        if partner_of(call.hook) is not None:
            call.context.set_state(STARTED, clock.monotonic())
        elif (started := call.context.get_state(STARTED)) is not None:
            call.context.set_state(LATENCY, (clock.monotonic() - started) * 1000)

    async def on_outcome(self, outcome: HookOutcome) -> None:
        """Begin an operation at the decision that let it through; end it where its post hook began."""
        entity = entity_of(outcome.hook, outcome.payload)
        key = Key(outcome.request_id, family_of(outcome.hook), entity.name if entity is not None else None)
        # This is told a little after the decision; the clock is the framework's, so that a replay has its own times.
        decided_s = clock.monotonic() - (clock.elapsed_ns() - outcome.decided_ns) / 1e9
        if partner_of(outcome.hook) is not None:
            if outcome.allowed:
                self._started.open(key, decided_s)
            return
        operation = self._started.find(key, outcome.hook, "decision")
        if operation is None or entity is None:
            return
        self._started.close(operation)
        seconds = max(0.0, decided_s - outcome.duration_ns / 1e9 - operation.value)
        self._ended(Latency(entity, seconds, outcome_of(outcome)))

    def _ended(self, latency: Latency) -> None:
        self.last = latency
        name = self._name(latency.entity)
        if self._histogram is None:
            raise RuntimeError("initialize the plugin first")
        self._histogram.labels(latency.entity.kind, name, latency.outcome).observe(latency.seconds)
        slow_s = self._settings.slow_s
        if slow_s is not None and latency.seconds >= slow_s:
            self._warn(latency, name)

    def _warn(self, latency: Latency, name: str) -> None:
        which, now = (latency.entity.kind, name), clock.monotonic()
        if now - self._warned.get(which, -WARN_EVERY_S) < WARN_EVERY_S:
            return
        self._warned[which] = now
        logger.warning(
            "Plugin '%s': %s `%s` took %.3f s (%s); slow is from %g s on; logged at most once a minute",
            self.name,
            latency.entity.kind,
            name,
            latency.seconds,
            latency.outcome,
            self._settings.slow_s,
        )

    def _name(self, entity: Entity) -> str:
        """The name as a label. SECURITY: callers choose names, so their number is bounded."""
        which = entity.kind, entity.name or ""
        if which not in self._names:
            if len(self._names) >= self._settings.max_names:
                return OTHER
            self._names.add(which)
        return which[1]

    def _forget(self, started: float) -> None:
        self.forgotten += 1


def _histogram(name: str, settings: LatencyTrackerSettings, registry: CollectorRegistry) -> Histogram:
    from prometheus_client import Histogram

    text = "From the decision that let an operation through to the hook that sees its result."
    return Histogram(name, text, ("operation", "name", "outcome"), buckets=settings.buckets, registry=registry)
