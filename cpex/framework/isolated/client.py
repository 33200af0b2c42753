"""A plugin that runs in a virtual environment and a process of its own, as the host sees it.

Source: docs/isolated.md.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from cpex.framework.base import Plugin, hook_name
from cpex.framework.errors import PluginError, cause_text, convert_exception_to_error
from cpex.framework.extensions import Extensions
from cpex.framework.extensions.tiers import Capability
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.isolated.environment import Environment
from cpex.framework.isolated.link import WorkerFailed, WorkerGone, WorkerTimeout
from cpex.framework.isolated.locating import (
    IsolatedSettings,
    plugin_class_name,
    plugin_folder,
    refusal,
    requirements_of,
)
from cpex.framework.isolated.process import WorkerProcess, worker_environment
from cpex.framework.isolated.record import Wanted
from cpex.framework.isolated.tasks import HookCall, config_text, failure_of
from cpex.framework.isolated.venv_comm import VenvProcessCommunicator
from cpex.framework.models.config import EXTRA_CAPABILITIES, PluginConfig
from cpex.framework.models.context import PluginContext
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginErrorModel, PluginResult
from cpex.framework.utils import manifest_filename_for_class

__all__ = ["IsolatedVenvPlugin"]

logger = logging.getLogger(__name__)

CALL_TIMEOUT_S = 30.0
"""Seconds for a call, where the configuration does not say."""
START_TIMEOUT_S = 900.0
"""Seconds for `initialize`, which may install packages, where the configuration does not say."""
_GATED = frozenset(each.value for each in Capability)


class IsolatedVenvPlugin(Plugin):
    """Stands for a plugin in a worker.

    `initialize` builds the environment if there is none that fits, starts the worker and lets it load the plugin, so a
    plugin that cannot be loaded stops the start. A worker that dies later is replaced by the next call.

    Attributes:
        plugin_dirs: Folders with plugin code.
        plugin_path: The plugin's own folder.
        cache_dir: Where the record of the environment lies.
        comm: The way to the worker; `None` before `initialize`.
        implementation: Always `Python`.
    """

    default_initialize_timeout_s = START_TIMEOUT_S
    settings_model = IsolatedSettings

    def __init__(self, config: PluginConfig, plugin_dirs: Sequence[str], *, make_folder: bool = True) -> None:
        """Find the plugin's folder. Nothing is built or started.

        Args:
            make_folder: Make it if it is not there: installers put the plugin's manifest there before the start.

        Raises:
            PluginError: The configuration names no class, no folder, or a requirements file outside of its folder.
            pydantic.ValidationError: Another of the host's settings does not fit.
        """
        super().__init__(config)
        self.implementation = "Python"
        self.plugin_dirs = [str(entry) for entry in plugin_dirs]
        self.class_name = plugin_class_name(config)
        self._settings = IsolatedSettings.model_validate(config.config)
        self.plugin_path = plugin_folder(config, self.class_name, self.plugin_dirs)
        if make_folder:
            self.plugin_path.mkdir(parents=True, exist_ok=True)
        self.cache_dir = self.plugin_path / ".cpex" / "venv_cache"
        requirements_of(config, self.plugin_path)
        self.comm: VenvProcessCommunicator | None = None
        self._uncommitted: Environment | None = None
        self._plain_address: dict[str, Any] | None = None

    # The environment.

    def _environment(self, venv_path: str = ".venv", requirements_file: str | None = None) -> Environment:
        requirements = Path(requirements_file) if requirements_file else requirements_of(self.config, self.plugin_path)
        manifest = self.plugin_path / manifest_filename_for_class(self.class_name)
        wanted = Wanted(self.class_name, self.plugin_path / venv_path, requirements, manifest, self.config.version)
        return Environment(self.name, wanted, self.cache_dir, self._settings.install_timeout_s)

    async def create_venv(
        self, venv_path: str = ".venv", requirements_file: str | None = None, use_cache: bool = True
    ) -> bool:
        """Have an environment, empty but for pip when it is new. `initialize` does this and fills it.

        Args:
            venv_path: Below the plugin's folder.
            requirements_file: What the environment is to be filled from; the configured one if not given.
            use_cache: Whether one that fits is kept.

        Returns:
            Whether it was made anew.

        Raises:
            EnvironmentFailed: A `RuntimeError`: it could not be made.
        """
        environment = self._environment(venv_path, requirements_file)
        async with environment.alone():
            if use_cache and environment.why_build() is None:
                return False
            await environment.build()
            return True

    async def _prepare_environment(self, defer: bool) -> None:
        environment = self._environment()
        async with environment.alone():
            reason = environment.why_build()
            if reason is None and not environment.lacks_class():
                return
            former: list[str] = []
            if reason is not None:
                logger.info("Building the environment of plugin %s: %s", self.name, reason)
                former = await environment.build()
            await environment.install(former)
            if defer:
                self._uncommitted = environment
            else:
                environment.commit(former)

    def commit_cache_metadata(self, installed: Sequence[str] = ()) -> None:
        """Record that the environment is finished; does nothing when it was, or is not built by this object.

        Args:
            installed: What an installer put into it beside the requirements file, as pip takes it. A later rebuild
                installs it again.
        """
        environment, self._uncommitted = self._uncommitted, None
        if environment is not None:
            environment.commit(installed)

    def remove_venv(self) -> None:
        """Delete the environment and its record; the plugin's code and manifest stay. Shut the plugin down first.

        Raises:
            FileNotFoundError: One of them is not there.
            EnvironmentFailed: A `RuntimeError`: another host has a claim on it.
        """
        self._environment().remove()

    # The worker.

    async def initialize(self, defer_cache_metadata: bool = False) -> None:
        """Build the environment if needed, start the worker, let it load the plugin.

        Args:
            defer_cache_metadata: For installers, which put the plugin itself into the environment afterwards: nothing
                is started, and the environment counts as finished only after `commit_cache_metadata`.

        Raises:
            EnvironmentFailed: A `RuntimeError`: the environment could not be built or filled.
            PluginError: The worker cannot be started or cannot load the plugin; the text has its last lines on standard
                error.
        """
        await self._prepare_environment(defer_cache_metadata)
        if self.comm is None:
            env = worker_environment(self._settings.worker_env or (), self.plugin_dirs)
            self.comm = VenvProcessCommunicator(str(self.plugin_path / ".venv"), name=self.name, env=env)
            self.comm.use(self.config.max_content_size, self._introduce)
        if defer_cache_metadata:
            return
        try:
            await self.comm.link.ready()
        except PluginError:
            raise
        except (WorkerFailed, WorkerGone, WorkerTimeout, OSError) as error:
            text = f"Failed to start worker process of plugin `{self.name}`: {error}"
            raise PluginError(PluginErrorModel(message=text, plugin_name=self.name, code="worker_start")) from error

    async def _introduce(self, process: WorkerProcess) -> None:
        """Hold a new worker against what the plugin needs, and let it load the plugin, if it can do that ahead."""
        for feature, granting in (("credential", EXTRA_CAPABILITIES), ("extensions", _GATED)):
            if self.config.capabilities & granting and feature not in process.features:
                raise refusal(
                    self.name,
                    f"its `capabilities` need a worker that knows `{feature}`, and the `cpex` in "
                    f"{self.plugin_path / '.venv'} is too old for that; ask for a newer one in the requirements file",
                )
        if "load" not in process.features:
            return
        assert self.comm is not None  # made before anything is started
        task = {"task_type": "load_plugin", "side_by_side": True, **self._about_plugin(process)}
        answer = await self.comm.link.exchange(process, task, self.config.initialize_timeout_s)
        if answer.get("status") != "success":
            failure = failure_of(answer, self.name)
            text = f"plugin `{self.name}` could not be loaded by its worker: {failure.message}{process.told()}"
            raise PluginError(failure.model_copy(update={"message": text}))
        hooks = answer.get("hooks")
        if isinstance(hooks, dict):
            process.three_argument_hooks = frozenset(hook for hook, takes in hooks.items() if takes)

    def _about_plugin(self, process: WorkerProcess) -> dict[str, Any]:
        """The fields of a task that say which plugin is to be loaded."""
        return {
            "plugin_dirs": self.plugin_dirs,
            "class_name": self.class_name,
            "plugin_name": self.name,
            "config": config_text(self.config, process),
        }

    def _address(self, process: WorkerProcess) -> dict[str, Any]:
        """The fields of a task that say which plugin it is for. A worker that has loaded it ahead knows."""
        if "load" in process.features:
            return {}
        if self._plain_address is None:
            self._plain_address = self._about_plugin(process)
        return self._plain_address

    def _call_limit(self) -> float:
        if self.config.timeout_s is not None:
            return self.config.timeout_s
        told = self._settings.timeout_secs
        return told if told is not None and told > 0 else CALL_TIMEOUT_S

    async def invoke_hook(
        self,
        hook_type: str,
        payload: PluginPayload,
        context: PluginContext,
        extensions: Extensions | None = None,
    ) -> PluginResult[Any]:
        """Let the worker run a hook; what the plugin did to the context is taken over into `context`.

        Args:
            extensions: As the pipeline shows them to this plugin.

        Raises:
            PluginError: The plugin failed, its worker ended or did not answer in time, or something cannot cross.
        """
        hook = hook_name(hook_type)
        if not get_hook_registry().is_registered(hook):
            text = "register its payload and result classes with `get_hook_registry().register_hook`"
            self._fail(f"Hook type '{hook}' not registered; {text}", "isolated_unknown_hook")
        if self.comm is None:
            self._fail("Plugin comm not initialized; await initialize() first", "isolated_config")
        call = HookCall(self.config, hook, payload, context, extensions, self._call_limit(), self._address)
        try:
            process, answer = await self.comm.link.call(call.line, call.timeout_s)
            return call.result(answer, process)
        except WorkerFailed as error:
            raise PluginError(failure_of(error.answer, self.name)) from error
        except WorkerTimeout as error:
            self._fail(str(error), "worker_timeout", error)
        except WorkerGone as error:
            self._fail(str(error), "worker_gone", error)
        except PluginError:
            raise
        # SECURITY: the text of pydantic's own error would quote what the plugin returned.
        except ValidationError as error:
            self._fail(f"the worker's answer does not fit the hook: {cause_text(error)}", "worker_answer", error)
        # What cannot be sent.
        except (ValueError, TypeError, OSError) as error:
            raise PluginError(convert_exception_to_error(error, self.name)) from error

    def _fail(self, message: str, code: str, cause: BaseException | None = None) -> NoReturn:
        raise PluginError(PluginErrorModel(message=message, plugin_name=self.name, code=code)) from cause

    async def cleanup(self) -> None:
        """End the worker. A later call starts another."""
        if self.comm is not None:
            await self.comm.link.close()

    async def shutdown(self) -> None:
        """Let the plugin release what it holds, and end the worker."""
        await self.cleanup()
