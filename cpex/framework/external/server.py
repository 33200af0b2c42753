"""The serving end: a configuration's plugins, answering one question at a time on any number of connections.

A server runs handlers and reports what they answered. What an answer means for the operation is the asking host's to
decide: mode and `on_error` are its, so a denial or a failure is never hidden here. Conditions and capabilities hold on
both ends, because each end's operator wrote theirs.

Source: docs/reference/external.md, "Servers".
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable
from typing import Any, Literal

from pydantic import ValidationError

from cpex.framework.base import Plugin
from cpex.framework.errors import ConfigError, PluginError, cause_text, convert_exception_to_error
from cpex.framework.extensions import Extensions
from cpex.framework.external import wire
from cpex.framework.external.frames import Answer, ContextMaps, Question
from cpex.framework.external.running import serve_until_stopped
from cpex.framework.external.wire import ADVERTISEMENT, FEATURES, MASK, WireError
from cpex.framework.loader.config import ConfigLoader
from cpex.framework.loader.exclusive import OneAtATime
from cpex.framework.loader.plugin import PluginLoader
from cpex.framework.loader.start import FailedPlugin, start_plugins
from cpex.framework.models.config import EXTRA_CAPABILITIES, Config, PluginConfig
from cpex.framework.models.context import PluginContext
from cpex.framework.models.result import PluginErrorModel, PluginResult
from cpex.framework.models.transport import GRPCServerConfig, MCPServerConfig, UnixSocketServerConfig
from cpex.framework.pipeline.plan import Step, compile_step
from cpex.framework.pipeline.single import answer_of
from cpex.framework.registry import PluginInstanceRegistry
from cpex.framework.settings import get_config_path_settings, settings

__all__ = ["ExternalPluginServer"]

logger = logging.getLogger(__name__)

DEFAULT_CONFIG_PATH = os.path.join(".", "resources", "plugins", "config.yaml")
DEFAULT_TIMEOUT_S = 30.0
"""Seconds for a handler whose configuration and whose asking host say nothing."""
_SECRET_NAME = re.compile(r"pass(word|wd|phrase)?$|secret|token|credential|api_?key|private_?key|^key$|auth$", re.I)


class ExternalPluginServer:
    """Serves the plugins of one configuration; transports only carry questions to it and answers back.

    Has a state of its own: two servers in one process share nothing.
    """

    def __init__(self, config_path: str | None = None, plugins: Iterable[Plugin] | None = None) -> None:
        """Read the configuration; plugins are made by `initialize()`.

        Args:
            config_path: Where the configuration is; else what `PLUGINS_CONFIG_PATH` says, else
                `./resources/plugins/config.yaml`.
            plugins: Plugins that exist already, served in place of a configuration's.

        Raises:
            ConfigFileNotFound: The file is not there.
            ConfigError: The file has faults; all of them are listed.
        """
        self._given = None if plugins is None else list(plugins)
        self._path = "" if plugins is not None else _config_path(config_path)
        loaded = ConfigLoader.load(self._path) if self._path else None
        self._config = loaded.config if loaded is not None else Config()
        self._locations = loaded.plugin_locations() if loaded is not None else {}
        self._written = _settings_as_written(self._path) if self._path else {}
        self._loader = PluginLoader()
        self._registry = PluginInstanceRegistry()
        self._steps: dict[tuple[str, str], Step] = {}
        self._failed: dict[str, FailedPlugin] = {}
        self._initialized = False
        self._starting_or_stopping = OneAtATime()

    @property
    def config(self) -> Config:
        """The configuration that is served."""
        return self._config

    @property
    def running(self) -> bool:
        """Whether the plugins are running."""
        return self._initialized

    @property
    def health(self) -> Literal["healthy", "degraded", "unhealthy"]:
        """Whether the plugins are running; `degraded` when some that may be missing are not."""
        if not self._initialized:
            return "unhealthy"
        # One behind a server of its own may have found it since.
        missing = [name for name in self._failed if not getattr(self._plugin(name), "connected", False)]
        return "degraded" if missing else "healthy"

    def _plugin(self, name: str) -> Plugin | None:
        ref = self._registry.get_plugin(name)
        return ref.plugin if ref is not None else None

    async def initialize(self) -> bool:
        """Make and initialise the plugins. Does nothing when that is done.

        Of tasks and threads that start one server at once, one does it and the others wait for it.

        Returns:
            True.

        Raises:
            PluginLoadError: Plugins whose failure is fatal failed; all are named, and nothing is left running.
            Exception: Whatever the `initialize()` of a plugin that existed already raises; nothing is left running.
        """
        async with self._starting_or_stopping:
            if not self._initialized:
                await self._start()
        return True

    async def _start(self) -> None:
        try:
            for plugin in self._given or ():
                # Registered first, so that it is stopped should its start fail.
                self._registry.register(plugin)
                await plugin.initialize()
        except BaseException:
            await self._registry.shutdown()
            raise
        self._loader.append_to_search_path(self._config.plugin_dirs, base=self._path or None)
        self._failed = await start_plugins(
            self._config, self._loader, self._registry, self._locations, any_is_fatal=_any_is_fatal
        )
        self._initialized = True
        logger.info("Plugin server initialized with %d plugins", self._registry.plugin_count)

    async def shutdown(self) -> None:
        """Shut every plugin down, once a start that is under way has ended. May be called more than once."""
        async with self._starting_or_stopping:
            if self._initialized:
                self._initialized = False
                self._steps.clear()
                await self._registry.shutdown()

    def run(self, transport: str | None = None) -> None:
        """Serve over MCP until SIGINT or SIGTERM, or until standard input ends; for a program that does nothing else.

        Args:
            transport: `stdio` or `http`; else what `PLUGINS_TRANSPORT` says.

        Raises:
            OSError: The address cannot be listened on.
            ValueError: A setting is wrong; the text says which.
            PluginLoadError: A plugin did not start.
        """
        # The transport is loaded by who serves over it.
        from cpex.framework.external.mcp.server.runtime import serve

        serve_until_stopped(lambda: serve(self, transport))

    # Where it listens: the file's section as a whole, else the environment as a whole, else the defaults.

    def get_server_config(self) -> MCPServerConfig:
        """Where the server listens when it speaks MCP over HTTP."""
        return self._config.server_settings or MCPServerConfig.from_env() or MCPServerConfig()

    def get_grpc_server_config(self) -> GRPCServerConfig | None:
        """The file's section about gRPC, if it has one."""
        return self._config.grpc_server_settings

    def get_unix_server_config(self) -> UnixSocketServerConfig | None:
        """The file's section about a plain Unix socket, if it has one."""
        return self._config.unix_socket_server_settings

    # What it says about its plugins.

    async def get_plugin_configs(self) -> list[dict[str, Any]]:
        """What `get_plugin_config` says about each plugin, disabled ones included, in the order of the file."""
        return [self._described(each) for each in self._entries()]

    async def get_plugin_config(self, name: str) -> dict[str, Any] | None:
        """Every field of a plugin's configuration as JSON values; `None` when there is none of that name.

        Its settings are given as they stand in the file, environment variables as the templates they are, and values
        under names that speak of secrets masked: whoever can reach the server may ask.

        Args:
            name: Compared without case.
        """
        found = next((each for each in self._entries() if each.name.casefold() == name.casefold()), None)
        return self._described(found) if found is not None else None

    def _entries(self) -> list[PluginConfig]:
        return [each.config for each in self._given or ()] + list(self._config.plugins or [])

    def _described(self, entry: PluginConfig) -> dict[str, Any]:
        written = self._written.get(entry.name, {}) if self._path else wire.plain(entry).get("config")
        described = entry.model_copy(update={"config": None}).to_json()
        described["config"] = _masked(written) if entry.config is not None else None
        # Hosts of release 0.1 refuse a whole configuration for a capability that they do not know.
        beyond = sorted(entry.capabilities & EXTRA_CAPABILITIES)
        described["capabilities"] = sorted(entry.capabilities - EXTRA_CAPABILITIES)
        about_us = {"version": 1, "features": list(FEATURES), "capabilities": beyond}
        return described | {ADVERTISEMENT: about_us}

    # Answers.

    async def invoke_hook(
        self,
        hook_type: str,
        plugin_name: str,
        payload: dict[str, Any],
        context: dict[str, Any] | PluginContext,
    ) -> dict[str, Any]:
        """Run one hook of one plugin, in the plain form.

        Returns:
            `{"plugin_name", "result", "context"?}`, the context only when it holds any state, as an object of the class
            that was given; or `{"plugin_name", "error"}` with a `PluginErrorModel`, or with its fields as a dict where
            the question itself could not be read. `port.plain_answer` makes dicts of all of it.
        """
        asked = context if isinstance(context, PluginContext) else None
        try:
            context = asked or PluginContext.model_validate(context)
            result = await self._run(hook_type, plugin_name, payload, context, None, None)
            answer: dict[str, Any] = {"plugin_name": plugin_name, "result": result.model_dump(mode="json")}
            if not context.is_empty() or context.metadata:
                answer["context"] = context if asked is not None else wire.plain(context)
            return answer
        # Plugin boundary: whatever went wrong is the answer.
        except Exception as error:
            told = _error_of(error, plugin_name)
            # As in release 0.1, whose programs ask `answer["error"].message` of a plugin's failure.
            return {
                "plugin_name": plugin_name,
                "error": told.model_dump() if isinstance(error, ValidationError) else told,
            }

    async def exchange(self, frame: bytes) -> bytes:
        """Answer a frame; see `frames.py`."""
        question = None
        try:
            question = Question.read(frame)
            context = question.plugin_context()
            before = ContextMaps(context)
            extensions = Extensions.model_validate(question.extensions) if question.extensions is not None else None
            result = await self._run(
                question.hook, question.plugin, question.payload, context, extensions, question.timeout_s
            )
            return Answer.frame(question.id, question.plugin, result, before.changes(), reveal=True)
        # Plugin boundary: whatever went wrong is the answer.
        except Exception as error:
            id, plugin = (question.id, question.plugin) if question is not None else ("", "unknown")
            return Answer.frame(id, plugin, error=_error_of(error, plugin))

    async def _run(
        self,
        hook: str,
        plugin: str,
        payload: dict[str, Any],
        context: PluginContext,
        extensions: Extensions | None,
        timeout_s: float | None,
    ) -> PluginResult[Any]:
        step = self._step(hook, plugin)
        typed = step.ref.plugin_ref.plugin.json_to_payload(hook, payload)
        if step.matches is not None and not step.matches(typed, context.global_context):
            return PluginResult()
        limit = step.timeout_s or self._config.plugin_timeout_s or timeout_s or DEFAULT_TIMEOUT_S
        return await answer_of(step, typed, context, extensions, limit)

    def _step(self, hook: str, plugin: str) -> Step:
        key = (plugin, hook)
        step = self._steps.get(key)
        if step is None:
            if not self._initialized:
                raise _refused("Plugin server not initialized; call `initialize()` first", plugin)
            names = [each.name for each in self._registry.get_all_plugins()]
            name = next((each for each in names if each.casefold() == plugin.casefold()), plugin)
            ref = self._registry.get_plugin_hook_by_name(name, hook)
            if ref is None:
                known = ", ".join(names) or "none"
                raise _refused(f"Unable to find {hook} for plugin {plugin}; plugins of this server: {known}", plugin)
            step = self._steps[key] = compile_step(hook, ref)
        return step


def _any_is_fatal() -> bool | None:
    """Whether any plugin that does not start stops the start, where the operator has said so."""
    return bool(settings.fail_on_plugin_error) if settings.fail_on_plugin_error_explicit else None


def _config_path(given: str | None) -> str:
    return given or get_config_path_settings().config_path or DEFAULT_CONFIG_PATH


def _settings_as_written(path: str) -> dict[str, Any]:
    """Plugin name -> its settings with templates in place of what the environment holds.

    Empty where the text cannot be read that way: an unquoted template is no YAML, and nothing is better than too much.
    """
    try:
        written = ConfigLoader.load(path, use_jinja=False, strict=False).config
    except ConfigError:
        return {}
    return {each.name: each.model_dump(mode="json").get("config") for each in written.plugins or []}


def _masked(value: Any) -> Any:
    """JSON values with what secrets are called masked, at every depth."""
    if isinstance(value, dict):
        return {
            key: MASK if isinstance(key, str) and _SECRET_NAME.search(key) and item else _masked(item)
            for key, item in value.items()
        }
    return [_masked(each) for each in value] if isinstance(value, list) else value


def _refused(message: str, plugin: str, code: str = "") -> PluginError:
    return PluginError(PluginErrorModel(message=message, plugin_name=plugin, code=code))


def _error_of(error: Exception, plugin: str) -> PluginErrorModel:
    if isinstance(error, PluginError):
        return error.error
    if isinstance(error, ValidationError | WireError):
        # SECURITY: pydantic's own text quotes what it refused, which is a payload.
        return PluginErrorModel(message=cause_text(error), plugin_name=plugin, code="external_value")
    return convert_exception_to_error(error, plugin)
