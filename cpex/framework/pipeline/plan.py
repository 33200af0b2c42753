"""The compiled plan of one hook: what is known at registration, made ready for the call.

A plan is immutable. It says which plugins run in which phase and order, what each may do, and holds for each a record
of the commonest outcome that needs only a duration to be true.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpex.framework.base import HookRef
from cpex.framework.conditions import compile_conditions
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.models import _collect_config_keys, _truncate
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.lazy import build
from cpex.framework.models.mode import ControlExecutionStatus, OnError, PluginMode
from cpex.framework.models.record import ControlExecutionRecord

if TYPE_CHECKING:
    # At run time they bring extensions and the identity hooks along.
    from cpex.framework.extensions.narrowing import ScopeMapping
    from cpex.framework.pipeline.identity import ReplyEffects

_RECORD_FIELDS = set(ControlExecutionRecord.model_fields)
Matcher = Callable[[Any, GlobalContext], bool]

SERIAL_MODES = (PluginMode.SEQUENTIAL, PluginMode.TRANSFORM, PluginMode.AUDIT)
"""Phases whose plugins run one after another, in this order."""
BLOCKING_MODES = frozenset({PluginMode.SEQUENTIAL, PluginMode.CONCURRENT})
"""Modes in which a denial ends the call."""
REWRITING_MODES = frozenset({PluginMode.SEQUENTIAL, PluginMode.TRANSFORM})
"""Modes whose changes of payload and extensions count."""
SHARING_MODES = REWRITING_MODES | {PluginMode.CONCURRENT}
"""Modes whose changes of shared state reach the host."""
_IDENTITY_HOOKS = frozenset({"identity_resolve", "token_delegate"})


@dataclass(frozen=True, slots=True)
class Step:
    """One plugin's place in the plan of a hook."""

    name: str
    uuid: str
    mode: PluginMode
    priority: int
    call: Callable[..., Awaitable[Any]]
    takes_extensions: bool
    matches: Matcher | None
    """Judges payload and context right before the turn; `None` when the plugin always runs."""
    timeout_s: float | None
    """Seconds; `None` means the manager's."""
    on_error: OnError
    capabilities: frozenset[str]
    scope_mapping: ScopeMapping
    """What scopes may become where this plugin delegates to another audience."""
    max_bytes: int
    """The plugin's own limit on the content of the payload."""
    disable_cooldown_s: float | None
    blocks: bool
    rewrites: bool
    shares: bool
    ref: HookRef
    template: dict[str, Any]
    """Fields of the record of a clean allow, but for its duration."""

    def record(self, duration_ns: int = 0, **changes: Any) -> ControlExecutionRecord:
        """A record of this turn: a clean allow, but for the changes."""
        values = {**self.template, "duration_ns": duration_ns, **changes}
        values["config_keys"] = list(values["config_keys"])
        record: ControlExecutionRecord = build(ControlExecutionRecord, values, _RECORD_FIELDS.copy())
        return record

    def cancelled(self, duration_ns: int) -> ControlExecutionRecord:
        """A record of a turn that was not let end, or whose end came too late to count: nothing was let through."""
        return self.record(
            duration_ns,
            status=ControlExecutionStatus.CANCELLED,
            requested_allow=None,
            effective_allow=False,
            matched=None,
        )


@dataclass(frozen=True, slots=True)
class Observer:
    """A plugin that wants to know what was finally decided."""

    name: str
    call: Callable[..., Awaitable[Any]]
    observes_all: bool


@dataclass(frozen=True, slots=True)
class HookPlan:
    """Everything that a call of one hook needs to know."""

    hook: str
    serial: tuple[Step, ...]
    concurrent: tuple[Step, ...]
    background: tuple[Step, ...]
    observers: tuple[Observer, ...]
    chain_length: int
    """All handlers of the hook, those in disabled mode included."""
    payload_type: type[Any] | None
    """The registered payload class; `None` for a hook that nobody registered."""
    reply_type: type[Any] | None
    """The class of the hook's reply where that is another than its payload."""
    smallest_limit: int
    """The least content, in bytes, that any of the plugins accepts."""
    special: bool
    """Whether a plugin has conditions, or takes extensions."""
    distinct: bool
    """Whether no plugin has two turns."""
    effects: ReplyEffects | None
    """What replies of this hook do, beside being replies; `None` for all but the identity hooks."""

    @property
    def steps(self) -> tuple[Step, ...]:
        """All turns in the order of their phases."""
        return self.serial + self.concurrent + self.background

    @property
    def transforms(self) -> tuple[Step, ...]:
        """The turns of the transform phase."""
        return tuple(step for step in self.serial if step.mode is PluginMode.TRANSFORM)


def compile_plan(hook: str, refs: Iterable[HookRef], observers: tuple[Observer, ...] = ()) -> HookPlan:
    """Compile the handlers of a hook into a plan.

    Args:
        refs: Handlers in the order of registration or of priority; a phase sorts its own by priority, stably.
    """
    refs = list(refs)
    steps = sorted((compile_step(hook, ref) for ref in refs), key=lambda step: step.priority)
    by_mode = {mode: tuple(step for step in steps if step.mode is mode) for mode in PluginMode}
    names = {step.name for step in steps}
    registry = get_hook_registry()
    return HookPlan(
        hook=hook,
        serial=tuple(step for mode in SERIAL_MODES for step in by_mode[mode]),
        concurrent=by_mode[PluginMode.CONCURRENT],
        # A handler that is listed twice runs once in the background: telemetry is not doubled.
        background=_once(by_mode[PluginMode.FIRE_AND_FORGET]),
        observers=tuple(each for each in observers if each.observes_all or each.name in names),
        chain_length=len(refs),
        payload_type=registry.get_payload_type(hook),
        reply_type=registry.reply_type(hook),
        smallest_limit=min((step.max_bytes for step in steps), default=0),
        distinct=len({step.uuid for step in steps}) == len(steps),
        special=any(step.matches is not None or step.takes_extensions for step in steps),
        effects=_effects_of(hook),
    )


def _effects_of(hook: str) -> ReplyEffects | None:
    if hook not in _IDENTITY_HOOKS:
        return None
    # Loaded by those who use these hooks.
    from cpex.framework.pipeline.identity import EFFECTS

    return EFFECTS[hook]


def _once(steps: tuple[Step, ...]) -> tuple[Step, ...]:
    return tuple({step.uuid: step for step in reversed(steps)}.values())[::-1]


def compile_step(hook: str, ref: HookRef) -> Step:
    """Compile one handler from its plugin's trusted configuration."""
    plugin = ref.plugin_ref
    config: PluginConfig = plugin.trusted_config
    mode = plugin.mode
    return Step(
        name=plugin.name,
        uuid=plugin.uuid,
        mode=mode,
        priority=plugin.priority,
        call=ref.hook,
        takes_extensions=ref.accepts_extensions,
        matches=compile_conditions(plugin.conditions, hook),
        timeout_s=config.timeout_s,
        on_error=plugin.on_error,
        capabilities=plugin.capabilities,
        scope_mapping=config.scope_mapping,
        max_bytes=config.max_content_size,
        disable_cooldown_s=config.disable_cooldown_s,
        blocks=mode in BLOCKING_MODES,
        rewrites=mode in REWRITING_MODES,
        shares=mode in SHARING_MODES,
        ref=ref,
        template={
            "plugin_id": plugin.uuid,
            "plugin_name": plugin.name,
            "plugin_kind": _truncate(config.kind),
            "hook_name": hook,
            "mode": mode,
            "status": ControlExecutionStatus.COMPLETED,
            "requested_allow": True,
            "effective_allow": True,
            "matched": False,
            "applied": False,
            "payload_modified": False,
            "extensions_modified": False,
            "duration_ns": 0,
            "reason": None,
            "error_code": None,
            "config_keys": _collect_config_keys(config.config),
            "pending": False,
        },
    )


__all__ = ["HookPlan", "Observer", "Step", "compile_plan", "compile_step"]
