"""Compiles the plan of a configuration as the engine would, without starting a plugin."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cpex.framework.base import HookRef, Plugin, PluginRef
from cpex.framework.errors import ConfigError
from cpex.framework.loader.config import ConfigLoader, LoadedConfig
from cpex.framework.loader.kinds import transport_of
from cpex.framework.loader.plugin import PluginLoader
from cpex.framework.loader.trial import find_plugin_faults, without_bytecode
from cpex.framework.manager import DEFAULT_PLUGIN_TIMEOUT
from cpex.framework.models.config import PluginCondition, PluginConfig
from cpex.framework.models.mode import PluginMode
from cpex.framework.pipeline.plan import HookPlan, Step, compile_plan
from cpex.framework.registry import ExternalHookRef

__all__ = ["Plan", "PlannedHook", "PlannedStep", "compile_hooks", "load_plan"]


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One plugin's turn."""

    plugin: str
    kind: str
    mode: str
    priority: int
    may: tuple[str, ...]
    """Of `block`, `rewrite` and `watch`."""
    conditions: tuple[str, ...]
    """Alternatives, one of which must hold as a whole; empty means always."""
    timeout_s: float | None
    """Seconds; `None` means no limit."""
    on_error: str
    capabilities: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedHook:
    """One hook with its turns in the order of phases and priorities."""

    hook: str
    payload: str | None
    """Name of the registered payload class; `None` when there is none."""
    steps: tuple[PlannedStep, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a configuration compiles to."""

    file: str
    config: str
    """`sha256:` digest of the configuration."""
    hook_timeout_s: float | None
    """Seconds for a whole call; `None` means no limit."""
    hooks: tuple[PlannedHook, ...]
    """In the order in which plugins first list them."""
    disabled: tuple[str, ...]
    """Plugins that are not loaded."""
    hooks_unknown: tuple[str, ...]
    """Plugins that list no hooks: those that run elsewhere may tell theirs when they are connected."""


def load_plan(file: str, *, imports: bool = True) -> Plan:
    """Load a configuration and compile its hooks.

    Args:
        imports: Import and construct plugins; without it, their handlers are taken on trust.

    Raises:
        ConfigError: It has faults, or plugins that cannot be constructed; all of them are listed.
    """
    loaded = ConfigLoader.load(file)
    loader = PluginLoader(trial=True) if imports else None
    if loader is not None:
        loader.append_to_search_path(loaded.config.plugin_dirs, base=file)
    try:
        with without_bytecode():
            hooks = compile_hooks(loaded, loader)
    # Plugin boundary: importing and constructing runs their code. The trial tells all that fail, with their places.
    except Exception:
        faults = find_plugin_faults(loaded, loader) if loader is not None else ()
        if not faults:
            raise
        raise ConfigError(faults) from None
    plugins = loaded.config.plugins or ()
    return Plan(
        file=file,
        config=loaded.digest,
        hook_timeout_s=loaded.config.hook_timeout_s,
        hooks=tuple(hooks),
        disabled=tuple(plugin.name for plugin in plugins if plugin.mode is PluginMode.DISABLED),
        hooks_unknown=tuple(each.name for each in plugins if not each.hooks and each.mode is not PluginMode.DISABLED),
    )


def compile_hooks(loaded: LoadedConfig, loader: PluginLoader | None) -> list[PlannedHook]:
    """Compile every hook that a plugin of the configuration lists, in the order in which they are first listed.

    Args:
        loader: Constructs plugins; `None` to do without them. Handlers of plugins that run
            elsewhere are not asked for.

    Raises:
        Exception: What constructing a plugin, or looking for its handlers, raises.
    """
    refs: dict[str, list[HookRef]] = {}
    for entry in loaded.config.plugins or ():
        if entry.mode is not PluginMode.DISABLED:
            for ref in _handlers(entry, loader):
                refs.setdefault(ref.name, []).append(ref)
    return [_planned(compile_plan(hook, each), _default_timeout(loaded)) for hook, each in refs.items()]


class _Elsewhere(Plugin):
    """Stands for a plugin that is not looked at; nothing of it is called."""

    async def invoke_hook(self, hook_type: str, payload: Any, context: Any, extensions: Any = None) -> Any:
        raise NotImplementedError("a plan runs no hook")


def _handlers(entry: PluginConfig, loader: PluginLoader | None) -> Iterable[HookRef]:
    """References to the handlers of a plugin, resolved where there is a plugin to resolve them on."""
    if loader is None or transport_of(entry) is not None:
        absent = PluginRef(_Elsewhere(entry), entry)
        return [ExternalHookRef(hook, absent) for hook in entry.hooks]
    present = PluginRef(loader.construct(entry), entry)
    return [HookRef(hook, present) for hook in entry.hooks]


def _default_timeout(loaded: LoadedConfig) -> float | None:
    configured = loaded.config.plugin_timeout_s
    return DEFAULT_PLUGIN_TIMEOUT if configured is None else configured


def _planned(compiled: HookPlan, default_timeout_s: float | None) -> PlannedHook:
    payload = compiled.payload_type
    steps = tuple(_planned_step(step, default_timeout_s) for step in compiled.steps)
    return PlannedHook(compiled.hook, None if payload is None else payload.__name__, steps)


def _planned_step(step: Step, default_timeout_s: float | None) -> PlannedStep:
    config: PluginConfig = step.ref.plugin_ref.trusted_config
    powers = tuple(word for word, has in (("block", step.blocks), ("rewrite", step.rewrites)) if has)
    return PlannedStep(
        plugin=step.name,
        kind=config.kind,
        mode=step.mode.value,
        priority=step.priority,
        may=powers or ("watch",),
        conditions=tuple(map(_condition, config.conditions)) if step.matches is not None else (),
        timeout_s=step.timeout_s if step.timeout_s is not None else default_timeout_s,
        on_error=step.on_error.value,
        capabilities=tuple(sorted(step.capabilities)),
    )


def _condition(condition: PluginCondition) -> str:
    """What a condition asks, e.g. `tenant_ids: t; tools: a, b`."""
    wanted = condition.model_dump(exclude_none=True)
    return "; ".join(f"{name}: {', '.join(map(str, values))}" for name, values in wanted.items() if values)
