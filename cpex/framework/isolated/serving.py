"""What a worker does with a task: load the plugin, run one of its hooks, tell about itself.

A hook runs as it was written: a denial is answered as the denial it is, a failure as a failure. What they mean for the
call, by mode and `on_error`, is for the host to decide, which knows the other plugins as well.

Source: docs/isolated.md, "The lines".
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import platform
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cpex.framework.base import HookRef, Plugin, PluginRef
from cpex.framework.errors import PluginError, cause_text, convert_exception_to_error
from cpex.framework.extensions import Extensions
from cpex.framework.external import wire
from cpex.framework.external.frames import ContextMaps
from cpex.framework.isolated.credentials import (
    CREDENTIAL_FIELD,
    CREDENTIAL_HOOKS,
    MIN_SCRUBBABLE_TOKEN_LENGTH,
    CredentialError,
    delivered_token,
    forms_of,
    reconstruct_credential_payload,
    scrubbed,
    scrubbing,
)
from cpex.framework.isolated.framing import DEFAULT_MAX_BYTES
from cpex.framework.isolated.slots import (
    EXTENSIONS_FIELD,
    MODIFIED_EXTENSIONS_FIELD,
    reconstruct_extensions,
    slots_for_host,
)
from cpex.framework.isolated.tasks import as_json
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.context import PluginContext
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginErrorModel, PluginResult
from cpex.framework.pipeline.plan import Step, compile_step
from cpex.framework.pipeline.single import answer_of
from cpex.framework.utils import import_module, parse_class_name

__all__ = [
    "TaskProcessor",
    "describe_environment",
    "execute_hook_scrubbed",
    "failure",
    "process_task",
]

logger = logging.getLogger(__name__)

HOOK_LIMIT_S = 30.0
"""Seconds for a hook whose host does not say how long it waits."""
SHUTDOWN_LIMIT_S = 3.0
"""Seconds for a plugin to release what it holds."""


class TaskProcessor:
    """Holds the plugin: one at a time, kept as long as hosts ask for the same class with the same configuration."""

    def __init__(self) -> None:
        self.plugin_config: PluginConfig | None = None
        """Of the live plugin; `None` before there is one."""
        self.plugin: Plugin | None = None
        self._key: str | None = None
        self._steps: dict[str, Step] = {}
        self._loading = asyncio.Lock()

    @staticmethod
    def compute_hash(text: str) -> str:
        """SHA-256 of a text, hexadecimal."""
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    @property
    def max_bytes(self) -> int:
        """How long a line may be, by the configuration of the live plugin."""
        return self.plugin_config.max_content_size if self.plugin_config is not None else DEFAULT_MAX_BYTES

    async def initialize(self, task: Mapping[str, Any]) -> Plugin:
        """Have the plugin that a task is about: the live one, or a new one in its place.

        Raises:
            ImportError, TypeError, ValueError: The task names no plugin, or none that can be loaded.
            Exception: Whatever the plugin's code raises.
        """
        class_name, text = task.get("class_name"), task.get("config")
        if not isinstance(class_name, str) or not isinstance(text, str):
            raise ValueError("the task needs the texts `class_name` and `config`")
        key = self.compute_hash(f"{class_name}\0{text}")
        async with self._loading:
            if self.plugin is None or key != self._key:
                _search(task.get("plugin_dirs") or [])
                config = PluginConfig.model_validate_json(text)
                plugin = _class(class_name)(config)
                async with asyncio.timeout(config.initialize_timeout_s):
                    await plugin.initialize()
                await self.shutdown()
                self.plugin, self.plugin_config, self._key, self._steps = plugin, config, key, {}
            return self.plugin

    def get_hook_ref(self, hook_type: str) -> HookRef:
        """The live plugin's handler for a hook.

        Raises:
            PluginError: It has none.
        """
        return self.step(hook_type).ref

    def step(self, hook: str) -> Step:
        """The live plugin's turn in a hook, compiled once.

        Raises:
            PluginError: It has no handler for the hook.
        """
        assert self.plugin is not None  # asked for after `initialize`
        step = self._steps.get(hook)
        if step is None:
            step = self._steps[hook] = compile_step(hook, HookRef(hook, PluginRef(self.plugin)))
        return step

    async def shutdown(self) -> None:
        """Let the live plugin release what it holds, for three seconds at most."""
        plugin, self.plugin, self._key = self.plugin, None, None
        if plugin is None:
            return
        try:
            async with asyncio.timeout(SHUTDOWN_LIMIT_S):
                await plugin.shutdown()
        # Plugin boundary: it is on its way out.
        except Exception:
            logger.exception("Plugin %s failed to shut down", plugin.name)


def _search(plugin_dirs: Any) -> None:
    """Let plugin code be imported from folders. Which those are is the operator's decision, made on the host's side."""
    for entry in plugin_dirs:
        folder = Path(entry).resolve()
        if not folder.is_dir():
            raise ValueError(f"plugin folder {folder} does not exist.")
        if str(folder) not in sys.path:
            sys.path.append(str(folder))


def _class(class_name: str) -> type[Plugin]:
    module, name = parse_class_name(class_name)
    if not module:
        raise ImportError(f"class name {class_name!r} names no module; write `package.module.Class`")
    found = getattr(import_module(module), name, None)
    if not (isinstance(found, type) and issubclass(found, Plugin)):
        raise ImportError(f"module `{module}` has no plugin class `{name}`")
    return found


async def process_task(task_data: Mapping[str, Any], tp: TaskProcessor) -> dict[str, Any]:
    """Carry out a task.

    Args:
        task_data: `{"task_type", "request_id", ...}`; with `typed: true`, values that keep their types.

    Returns:
        What to answer, in the words of JSON, `request_id` included. Failures are answers.
    """
    kind, request_id = task_data.get("task_type"), task_data.get("request_id", "unknown")
    try:
        if kind == "info":
            answer = describe_environment()
        elif kind == "load_plugin":
            answer = await _load(task_data, tp)
        elif kind == "load_and_run_hook":
            answer = await _run(task_data, tp)
        else:
            answer = failure("task type not supported.")
    except CredentialError as error:
        answer = failure(f"Credential reconstruction failed: {error}")
    # Plugin boundary: whatever the plugin's code does, the host gets an answer.
    except Exception as error:
        answer = _told(error, tp)
    return {"request_id": request_id, **answer}


def failure(message: str) -> dict[str, Any]:
    """An answer that says that something failed."""
    return {"status": "error", "message": message}


def _told(error: Exception, tp: TaskProcessor) -> dict[str, Any]:
    name = tp.plugin_config.name if tp.plugin_config is not None else "unknown"
    if isinstance(error, PluginError):
        model = error.error
    elif isinstance(error, ValidationError):
        # SECURITY: pydantic's own text quotes what it refused, which is a payload or a setting.
        model = PluginErrorModel(message=cause_text(error), plugin_name=name)
    else:
        model = convert_exception_to_error(error, name)
    answer = failure(f"Unexpected error: {model.message}")
    # For hosts that tell failures of plugins apart by more than their texts.
    with suppress(ValueError):
        answer["error"] = wire.plain(model)
    return answer


def describe_environment() -> dict[str, Any]:
    """The answer to `info`."""
    # Draws in the mail parser, which nothing else here needs.
    import importlib.metadata

    return {
        "status": "success",
        "message": "Environment info retrieved successfully",
        "environment": {
            "python_version": sys.version,
            "python_executable": sys.executable,
            "platform": platform.platform(),
            "installed_packages": sorted(importlib.metadata.entry_points().groups)[:10],
        },
    }


async def _load(task: Mapping[str, Any], tp: TaskProcessor) -> dict[str, Any]:
    plugin = await tp.initialize(task)
    hooks = {hook: tp.get_hook_ref(hook).accepts_extensions for hook in plugin.hooks}
    return {"status": "success", "message": "Plugin loaded", "hooks": hooks}


async def _run(task: Mapping[str, Any], tp: TaskProcessor) -> dict[str, Any]:
    # A host that has had the plugin loaded ahead does not say again which one it is.
    plugin = tp.plugin if tp.plugin is not None and "class_name" not in task else await tp.initialize(task)
    hook = str(task.get("hook_type"))
    if not isinstance(task.get("context"), Mapping):
        raise ValueError("the task has no context")
    context = PluginContext.model_validate(task["context"])
    payload = plugin.json_to_payload(hook, task["payload"]) if task.get("payload") is not None else None
    token = None
    if hook in CREDENTIAL_HOOKS and task.get(CREDENTIAL_FIELD) is not None:
        if payload is None:
            logger.warning("Hook %s was sent a credential without a payload, and runs without it", hook)
        else:
            token = delivered_token(hook, task[CREDENTIAL_FIELD])
            payload = reconstruct_credential_payload(hook, payload, task[CREDENTIAL_FIELD])
    before = ContextMaps(context)
    extensions = reconstruct_extensions(task.get(EXTENSIONS_FIELD))
    limit = task.get("timeout_s")
    limit_s = float(limit) if isinstance(limit, int | float) else HOOK_LIMIT_S
    result = await execute_hook_scrubbed(tp, hook, payload, context, token, extensions, limit_s=limit_s)
    if payload is not None and result.modified_payload is payload and token is None:
        result = _without_echo(result, plugin.json_to_payload(hook, task["payload"]))
    answer = _answer(result, task, extensions)
    if changes := before.changes():
        answer["context"] = wire.encode(changes) if task.get("typed") else as_json(changes)
    _refuse_echo(answer, token)
    return answer


async def execute_hook_scrubbed(
    tp: TaskProcessor,
    hook_type: str,
    payload: PluginPayload | None,
    plugin_context: PluginContext,
    plaintext_token: str | None,
    extensions: Extensions | None = None,
    *,
    limit_s: float = HOOK_LIMIT_S,
) -> PluginResult[Any]:
    """Run a hook of the live plugin; a token that was delivered stays out of what it logs, prints and raises.

    Raises:
        RuntimeError: The hook failed, and a token was delivered: the text of the failure, without the token.
        PluginError: The plugin has no such handler, its time ran out, or its answer is no `PluginResult`.
        Exception: Whatever the handler raises, when no token was delivered.
    """
    if plaintext_token is None or len(plaintext_token) < MIN_SCRUBBABLE_TOKEN_LENGTH:
        return await answer_of(tp.step(hook_type), payload, plugin_context, extensions, limit_s)
    with scrubbing(plaintext_token):
        try:
            return await answer_of(tp.step(hook_type), payload, plugin_context, extensions, limit_s)
        # SECURITY: texts of the plugin's exceptions may quote the token, those of their causes as well.
        except Exception as error:
            raise RuntimeError(scrubbed(convert_exception_to_error(error, "").message, plaintext_token)) from None


def _without_echo(result: PluginResult[Any], sent: PluginPayload) -> PluginResult[Any]:
    """A result that hands the untouched payload back changes nothing, here as in the host's own process."""
    return result.model_copy(update={"modified_payload": None}) if sent == result.modified_payload else result


def _answer(result: PluginResult[Any], task: Mapping[str, Any], extensions: Extensions | None) -> dict[str, Any]:
    returned = result.modified_extensions
    rest = result.model_copy(update={MODIFIED_EXTENSIONS_FIELD: None}) if returned is not None else result
    if task.get("typed"):
        answer: dict[str, Any] = wire.encode(rest)
        slots = slots_for_host(returned, task.get(EXTENSIONS_FIELD)) if returned is not None else None
        if slots:
            answer[MODIFIED_EXTENSIONS_FIELD] = wire.encode(slots)
        return answer
    answer = rest.model_dump(mode="json", warnings=False)
    if returned is not None:
        answer[MODIFIED_EXTENSIONS_FIELD] = as_json(slots_for_host(returned, task.get(EXTENSIONS_FIELD)))
    return answer


def _refuse_echo(answer: dict[str, Any], token: str | None) -> None:
    if token is None or len(token) < MIN_SCRUBBABLE_TOKEN_LENGTH:
        return
    text = json.dumps(answer)
    if any(form in text for form in forms_of(token)):
        raise CredentialError("the plugin result echoed the inbound credential")
