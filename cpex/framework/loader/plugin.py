"""From a plugin's configuration to a plugin that is ready to be registered."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import stat
import sys
from collections.abc import Iterable
from pathlib import Path

from cpex.framework.base import Plugin
from cpex.framework.errors import PluginError
from cpex.framework.loader.kinds import PluginKindError, find_class, transport_class, transport_of
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.result import PluginErrorModel
from cpex.framework.pipeline.starting import start_plugin
from cpex.framework.pipeline.stopping import stop_plugin

__all__ = ["ALLOWED_PLUGIN_DIRS", "PluginKindError", "PluginLoader"]

logger = logging.getLogger(__name__)


def _usual_folders() -> frozenset[str]:
    folders = {"/var/lib/cpex/plugins", "/private/var/lib/cpex/plugins"}
    # A process may stand in a folder that has been removed.
    with contextlib.suppress(FileNotFoundError):
        folders.add(str(Path.cwd()))
    return frozenset(folders)


ALLOWED_PLUGIN_DIRS = _usual_folders()
"""The usual places for plugins. They restrict nothing here: whoever writes the configuration decides."""


class PluginLoader:
    """Finds plugin classes, makes plugins and initialises them.

    Attributes:
        plugin_dirs: Folders of the configuration that are searched before everything else, as absolute paths.
        beside: The folder that the configuration lies in, searched after everything else; `None` when it is no file.
    """

    def __init__(self, *, trial: bool = False) -> None:
        """Set up an empty search path.

        Args:
            trial: Plugins are made to see whether they can be, and the loader writes nothing for them.
        """
        self._trial = trial
        self._plugin_types: dict[str, type[Plugin]] = {}
        self.plugin_dirs: list[str] = []
        self.beside: str | None = None

    def append_to_search_path(self, plugin_dirs: Iterable[str], base: str | os.PathLike[str] | None = None) -> None:
        """Search folders for plugin modules, and let those modules import what lies beside them.

        A folder that is missing, or that anyone may write to, is named in a WARNING.

        Args:
            plugin_dirs: A relative one is looked for in the folder of `base`, then in the working directory.
            base: The configuration file, or its folder. A module that is found nowhere else is looked for there.
        """
        if base is not None:
            self.beside = str(_folder_of(base).resolve())
        for entry in plugin_dirs:
            folder = _existing_folder(entry, base)
            if folder is None:
                logger.warning("Plugin folder %s does not exist; looked in %s", entry, _looked_in(entry, base))
                continue
            if folder.stat().st_mode & stat.S_IWOTH:
                logger.warning("Plugin folder %s is world-writable: anyone on this machine can change plugins", folder)
            if str(folder) not in self.plugin_dirs:
                self.plugin_dirs.append(str(folder))
            if str(folder) not in sys.path:
                sys.path.append(str(folder))
        if self.plugin_dirs:
            # Files that were written a moment ago must be seen.
            importlib.invalidate_caches()

    def resolve_kind(self, kind: str) -> type[Plugin]:
        """The class of plugins of a kind that runs in this process, imported; found once.

        Raises:
            PluginKindError: A `PluginError` and an `ImportError`: the kind does not lead to a plugin class.
        """
        found = self._plugin_types.get(kind)
        if found is None:
            found = self._plugin_types[kind] = find_class(kind, self.plugin_dirs, self.beside)
        return found

    def resolve(self, config: PluginConfig) -> type[Plugin]:
        """The class of one plugin: of its kind, or of the transport to where it runs.

        Raises:
            PluginKindError: A `PluginError` and an `ImportError`: there is no such class, or no such transport here.
        """
        transport = transport_of(config)
        try:
            if transport is None:
                return self.resolve_kind(config.kind)
            if transport not in self._plugin_types:
                self._plugin_types[transport] = transport_class(transport)
            return self._plugin_types[transport]
        except PluginKindError as error:
            error.error.plugin_name = config.name
            raise

    def construct(self, config: PluginConfig) -> Plugin:
        """Make a plugin without initialising it.

        Args:
            config: The plugin gets a copy of its own, which it may change without effect on anything else.

        Raises:
            PluginKindError: A `PluginError` and an `ImportError`: there is no class to make it from.
            PluginError: The plugin's constructor called `sys.exit()`.
            Exception: Whatever it raises.
        """
        cls = self.resolve(config)
        try:
            if config.kind == "isolated_venv":
                more = {"make_folder": False} if self._trial else {}
                # mypy: the class of this transport takes the folders as well; it is known by its kind only.
                return cls(config.private_copy(), list(self.plugin_dirs), **more)  # type: ignore[arg-type]
            return cls(config.private_copy())
        except SystemExit as error:
            raise _asked_to_exit(config, "constructor") from error

    async def load_and_instantiate_plugin(self, config: PluginConfig) -> Plugin | None:
        """Make a plugin and initialise it.

        When `initialize()` fails, runs out of time or is cancelled, the plugin is shut down before the failure goes on.

        Returns:
            The plugin; never `None` from this class, though a loader in its place may decline.

        Raises:
            PluginKindError: A `PluginError` and an `ImportError`: there is no class to make it from.
            PluginTimeoutError: `initialize()` took longer than the plugin's `initialize_timeout_s`. One that does not
                stop when it is told to is closed five seconds later.
            asyncio.CancelledError: The caller was cancelled, whatever the plugin made of it.
            PluginError: The plugin called `sys.exit()`.
            Exception: Whatever the plugin's constructor or `initialize()` raises.
        """
        plugin = self.construct(config)
        if type(plugin).initialize is Plugin.initialize:
            # The base class has nothing to initialise: no deadline to arm, a thousand times over.
            return plugin
        try:
            await start_plugin(plugin, config.name, _initialize_limit(plugin, config))
        except BaseException as error:
            await stop_plugin(plugin, config)
            if isinstance(error, SystemExit):
                raise _asked_to_exit(config, "initialize()") from error
            raise
        return plugin

    async def shutdown(self) -> None:
        """Forget the classes that were found. Modules stay imported."""
        self._plugin_types.clear()


def _asked_to_exit(config: PluginConfig, where: str) -> PluginError:
    # SECURITY: whether the process ends is not a plugin's to say while it starts: with 0 it would look like a success.
    text = f"the {where} of plugin {config.name} called sys.exit(); raise an exception that says what is wrong"
    return PluginError(PluginErrorModel(message=text, plugin_name=config.name))


def _initialize_limit(plugin: Plugin, config: PluginConfig) -> float:
    """Seconds for `initialize()`: what the operator wrote, else what the plugin's class asks for, else the default."""
    if "initialize_timeout_s" in config.model_fields_set:
        return config.initialize_timeout_s
    # Building an environment takes longer than what plugins of this process may take.
    asked = getattr(type(plugin), "default_initialize_timeout_s", None)
    return float(asked) if asked is not None else config.initialize_timeout_s


def _candidates(entry: str, base: str | os.PathLike[str] | None) -> list[Path]:
    path = Path(entry).expanduser()
    if path.is_absolute() or base is None:
        return [path]
    return [_folder_of(base) / path, path]


def _folder_of(base: str | os.PathLike[str]) -> Path:
    return Path(base) if Path(base).is_dir() else Path(base).parent


def _existing_folder(entry: str, base: str | os.PathLike[str] | None) -> Path | None:
    return next((path.resolve() for path in _candidates(entry, base) if path.is_dir()), None)


def _looked_in(entry: str, base: str | os.PathLike[str] | None) -> str:
    return ", ".join(dict.fromkeys(str(path.absolute()) for path in _candidates(entry, base)))
