"""Starting the plugins of a configuration: all that may not be missing, or none.

Managers and plugin servers start plugins alike. What is left out and why is for the caller to show; what may be left
out is for the plugin's `on_error` to say, unless the environment does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from cpex.framework.constants import EXTERNAL_PLUGIN_TYPE
from cpex.framework.errors import LoadFailure, PluginError, PluginLoadError, cause_text
from cpex.framework.loader.kinds import PluginKindError
from cpex.framework.loader.plugin import PluginLoader
from cpex.framework.models.config import Config, PluginConfig
from cpex.framework.models.mode import OnError, PluginMode
from cpex.framework.models.result import PluginErrorModel
from cpex.framework.pipeline.log import manager_logger as logger
from cpex.framework.pipeline.stopping import stop_plugin
from cpex.framework.registry import PluginInstanceRegistry

__all__ = ["FailedPlugin", "start_plugins"]


_MAY_BE_MISSING = (OnError.IGNORE, OnError.DISABLE)


@dataclass(frozen=True, slots=True)
class FailedPlugin:
    """A plugin that the manager started without."""

    name: str
    kind: str
    location: str | None
    """`file:line:column` of its entry, when it came from a file."""
    error: BaseException


async def start_plugins(
    config: Config,
    loader: PluginLoader,
    registry: PluginInstanceRegistry,
    locations: Mapping[str, str],
    *,
    any_is_fatal: Callable[[], bool | None],
) -> dict[str, FailedPlugin]:
    """Make, initialise and register the configured plugins, in order.

    Args:
        locations: Plugin name -> where its entry stands, for messages.
        any_is_fatal: Whether one that does not start stops the start; `None` leaves it to the plugin's `on_error`. It
            is asked when one has failed: a setting that is malformed stops nothing that does not need it.

    Returns:
        The plugins that may be missing and are, by name. An external one among them that has hooks in this
        configuration is registered all the same: its calls fail, as its `on_error` says, until its server is there.

    Raises:
        PluginLoadError: Plugins whose failure is fatal failed; all are named, and nothing is left registered.
    """
    # SECURITY: what has started is registered once all of it has, or calls made meanwhile would pass a part of the
    # guards and look like guarded ones.
    started = PluginInstanceRegistry()
    try:
        failed = await _start_all(config, loader, started, registry, locations, any_is_fatal)
        registry.adopt(started)
    except BaseException:
        # Failed, cancelled or interrupted: leave nothing half started behind.
        await started.shutdown()
        await registry.shutdown()
        raise
    return failed


async def _start_all(
    config: Config,
    loader: PluginLoader,
    started: PluginInstanceRegistry,
    registry: PluginInstanceRegistry,
    locations: Mapping[str, str],
    any_is_fatal: Callable[[], bool | None],
) -> dict[str, FailedPlugin]:
    failed: dict[str, FailedPlugin] = {}
    fatal: list[FailedPlugin] = []
    for entry in config.plugins or []:
        # Compared by value, here and below: an overlay of a host's may hold mere texts.
        if entry.mode == PluginMode.DISABLED:
            logger.info("Plugin %s is disabled and was not loaded", entry.name)
            continue
        try:
            if registry.get_plugin(entry.name) is not None:
                raise ValueError(f"Plugin {entry.name} already registered")
            await _start(entry, loader, started)
        # Plugin boundary.
        except Exception as error:
            failure = FailedPlugin(entry.name, entry.kind, locations.get(entry.name), error)
            is_fatal = any_is_fatal()
            if entry.on_error not in _MAY_BE_MISSING if is_fatal is None else is_fatal:
                fatal.append(failure)
            else:
                failed[entry.name] = failure
                _start_without(failure, entry, loader, started)
    if fatal:
        failures = [LoadFailure(each.name, each.error, each.location) for each in fatal]
        cause = fatal[0].error
        # SECURITY: pydantic's text quotes the refused setting, and a traceback prints the whole chain.
        raise PluginLoadError(failures) from None if isinstance(cause, ValidationError) else cause
    return failed


async def _start(entry: PluginConfig, loader: PluginLoader, registry: PluginInstanceRegistry) -> None:
    plugin = await loader.load_and_instantiate_plugin(entry)
    if plugin is None:
        raise PluginError(PluginErrorModel(message=f"Plugin {entry.name} could not be loaded", plugin_name=entry.name))
    remote = entry.kind == EXTERNAL_PLUGIN_TYPE
    try:
        # What an external plugin's server says about it is part of its configuration.
        registry.register(plugin, plugin.config.model_copy(deep=True) if remote else entry)
    except Exception:
        await stop_plugin(plugin, entry)
        raise


def _start_without(
    failure: FailedPlugin, entry: PluginConfig, loader: PluginLoader, registry: PluginInstanceRegistry
) -> None:
    kept = entry.kind == EXTERNAL_PLUGIN_TYPE and bool(entry.hooks) and not isinstance(failure.error, PluginKindError)
    if kept:
        # At the price of one round of attempts per pause.
        remote: Any = loader.construct(entry)
        remote.connect_when_called()
        registry.register(remote, entry)
    logger.warning(
        "Starting without plugin %s (on_error: %s), which failed to start: %s%s",
        failure.name,
        entry.on_error,
        cause_text(failure.error),
        "; calls of its hooks try to reach it again" if kept else "",
    )
