"""The managers: what a host holds. They compose loader, registry and executor, and live from start to shutdown.

`TenantPluginManager` is self-contained. `PluginManager` is the same with one state for the whole process, which is its
contract with hosts that make it in several places; that sharing lives in this module alone.

It is one module because tests of hosts replace `settings`, `logger` and `ConfigLoader` in it by their dotted names:
whatever reads one of them for managers stands here, and the engine asks this module for the logger.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, ClassVar, Unpack

from cpex.framework.base import Plugin
from cpex.framework.errors import (
    PayloadSizeError,
    PluginError,
    PluginTimeoutError,
)
from cpex.framework.extensions import Extensions
from cpex.framework.hooks.policies import DefaultHookPolicy, HookPayloadPolicy, doubts
from cpex.framework.loader.config import ConfigLoader, plugin_locations
from cpex.framework.loader.exclusive import OneAtATime
from cpex.framework.loader.plugin import PluginLoader
from cpex.framework.loader.start import FailedPlugin, start_plugins
from cpex.framework.models.config import Config
from cpex.framework.models.context import GlobalContext, PluginContext, PluginContextTable
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginErrorModel, PluginResult
from cpex.framework.observability import ObservabilityProvider
from cpex.framework.pipeline.call import (
    DECISION_PLUGIN_METADATA_KEY,
    HTTP_AUTH_CHECK_PERMISSION_HOOK,
    RESERVED_INTERNAL_METADATA_KEYS,
    ExecutionContext,
    PhaseState,
)
from cpex.framework.pipeline.executor import Executor
from cpex.framework.pipeline.trail import Trail, result_of
from cpex.framework.registry import PluginInstanceRegistry
from cpex.framework.settings import settings

if TYPE_CHECKING:
    # Only hosts that use the guard pay for it.
    from cpex.framework.guard.facts import RequestFacts
    from cpex.framework.guard.request import Request

__all__ = [
    "CONTEXT_CLEANUP_INTERVAL",
    "CONTEXT_MAX_AGE",
    "DECISION_PLUGIN_METADATA_KEY",
    "DEFAULT_PLUGIN_TIMEOUT",
    "HTTP_AUTH_CHECK_PERMISSION_HOOK",
    "MAX_PAYLOAD_SIZE",
    "RESERVED_INTERNAL_METADATA_KEYS",
    "ExecutionContext",
    "FailedPlugin",
    "PayloadSizeError",
    "PhaseState",
    "PluginExecutor",
    "PluginManager",
    "PluginTimeoutError",
    "TenantPluginManager",
    "get_plugin_manager",
]

logger = logging.getLogger(__name__)

DEFAULT_PLUGIN_TIMEOUT = 30
"""Seconds."""
MAX_PAYLOAD_SIZE = 1_000_000
"""Bytes of content."""
CONTEXT_CLEANUP_INTERVAL = 300
"""Seconds. Part of the public names; contexts live with their request and need no cleaning up."""
CONTEXT_MAX_AGE = 3600
"""Seconds. See `CONTEXT_CLEANUP_INTERVAL`."""


class PluginExecutor(Executor):
    """The engine's executor with what the environment settles: default policy and pool size."""

    def __init__(
        self,
        config: Any = None,
        timeout: float | None = DEFAULT_PLUGIN_TIMEOUT,
        observability: ObservabilityProvider | None = None,
        hook_policies: dict[str, HookPayloadPolicy] | None = None,
        default_hook_policy: str | DefaultHookPolicy | None = None,
    ) -> None:
        """Read what is not given from the settings.

        Raises:
            ValueError: The default policy is neither `allow` nor `deny`.
        """
        limits = config if isinstance(config, Config) else Config()
        super().__init__(
            config,
            timeout,
            observability,
            hook_policies,
            default_hook_policy or settings.default_hook_policy,
            hook_timeout_s=limits.hook_timeout_s,
            max_payload_bytes=limits.max_payload_bytes,
            background_limit=limits.background_limit,
            drain_timeout_s=limits.drain_timeout_s,
            execution_pool=settings.execution_pool,
        )


class _ManagerState:
    """The attributes of a manager; one per tenant, or one per process."""

    _config: Config | None
    _config_path: str
    _locations: dict[str, str]
    _executor: PluginExecutor | None
    _registry: PluginInstanceRegistry
    _loader: PluginLoader
    _failed: dict[str, FailedPlugin]
    _initialized: bool
    _warned: bool
    _starting_or_stopping: OneAtATime


class _Manager(_ManagerState):
    """What every manager does, wherever its state lives."""

    def _set_up(
        self,
        config: str | Config,
        timeout: float | None,
        observability: ObservabilityProvider | None,
        hook_policies: dict[str, HookPayloadPolicy] | None,
        default_hook_policy: str | DefaultHookPolicy | None,
    ) -> None:
        self._config, self._config_path, self._locations = _load(config)
        self._registry = PluginInstanceRegistry()
        self._loader = PluginLoader()
        self._failed = {}
        self._initialized = False
        self._warned = False
        self._starting_or_stopping = OneAtATime()
        if self._config is not None and self._config.plugin_timeout_s is not None and timeout == DEFAULT_PLUGIN_TIMEOUT:
            timeout = self._config.plugin_timeout_s
        self._executor = PluginExecutor(self._config, timeout, observability, hook_policies, default_hook_policy)

    @property
    def config(self) -> Config | None:
        """The loaded configuration; `None` when there is none."""
        return self._config

    @property
    def plugin_count(self) -> int:
        """How many plugins are registered."""
        return self._registry.plugin_count

    @property
    def initialized(self) -> bool:
        """Whether plugins have been made and not been shut down since."""
        return self._initialized

    @property
    def executor(self) -> PluginExecutor:
        """What runs the calls; made on demand."""
        return self._get_executor()

    @executor.setter
    def executor(self, executor: PluginExecutor) -> None:
        self._executor = executor

    def _get_executor(self) -> PluginExecutor:
        if self._executor is None:
            self._executor = PluginExecutor(self._config)
        return self._executor

    @property
    def observability(self) -> ObservabilityProvider | None:
        """Who is told about spans."""
        return self._get_executor().observability

    @observability.setter
    def observability(self, provider: ObservabilityProvider | None) -> None:
        self._get_executor().observability = provider

    @property
    def failed_plugins(self) -> dict[str, FailedPlugin]:
        """Plugins that the manager started without, by name."""
        return dict(self._failed)

    @property
    def disabled_plugins(self) -> frozenset[str]:
        """Plugins that are switched off because they failed (`on_error: disable`)."""
        return frozenset(self._get_executor()._runtime_disabled)

    async def reset_runtime_disabled(self) -> None:
        """Switch plugins that were disabled after a failure on again."""
        await self._get_executor().reset_runtime_disabled()

    def get_plugin(self, name: str) -> Plugin | None:
        """The plugin of that name, if it is registered."""
        ref = self._registry.get_plugin(name)
        return ref.plugin if ref is not None else None

    def has_hooks_for(self, hook_type: str) -> bool:
        """Whether a call of the hook would concern any plugin, conditions aside."""
        return self._registry.has_hooks_for(hook_type)

    def is_watched(self, hook_type: str) -> bool:
        """Whether a call of the hook would concern any plugin: one that handles it, or one that observes all calls."""
        return self._registry.plan(hook_type) is not None

    @property
    def generation(self) -> int:
        """Grows whenever a plugin comes or goes: what `has_hooks_for` and `is_watched` said holds until then."""
        return self._registry.generation

    def request(self, **facts: Unpack[RequestFacts]) -> Request:
        """Open a request, whose calls run between their hooks.

            async with manager.request(user="ann", tenant_id="acme") as request:
                result = await request.call_tool("search", {"q": "tea"}, search)

        Args:
            facts: Who asks and under which rules; see `RequestFacts`.

        Source: docs/guard.md.
        """
        from cpex.framework.guard.request import Request

        return Request(self, **facts)

    async def initialize(self) -> None:
        """Make, initialise and register the configured plugins, in order. Does nothing when that is done.

        Until all have started, calls pass as if there were no plugins, with a WARNING. Of tasks and threads that start
        one manager at once, one does it and the others wait for it.

        Raises:
            PluginLoadError: Plugins whose failure is fatal failed; all are named, and nothing is left registered.
            RuntimeError: The manager was reset meanwhile; what had started was shut down.
        """
        if self._is_asked_by_a_plugin("initialize"):
            return
        async with self._starting_or_stopping:
            if self._initialized:
                return
            registry = self._registry
            if registry.plugin_count:
                await registry.shutdown()
            self._failed = {}
            failed = await self._start_plugins()
            if registry is not self._registry:
                await registry.shutdown()
                raise RuntimeError("the manager was reset while its plugins were starting; initialize it again")
            self._failed = failed
            # Plugins may have registered hooks of their own by now.
            for doubt in doubts(self._get_executor().hook_policies):
                logger.warning("%s", doubt)
            self._get_executor().not_started = frozenset(self._failed)
            self._initialized = True
            self._warned = False
            logger.info("Plugin manager initialized with %d plugins", self.plugin_count)

    def _is_asked_by_a_plugin(self, what: str) -> bool:
        """Whether the start or stop that is under way is what asks, and would wait for itself."""
        if not self._starting_or_stopping.is_mine():
            return False
        logger.warning("A plugin that is being started or stopped called the manager's %s(), which does nothing", what)
        return True

    async def _start_plugins(self) -> dict[str, FailedPlugin]:
        config = self._config
        if config is None:
            return {}
        if config.coverage is not None:
            from cpex.framework.guard.coverage import Coverage

            # A demand that nothing can meet must not wait for the first request.
            Coverage(config.coverage)
        self._loader.append_to_search_path(config.plugin_dirs, base=self._config_path or None)
        return await start_plugins(config, self._loader, self._registry, self._locations, any_is_fatal=_any_is_fatal)

    async def shutdown(self) -> None:
        """Let background work end (at most the drain timeout), then shut every plugin down, last started first.

        A start that is under way is waited for first; does nothing when no plugins are running, or when a plugin calls
        it that is just being stopped.
        """
        if self._is_asked_by_a_plugin("shutdown"):
            return
        async with self._starting_or_stopping:
            if not self._initialized:
                return
            await self._get_executor().drain()
            await self._registry.shutdown()
            self._get_executor().not_started = frozenset()
            self._initialized = False
            logger.info("Plugin manager shut down")

    async def invoke_hook(
        self,
        hook_type: str,
        payload: PluginPayload,
        global_context: GlobalContext,
        local_contexts: PluginContextTable | None = None,
        violations_as_exceptions: bool = False,
        extensions: Extensions | None = None,
    ) -> tuple[PluginResult[Any], PluginContextTable | None]:
        """Run every plugin registered for a hook and merge their decisions.

        Plugins run by mode: sequential, transform, audit, concurrent, then fire-and-forget on a snapshot. A denial in a
        blocking mode ends the call.

        Args:
            payload: Never changed. Changes come back in `result.modified_payload`, `None` when there are none.
            global_context: Receives plugins' writes to its `state` and `metadata`; nothing else of it changes.
            local_contexts: The table that an earlier hook of the same request returned.
            violations_as_exceptions: Raise a denial instead of returning it.
            extensions: Each plugin sees only the slots that its capabilities open.

        Returns:
            The merged result, and `{request_id + plugin id: context}` for the request's next hook; the table is `None`
            when no plugin is registered for the hook and none came in.

        Raises:
            PayloadSizeError: The payload's content is over the limit; no plugin has run.
            PluginError: A plugin failed and its `on_error` is `fail`, or the call ran out of time. No task of the call
                is still running; `executions` tells what happened.
            PluginViolationError: A plugin denied and `violations_as_exceptions` is set.
        """
        plan = self._registry.plan(hook_type)
        if plan is None:
            if not self._initialized:
                self._warn_of_no_guard(hook_type)
            return result_of(Trail()), dict(local_contexts) if local_contexts else None
        executor = self._executor if self._executor is not None else self._get_executor()
        return await executor.run(plan, payload, global_context, local_contexts, violations_as_exceptions, extensions)

    def _warn_of_no_guard(self, hook_type: str) -> None:
        """Say once, until the next start, that calls pass unguarded because no plugins have been started."""
        configured = [entry.name for entry in (self._config.plugins if self._config else None) or []]
        if configured and not self._warned:
            self._warned = True
            logger.warning(
                "Hook %s was called while no plugins are running, so nothing guards it: await manager.initialize() "
                "first (%d plugins are configured)",
                hook_type,
                len(configured),
            )

    async def invoke_hook_for_plugin(
        self,
        name: str,
        hook_type: str,
        payload: PluginPayload | dict[str, Any] | str,
        context: PluginContext | GlobalContext,
        violations_as_exceptions: bool = False,
        payload_as_json: bool = False,
        extensions: Extensions | None = None,
    ) -> PluginResult[Any]:
        """Call one plugin's handler by itself: timeout and `on_error` apply; isolation, conditions and records do not.

        Raises:
            PluginError: There is no such plugin or handler, or it failed.
            PluginTimeoutError: It timed out and its `on_error` is not `fail`.
            ValueError: The payload is not of the announced form.
        """
        ref = self._registry.get_plugin_hook_by_name(name, hook_type)
        if ref is None:
            text = (
                f"Unable to find hook {hook_type} of plugin {name}; known plugins: {', '.join(_names(self)) or 'none'}"
            )
            raise PluginError(PluginErrorModel(message=text, plugin_name=name))
        if isinstance(context, GlobalContext):
            context = PluginContext.model_construct(global_context=context, state={}, metadata={})
        converted = _converted(ref.plugin_ref.plugin, hook_type, payload, payload_as_json)
        return await self._get_executor().execute_plugin(
            ref, converted, context, violations_as_exceptions, extensions=extensions
        )


def _any_is_fatal() -> bool | None:
    """Whether any plugin that does not start stops the start, where the operator has said so."""
    return bool(settings.fail_on_plugin_error) if settings.fail_on_plugin_error_explicit else None


def _names(manager: _Manager) -> list[str]:
    return [ref.name for ref in manager._registry.get_all_plugins()]


def _converted(plugin: Plugin, hook_type: str, payload: Any, as_json: bool) -> PluginPayload:
    if as_json:
        if not isinstance(payload, str | dict):
            raise ValueError(f"payload must be str or dict when payload_as_json is set, not {type(payload).__name__}")
        return plugin.json_to_payload(hook_type, payload)
    if not isinstance(payload, PluginPayload):
        raise ValueError(f"payload must be a PluginPayload, not {type(payload).__name__}; or set payload_as_json")
    return payload


def _load(config: str | Config) -> tuple[Config | None, str, dict[str, str]]:
    """The configuration, the path it came from, and where in it each plugin stands."""
    if isinstance(config, Config):
        return config, "", {}
    if not config:
        return None, "", {}
    loaded = ConfigLoader.load_config(config)
    return loaded, config, plugin_locations(loaded)


def _conflict(argument: str) -> str:
    return (
        f"PluginManager already has another `{argument}` in this process; call PluginManager.reset() first, or use "
        "TenantPluginManager"
    )


class PluginManager(_Manager):
    """The manager with one state for the whole process: every instance is the same manager.

    The first one made with arguments sets the state; later ones may leave arguments out or repeat them.
    """

    # INVARIANT: the dictionary of all instances, from first to last; `reset` empties it.
    _shared: ClassVar[dict[str, Any]] = {}
    _shared_lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        config: str = "",
        timeout: float | None = DEFAULT_PLUGIN_TIMEOUT,
        observability: ObservabilityProvider | None = None,
        hook_policies: dict[str, HookPayloadPolicy] | None = None,
        default_hook_policy: str | DefaultHookPolicy | None = None,
    ) -> None:
        """Join the process-wide state, creating it if there is none.

        Raises:
            ConfigFileNotFound: The file is not there.
            ConfigError: The file has faults.
            ValueError: An argument contradicts what the state was made with; `reset()` first to start over.
        """
        self.__dict__ = PluginManager._shared
        with PluginManager._shared_lock:
            if not self.__dict__:
                staged = TenantPluginManager(config, timeout, observability, hook_policies, default_hook_policy)
                self.__dict__.update(vars(staged))
                return
            self._join(config, timeout, observability, hook_policies, default_hook_policy)

    def _join(
        self,
        config: str,
        timeout: float | None,
        observability: ObservabilityProvider | None,
        hook_policies: dict[str, HookPayloadPolicy] | None,
        default_hook_policy: str | DefaultHookPolicy | None,
    ) -> None:
        """Take over what is new, refuse what contradicts."""
        executor = self._get_executor()
        if config and config != self._config_path:
            if self._config is not None or self._initialized:
                raise ValueError(
                    f"PluginManager already uses the configuration `{self._config_path}` in this process and cannot "
                    f"take `{config}` as well; call PluginManager.reset() first, or use TenantPluginManager"
                )
            self.__dict__.update(
                vars(
                    TenantPluginManager(
                        config,
                        executor.timeout,
                        executor.observability,
                        executor.hook_policies,
                        executor.default_hook_policy,
                    )
                )
            )
            executor = self._get_executor()
        if timeout != DEFAULT_PLUGIN_TIMEOUT:
            executor.timeout = timeout
        if hook_policies and hook_policies != executor.hook_policies:
            if executor.hook_policies:
                raise ValueError(_conflict("hook_policies"))
            executor.hook_policies = dict(hook_policies)
        if default_hook_policy is not None:
            executor.default_hook_policy = DefaultHookPolicy(default_hook_policy)
        if observability is not None and observability is not executor.observability:
            if executor.observability is not None:
                raise ValueError(_conflict("observability"))
            executor.observability = observability

    @classmethod
    def reset(cls) -> None:
        """Forget the process-wide state. Instances that exist start over, empty, together with those made later.

        Plugins are not shut down.
        """
        global _singleton
        with PluginManager._shared_lock:
            shared = PluginManager._shared
            shared.clear()
            shared.update(vars(TenantPluginManager("")))
            _singleton = None


class TenantPluginManager(PluginManager):
    """A manager with a state of its own; a host may make as many as it likes.

    Example:
        >>> manager = TenantPluginManager(Config())
        >>> manager.plugin_count
        0
    """

    def __init__(
        self,
        config: str | Config,
        timeout: float | None = DEFAULT_PLUGIN_TIMEOUT,
        observability: ObservabilityProvider | None = None,
        hook_policies: dict[str, HookPayloadPolicy] | None = None,
        default_hook_policy: str | DefaultHookPolicy | None = None,
    ) -> None:
        """Load the configuration; plugins are made by `initialize()`.

        Args:
            config: A `Config`, the path of a YAML file, or `""` for none.
            timeout: Seconds for each plugin without a `timeout_s` of its own.

        Raises:
            ConfigFileNotFound: The file is not there.
            ConfigError: The file has faults; all of them are listed.
        """
        self._set_up(config, timeout, observability, hook_policies, default_hook_policy)

    @classmethod
    def reset(cls) -> None:
        """Do nothing: a tenant's manager shares no state."""


_singleton: PluginManager | None = None


def get_plugin_manager(
    observability: ObservabilityProvider | None = None, hook_policies: dict[str, HookPayloadPolicy] | None = None
) -> PluginManager | None:
    """The process-wide manager as the environment configures it; `None` while plugins are not enabled.

    It is not initialised; `await manager.initialize()` before use.

    Raises:
        ConfigFileNotFound: Plugins are enabled and the configuration file is not there.
    """
    global _singleton
    if _singleton is None and settings.enabled:
        _singleton = PluginManager(
            settings.config_file,
            timeout=settings.plugin_timeout,
            observability=observability,
            hook_policies=hook_policies,
        )
    elif _singleton is not None and (observability is not None or hook_policies):
        PluginManager(observability=observability, hook_policies=hook_policies)
    return _singleton
