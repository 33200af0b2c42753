"""One hook call as a line for a worker, and the worker's answer as a result.

A worker of ours is sent values that keep their types, and told how long anybody waits. One of release 0.1 gets the
plain JSON of that release, and a configuration in which every plugin is `sequential` and `fail`: it would otherwise
decide itself what a denial or a failure means, and the host's pipeline would never hear of it.

Source: docs/isolated.md, "The lines".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cpex.framework.errors import PluginError
from cpex.framework.extensions import Extensions
from cpex.framework.external import wire
from cpex.framework.external.frames import Answer
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.isolated.credentials import CREDENTIAL_FIELD, CREDENTIAL_HOOKS, credential_for, masked_headers
from cpex.framework.isolated.framing import TYPED, frame
from cpex.framework.isolated.process import WorkerProcess
from cpex.framework.isolated.slots import (
    EXTENSIONS_FIELD,
    MODIFIED_EXTENSIONS_FIELD,
    returned_extensions,
    slots_for_worker,
)
from cpex.framework.models.config import EXTRA_CAPABILITIES, PluginConfig
from cpex.framework.models.context import PluginContext
from cpex.framework.models.mode import OnError, PluginMode
from cpex.framework.models.result import PluginErrorModel, PluginResult

__all__ = ["HookCall", "as_json", "config_text", "failure_of"]


def config_text(config: PluginConfig, process: WorkerProcess) -> str:
    """A plugin's configuration as JSON text, in the terms that a worker understands."""
    if TYPED not in process.features:
        config = config.model_copy(
            update={
                "mode": PluginMode.SEQUENTIAL,
                "on_error": OnError.FAIL,
                # Names that a worker of release 0.1 does not know make it refuse everything.
                "capabilities": config.capabilities - EXTRA_CAPABILITIES,
            }
        )
    return config.model_dump_json()


@dataclass(slots=True)
class HookCall:
    """One call of one hook."""

    config: PluginConfig
    hook: str
    payload: Any
    context: PluginContext
    extensions: Extensions | None
    timeout_s: float
    address: Callable[[WorkerProcess], dict[str, Any]]
    """The fields that say which plugin it is for."""
    _line: bytes = b""
    """As it was sent."""

    def line(self, process: WorkerProcess, request_id: str) -> bytes:
        """The line to send.

        Raises:
            WireError: A `ValueError`: payload, context or extensions hold something that cannot cross.
        """
        typed = TYPED in process.features
        message: dict[str, Any] = {
            "request_id": request_id,
            "task_type": "load_and_run_hook",
            "hook_type": self.hook,
            **self.address(process),
            "payload": self.sent_payload(typed),
            "context": wire.encode(self.context) if typed else wire.plain(self.context),
        }
        if typed:
            message |= {"side_by_side": True, "timeout_s": self.timeout_s}
        if (slots := self._slots(process)) is not None:
            message[EXTENSIONS_FIELD] = wire.encode(slots) if typed else as_json(slots)
        if "credential" in process.features:
            credential = credential_for(self.hook, self.payload, self.config.capabilities)
            if credential is not None:
                message[CREDENTIAL_FIELD] = credential
        self._line = frame(message, typed=typed)
        return self._line

    def sent_payload(self, typed: bool) -> Any:
        """The payload as it crosses; credentials of the request never stand in it."""
        payload = masked_headers(self.payload)
        if not typed:
            return wire.plain(payload)
        # The two hooks about credentials have a way of their own for them.
        reveal = self.hook not in CREDENTIAL_HOOKS and "read_inbound_credentials" in self.config.capabilities
        return wire.encode(payload, reveal=reveal)

    def _slots(self, process: WorkerProcess) -> dict[str, Any] | None:
        if self.extensions is None or "extensions" not in process.features:
            return None
        hooks = process.three_argument_hooks
        if hooks is not None and self.hook not in hooks:
            return None
        return slots_for_worker(self.extensions)

    def result(self, answer: Mapping[str, Any], process: WorkerProcess) -> PluginResult[Any]:
        """What the plugin decided; what it did to the context is taken over in place.

        Raises:
            PluginError: The answer holds no decision.
            pydantic.ValidationError: A `ValueError`: it holds values of wrong types.
        """
        # SECURITY: an answer without the field would otherwise be read as the default, which allows.
        if "continue_processing" not in answer:
            text = f"the worker of plugin `{self.config.name}` answered hook {self.hook} without a decision"
            raise PluginError(PluginErrorModel(message=text, plugin_name=self.config.name, code="worker_answer"))
        fields = {name: value for name, value in answer.items() if name in PluginResult.model_fields}
        returned = fields.pop(MODIFIED_EXTENSIONS_FIELD, None)
        changed = answer.get("context")
        told = Answer(result=fields, context=changed if isinstance(changed, dict) else {})
        if isinstance(fields.get("modified_payload"), dict):
            told = self._with_own_values(told, TYPED in process.features)
        result = self._typed_result(told.result or {})
        result.modified_extensions = returned_extensions(self.extensions, returned)
        told.apply_context(self.context)
        return result

    def _with_own_values(self, told: Answer, typed: bool) -> Answer:
        """The answer with the host's own values where they came back as they went, such as secrets that were masked."""
        if not typed:
            return told.with_payload_restored(self.payload, self.sent_payload(typed))
        if not wire.holds_masked_secrets(self._line):
            return told
        return told.with_payload_restored(self.payload, wire.loads(self._line)["payload"])

    def _typed_result(self, fields: dict[str, Any]) -> PluginResult[Any]:
        registry = get_hook_registry()
        cls: Any = registry.get_result_type(self.hook) or PluginResult
        value, kind = fields.get("modified_payload"), type(self.payload)
        if isinstance(value, dict) and issubclass(kind, BaseModel) and registry.reply_type(self.hook) is None:
            # An object of the class that the host passed, which may be one derived from the hook's own.
            fields = {**fields, "modified_payload": kind.model_validate(value)}
        result: PluginResult[Any] = cls.model_validate(fields)
        return result


def as_json(value: Any) -> Any:
    """Anything that pydantic can write, in the words of JSON.

    Raises:
        WireError: It cannot.
    """
    return wire.plain(_Anything(value=value))["value"]


class _Anything(BaseModel):
    value: Any


def failure_of(answer: Mapping[str, Any], plugin: str) -> PluginErrorModel:
    """Why a worker could not do what it was asked for."""
    told = answer.get("error")
    if isinstance(told, Mapping):
        return PluginErrorModel.model_validate({"plugin_name": plugin, **told})
    # The words of release 0.1.
    text = f"Worker process error: {answer.get('message')}"
    return PluginErrorModel(message=repr(RuntimeError(text)), plugin_name=plugin)
