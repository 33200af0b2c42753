"""The harness: plugins in a real pipeline, started and stopped as a host does it, under a clock that stands still."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from cpex.framework.base import Plugin, hook_name
from cpex.framework.clock import FixedClock, use_clock
from cpex.framework.decorator import get_hook_metadata
from cpex.framework.extensions import Extensions
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.loader.config import ConfigLoader
from cpex.framework.loader.plugin import PluginLoader
from cpex.framework.manager import TenantPluginManager
from cpex.framework.models.config import Config, PluginConfig
from cpex.framework.models.context import GlobalContext, PluginContextTable
from cpex.framework.models.result import PluginResult
from cpex.testing.fakes import FunctionPlugin, Handler, SpanLog
from cpex.testing.payloads import make_context, make_payload

__all__ = ["Part", "PluginHarness", "configured"]

START = datetime(2030, 1, 1, 12, tzinfo=UTC)
"""When a harness without a clock of its own begins."""
_TICKS = 3
"""Turns of the event loop that a cancelled task gets to end in."""


@dataclass(frozen=True, slots=True)
class Part:
    """A plugin class and how this instance of it is configured."""

    plugin: type[Plugin]
    config: PluginConfig


def configured(plugin: type[Plugin], config: Mapping[str, Any] | None = None, **fields: Any) -> Part:
    """A plugin class with its configuration, for a harness of several plugins.

    Args:
        config: The plugin's own settings.
        fields: Fields of `PluginConfig`. Without `name` it is the class's, without `hooks` all that the class handles.

    Raises:
        ValueError: The class handles no known hook, or a field does not fit.
    """
    hooks = fields.pop("hooks", None) or _hooks_of(plugin)
    name = fields.pop("name", plugin.__name__)
    kind = f"{plugin.__module__}.{plugin.__qualname__}"
    settings = None if config is None else dict(config)
    # Validated as from a file, so that words such as `transform` do for a mode.
    document = {"name": name, "kind": kind, "hooks": list(hooks), "config": settings, **fields}
    return Part(plugin, PluginConfig.model_validate(document))


class PluginHarness:
    """Plugins under test, in the pipeline that hosts use.

    All calls belong to one request, whose context and state flow from hook to hook, until `new_request`. Leaving the
    harness shuts the plugins down and fails if they left tasks behind.

    Example:
        async with PluginHarness(ToolAllowListPlugin, config={"allowed_tools": ["search"]}) as harness:
            assert_denied(await harness.call("tool_pre_invoke", name="shell"), "TOOL_NOT_ALLOWED")

    Attributes:
        clock: What plugins read that ask `cpex.framework.clock`; moves only by `advance` and `move_to`.
        spans: What the pipeline told its observability provider.
        request: The context of the current request.
    """

    def __init__(
        self,
        *plugins: type[Plugin] | Plugin | Part,
        clock: FixedClock | None = None,
        timeout_s: float = 30,
        limits: Mapping[str, Any] | None = None,
        check_tasks: bool = True,
        **fields: Any,
    ) -> None:
        """Describe the pipeline; plugins are made on entering.

        Args:
            plugins: Classes, `configured(...)` classes, and fakes that are instances already.
            timeout_s: Seconds per plugin and call, where its `timeout_s` does not say otherwise.
            limits: Fields of `Config` beside the plugins, such as `hook_timeout_s`.
            check_tasks: Fail on leaving when tasks are still running.
            fields: For a single class: its `config` and other fields, as `configured` takes them.

        Raises:
            TypeError: Fields were given, and there is not exactly one plain class that they could be for.
        """
        if fields and not (len(plugins) == 1 and isinstance(plugins[0], type)):
            given = ", ".join(f"`{name}`" for name in fields)
            raise TypeError(f"{given}: for one plugin class only; wrap each of several as configured(Class, ...)")
        parts = [_part(each, fields) for each in plugins]
        config = Config(plugins=[config for config, _ in parts], **(limits or {}))
        self._set_up(config, {each.name: made for each, made in parts}, clock, timeout_s, check_tasks)

    @classmethod
    def from_config(
        cls,
        config: str | os.PathLike[str] | Config,
        *,
        replace: Mapping[str, Handler | Plugin] | None = None,
        env: Mapping[str, str] | None = None,
        clock: FixedClock | None = None,
        timeout_s: float = 30,
        check_tasks: bool = True,
    ) -> Self:
        """The pipeline of a configuration file, with fakes in place of some of its plugins.

        Args:
            replace: Plugin name -> a handler for all its hooks, or a plugin, that takes its place with everything else
                as configured.
            env: Variables for `{{ env.X }}`, in place of the process environment.

        Raises:
            ConfigError: The file is no valid configuration.
            ValueError: `replace` names a plugin that is not configured.
        """
        harness = cls.__new__(cls)
        base = "" if isinstance(config, Config) else os.fspath(config)
        loaded = config if isinstance(config, Config) else ConfigLoader.load(base, env=env).config
        names = [each.name for each in loaded.plugins or []]
        unknown = sorted(set(replace or {}) - set(names))
        if unknown:
            raise ValueError(f"`replace` names `{unknown[0]}`, which is not configured; plugins: {', '.join(names)}")
        harness._set_up(loaded, dict(replace or {}), clock, timeout_s, check_tasks, base)
        return harness

    def _set_up(
        self,
        config: Config,
        made: Mapping[str, Any],
        clock: FixedClock | None,
        timeout_s: float,
        check_tasks: bool,
        base: str = "",
    ) -> None:
        self.clock = clock if clock is not None else FixedClock(START)
        self.spans = SpanLog()
        self.request = make_context()
        self._table: PluginContextTable | None = None
        self._manager = _Manager(config, timeout_s, self.spans)
        self._manager.use(_Loader(made), base)
        self._check_tasks = check_tasks
        self._before: set[asyncio.Task[Any]] = set()

    @property
    def manager(self) -> TenantPluginManager:
        """The manager that runs the plugins."""
        return self._manager

    @property
    def plugins(self) -> dict[str, Plugin]:
        """Name -> the running plugin, in the order of the configuration."""
        configured = (self._manager.config.plugins if self._manager.config else None) or []
        running = {each.name: self._manager.get_plugin(each.name) for each in configured}
        return {name: plugin for name, plugin in running.items() if plugin is not None}

    @property
    def plugin(self) -> Any:
        """The first plugin: the one under test.

        Raises:
            LookupError: None is running; the harness has not been entered, or was left.
        """
        for plugin in self.plugins.values():
            return plugin
        raise LookupError("no plugin is running; use `async with` on the harness")

    async def __aenter__(self) -> Self:
        """Make, initialise and register the plugins.

        Raises:
            PluginLoadError: A plugin did not start; the text says which and why.
        """
        self._before = asyncio.all_tasks()
        with use_clock(self.clock):
            await self._manager.initialize()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with use_clock(self.clock):
            await self._manager.shutdown()
        left = await self._left_behind()
        # A failure of the test itself is the one to report.
        if left and error is None and self._check_tasks:
            raise AssertionError(f"tasks are still running after shutdown: {', '.join(sorted(left))}")

    async def call(
        self, hook: str, payload: Any = None, *, extensions: Extensions | None = None, **fields: Any
    ) -> PluginResult[Any]:
        """Call a hook within the current request.

        Args:
            payload: Without one, `make_payload(hook, **fields)` makes it.

        Raises:
            PluginError: A plugin failed and its `on_error` is `fail`.
            RuntimeError: The harness has not been entered.
        """
        if not self._manager.initialized:
            raise RuntimeError("the plugins are not started; use `async with` on the harness")
        if payload is None:
            payload = make_payload(hook, **fields)
        elif fields:
            raise TypeError("give a payload or its fields, not both")
        with use_clock(self.clock):
            result, self._table = await self._manager.invoke_hook(
                hook, payload, self.request, self._table, extensions=extensions
            )
        return result

    def new_request(self, *, session: str | None = None, **fields: Any) -> GlobalContext:
        """Begin another request; plugins' contexts of the former one are forgotten.

        Args:
            session: The conversation that it belongs to.
            fields: Fields of `GlobalContext`, such as `user`.
        """
        self.request = make_context(session=session, **fields)
        self._table = None
        return self.request

    def state(self, plugin: str | None = None) -> dict[str, Any]:
        """What a plugin stored in its context in this request: the named one, else the one under test.

        Empty when it has not run yet.
        """
        name = plugin if plugin is not None else self.plugin.name
        ref = self._manager.reference(name)
        context = (self._table or {}).get(self.request.request_id + ref)
        return dict(context.state) if context is not None else {}

    async def settle(self) -> None:
        """Wait for background plugins and `hook_completed` of all calls so far.

        Raises:
            AssertionError: Some did not end within the drain timeout and were cancelled.
        """
        with use_clock(self.clock):
            cancelled = await self._manager.executor.drain()
        if cancelled:
            raise AssertionError(f"{cancelled} background tasks did not end within the drain timeout")

    async def _left_behind(self) -> list[str]:
        current = asyncio.current_task()
        for _ in range(_TICKS):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - self._before - {current}
        return [f"{task.get_name()} ({getattr(task.get_coro(), '__qualname__', '?')})" for task in left]


class _Loader(PluginLoader):
    """Makes plugins of what the test handed over; everything else as configured."""

    def __init__(self, made: Mapping[str, type[Plugin] | Plugin | Handler]) -> None:
        super().__init__()
        self._made = made

    def construct(self, config: PluginConfig) -> Plugin:
        made = self._made.get(config.name)
        if made is None:
            return super().construct(config)
        if isinstance(made, Plugin):
            return made
        if isinstance(made, type):
            plugin: Plugin = made(config.private_copy())
            return plugin
        return FunctionPlugin(config.private_copy(), made)


class _Manager(TenantPluginManager):
    """A manager that takes its loader from the test."""

    def use(self, loader: PluginLoader, config_path: str) -> None:
        """Set what a host cannot: who makes plugins, and where relative folders start."""
        self._loader = loader
        self._config_path = config_path

    def reference(self, plugin: str) -> str:
        """The id under which contexts of a plugin are kept."""
        ref = self._registry.get_plugin(plugin)
        if ref is None:
            raise LookupError(f"no plugin `{plugin}` is running")
        return ref.uuid


def _part(given: type[Plugin] | Plugin | Part, fields: Mapping[str, Any]) -> tuple[PluginConfig, type[Plugin] | Plugin]:
    if isinstance(given, Plugin):
        return given.config, given
    part = given if isinstance(given, Part) else configured(given, **fields)
    return part.config, part.plugin


def _hooks_of(plugin: type[Plugin]) -> list[str]:
    """Every hook that a class handles, by the name of a method or by its mark."""
    registered = [hook_name(each) for each in get_hook_registry().get_registered_hooks()]
    named = [hook for hook in registered if callable(getattr(plugin, hook, None))]
    marked = [hook for each in _functions(plugin) if (mark := get_hook_metadata(each)) for hook in mark.hook_types]
    hooks = list(dict.fromkeys([*named, *map(hook_name, marked)]))
    if not hooks:
        raise ValueError(
            f"{plugin.__name__} handles no known hook: name a method like a hook, mark one with @hook, or give `hooks`"
        )
    return hooks


def _functions(plugin: type[Plugin]) -> Iterable[Any]:
    return (getattr(plugin, name) for name in dir(plugin) if not name.startswith("_"))
