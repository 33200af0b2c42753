"""Making the plugins of a configuration to see whether they can be made; none is initialised and no hook is run."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from pydantic import ValidationError

from cpex.framework.base import HookRef, PluginRef
from cpex.framework.errors import Fault
from cpex.framework.loader.config import LoadedConfig
from cpex.framework.loader.faults import Findings, Path
from cpex.framework.loader.kinds import PluginKindError, transport_of
from cpex.framework.loader.plugin import PluginLoader
from cpex.framework.loader.schema import report_refused_values
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.mode import PluginMode

__all__ = ["find_plugin_faults", "without_bytecode"]


def find_plugin_faults(loaded: LoadedConfig, loader: PluginLoader) -> tuple[Fault, ...]:
    """What keeps the plugins of a configuration from being made and registered, in order of position.

    Imports and constructs every plugin that is not disabled, and looks for the handler of each hook that it lists. The
    hooks of plugins that run elsewhere are known only once they are connected, and are not looked at.

    Args:
        loader: Made for trial; its search path must be set.
    """
    findings = Findings(loaded.file)
    with without_bytecode():
        for index, config in enumerate(loaded.config.plugins or ()):
            if config.mode is not PluginMode.DISABLED:
                _try_plugin(loaded, loader, config, ("plugins", index), findings)
    return findings.faults


@contextlib.contextmanager
def without_bytecode() -> Iterator[None]:
    """Import without writing `__pycache__`: what only looks leaves the folders of plugins as they are."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _try_plugin(
    loaded: LoadedConfig, loader: PluginLoader, config: PluginConfig, path: Path, findings: Findings
) -> None:
    try:
        plugin = loader.construct(config)
    except PluginKindError as error:
        help = "give the dotted path of a plugin class, a registered name, or the folder of the module in `plugin_dirs`"
        findings.fault(
            "config-kind", _one_line(error, loaded), loaded.source.place((*path, "kind")), (*path, "kind"), help
        )
    except ValidationError as error:
        # The kind has been resolved, or there would be nothing to refuse.
        model = loader.resolve(config).settings_model
        report_refused_values(error, loaded.source, findings, (*path, "config"), model)
    # Plugin boundary: a constructor may raise anything.
    except Exception as error:
        text = loaded.source.scrub(f"plugin `{config.name}` cannot be constructed: {type(error).__name__}: {error}")
        at = (*path, "config") if config.config is not None else path
        help = "look at its settings under `config:`"
        findings.fault("config-plugin-construct", text[:500], loaded.source.place(at), at, help)
    else:
        if transport_of(config) is None:
            _try_hooks(loaded, PluginRef(plugin, config), path, findings)


def _try_hooks(loaded: LoadedConfig, plugin: PluginRef, path: Path, findings: Findings) -> None:
    for index, hook in enumerate(plugin.hooks):
        at = (*path, "hooks", index)
        try:
            HookRef(hook, plugin)
        # Plugin boundary: looking for a handler runs what the plugin makes of being asked for attributes.
        except Exception as error:
            help = "list only hooks that the plugin handles: by a method of that name, or one marked with @hook"
            findings.fault("config-unknown-hook", _one_line(error, loaded), loaded.source.place(at), at, help)


def _one_line(error: Exception, loaded: LoadedConfig) -> str:
    # SECURITY: an exception of the plugin's may quote its settings, and these hold what the environment put there.
    return loaded.source.scrub(" ".join(str(error).split()))[:500]
