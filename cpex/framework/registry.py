"""Which plugins there are and which handlers each hook has.

Registration is all or nothing: every handler of a plugin is resolved and checked before any table changes. Each hook's
plan is compiled when it is first asked for and kept until a plugin comes or goes.
"""

from __future__ import annotations

import inspect
import logging
from functools import partial
from typing import Any

from cpex.framework.base import HookRef, Plugin, PluginRef, completion_handler, hook_name
from cpex.framework.errors import PluginError
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.result import PluginErrorModel
from cpex.framework.pipeline.plan import HookPlan, Observer, compile_plan
from cpex.framework.pipeline.stopping import stop_plugin

__all__ = ["ExternalHookRef", "HookRef", "Plugin", "PluginConfig", "PluginInstanceRegistry", "PluginRef"]

logger = logging.getLogger(__name__)

MAX_PLANS = 1024
"""How many hook names are remembered; made-up names beyond that are looked up each time."""
_UNKNOWN: object = object()


class ExternalHookRef(HookRef):
    """A handler that lives elsewhere: calling it calls the plugin's `invoke_hook` with the hook's name.

    Extensions are handed on to an `invoke_hook` that takes them as its fourth parameter.
    """

    def __init__(self, hook: str, plugin_ref: PluginRef) -> None:
        """Bind; the remote side knows its handlers, so nothing is resolved on the plugin object.

        Raises:
            PluginError: The plugin has no `invoke_hook`.
        """
        self._hook = hook_name(hook)
        self._plugin_ref = plugin_ref
        invoke: Any = getattr(plugin_ref.plugin, "invoke_hook", None)
        if not callable(invoke):
            message = f"Plugin {plugin_ref.name} is not an external plugin: it has no `invoke_hook`"
            raise PluginError(PluginErrorModel(message=message, plugin_name=plugin_ref.name))
        self._accepts_extensions = "extensions" in inspect.signature(invoke).parameters
        self._func = partial(invoke, self._hook)


class PluginInstanceRegistry:
    """Plugins by name, handlers by hook."""

    def __init__(self) -> None:
        self._plugins: dict[str, PluginRef] = {}
        self._refs: dict[str, dict[str, list[HookRef]]] = {}
        self._observers: dict[str, Observer] = {}
        self._sorted: dict[str, list[HookRef]] = {}
        self._plans: dict[str, HookPlan | None] = {}
        self._handled: frozenset[str] | None = None
        self.generation = 0
        """Grows whenever a plugin comes or goes: what was found out about the registry holds until then."""

    def register(self, plugin: Plugin, trusted_config: PluginConfig | None = None) -> None:
        """Add a plugin with all the handlers that its trusted configuration lists.

        Raises:
            ValueError: A plugin of that name is there already.
            PluginError: A listed hook has no usable handler; nothing was registered.
        """
        ref = PluginRef(plugin, trusted_config)
        if ref.name in self._plugins:
            raise ValueError(f"Plugin {ref.name} already registered")
        kind = ExternalHookRef if callable(getattr(plugin, "invoke_hook", None)) else HookRef
        refs: dict[str, list[HookRef]] = {}
        for hook in ref.hooks:
            resolved = kind(hook, ref)
            refs.setdefault(resolved.name, []).append(resolved)
        completed = completion_handler(plugin)
        self._plugins[ref.name] = ref
        self._refs[ref.name] = refs
        if completed is not None:
            self._observers[ref.name] = Observer(ref.name, completed, bool(getattr(plugin, "observes_all", False)))
        self._forget_plans()
        logger.info("Registered plugin %s with hooks %s", ref.name, list(refs))

    def adopt(self, other: PluginInstanceRegistry) -> None:
        """Take over all plugins of another registry, which is left empty: every call sees all of them or none.

        Raises:
            ValueError: A plugin of one of the names is there already; nothing was taken over.
        """
        if taken := self._plugins.keys() & other._plugins.keys():
            raise ValueError(f"Plugin {min(taken)} already registered")
        # INVARIANT: plans are made anew after the last of these, so that none is made of a part.
        self._refs.update(other._refs)
        self._observers.update(other._observers)
        self._plugins.update(other._plugins)
        for table in (other._plugins, other._refs, other._observers):
            table.clear()
        other._forget_plans()
        self._forget_plans()

    def unregister(self, plugin_name: str) -> None:
        """Remove a plugin; an unknown name is ignored."""
        if self._plugins.pop(plugin_name, None) is None:
            return
        self._refs.pop(plugin_name, None)
        self._observers.pop(plugin_name, None)
        self._forget_plans()
        logger.info("Unregistered plugin %s", plugin_name)

    def get_plugin(self, name: str) -> PluginRef | None:
        """The plugin of that name, if there is one."""
        return self._plugins.get(name)

    def get_plugin_hook_by_name(self, name: str, hook_type: str) -> HookRef | None:
        """A plugin's handler for a hook, if it has one."""
        refs = self._refs.get(name, {}).get(hook_name(hook_type))
        return refs[0] if refs else None

    def get_hook_refs_for_hook(self, hook_type: str) -> list[HookRef]:
        """All handlers of a hook by priority, equal ones in the order of registration. Unknown hooks have none."""
        hook = hook_name(hook_type)
        if (known := self._sorted.get(hook)) is not None:
            return known
        refs = [ref for hooks in self._refs.values() for ref in hooks.get(hook, ())]
        if refs:
            # Only hooks that have handlers are kept, so that asking for made-up names costs no memory.
            refs.sort(key=lambda ref: ref.plugin_ref.priority)
            self._sorted[hook] = refs
        return refs

    def get_all_plugins(self) -> list[PluginRef]:
        """Every plugin, in the order of registration."""
        return list(self._plugins.values())

    def has_hooks_for(self, hook_type: str) -> bool:
        """Whether any plugin has a handler for the hook; conditions and disabling are not looked at."""
        if self._handled is None:
            self._handled = frozenset(hook for hooks in self._refs.values() for hook in hooks)
        return hook_name(hook_type) in self._handled

    @property
    def plugin_count(self) -> int:
        """How many plugins are registered."""
        return len(self._plugins)

    def plan(self, hook_type: str) -> HookPlan | None:
        """The compiled plan of a hook; `None` when a call of it would concern no plugin."""
        known = self._plans.get(hook_type, _UNKNOWN)
        if known is not _UNKNOWN:
            # The sentinel is not a plan; mypy cannot see that it was ruled out.
            return known  # type: ignore[return-value]
        hook = hook_name(hook_type)
        refs = self.get_hook_refs_for_hook(hook)
        watching_all = any(observer.observes_all for observer in self._observers.values())
        plan = compile_plan(hook, refs, tuple(self._observers.values())) if refs or watching_all else None
        if len(self._plans) < MAX_PLANS:
            self._plans[hook] = plan
        return plan

    async def shutdown(self) -> None:
        """Shut every plugin down, last registered first, and forget them.

        One that fails, or takes longer than its `shutdown_timeout_s`, is logged and does not stop the rest.

        Raises:
            asyncio.CancelledError: The caller was cancelled. All are still registered; shutting down may be repeated.
        """
        for ref in reversed(self.get_all_plugins()):
            await stop_plugin(ref.plugin, ref.trusted_config)
        self._plugins.clear()
        self._refs.clear()
        self._observers.clear()
        self._forget_plans()

    def _forget_plans(self) -> None:
        self._sorted.clear()
        self._plans.clear()
        self._handled = None
        self.generation += 1
