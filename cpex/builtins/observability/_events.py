"""What a record of a hook call says, for every plugin that writes records: the audit log and the sinks.

An `attempt` tells that a call reached the plugin, a `decision` what came of it. What of a payload may be told is the
operator's choice, and by default no value is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from cpex.builtins.observability._facts import MAX_NAME_LENGTH, entity_of, requester_of, session_of, user_of
from cpex.builtins.observability._observer import HookCall
from cpex.builtins.observability._records import timestamp
from cpex.builtins.observability._values import TooLarge, outline, plain, select
from cpex.framework import ControlExecutionRecord, PluginMode, PluginViolation
from cpex.framework.models import HookOutcome
from cpex.framework.secrets import SECRET_KEYS, normal_key

RECORD_VERSION = 1

Kind = Literal["attempt", "decision"]
Outcome = Literal["allowed", "denied", "failed", "completed", "errored"]

RecordField = Literal[
    "session",
    "entity_type",
    "entity",
    "user",
    "tenant",
    "server",
    "payload",
    "allowed",
    "outcome",
    "violation",
    "error",
    "plugins",
    "duration_us",
]
_ALWAYS = frozenset({"v", "ts", "type", "hook", "request_id"})

_RESULT_ERROR_FLAGS = ("isError", "is_error")


class EventSettings(BaseModel, extra="forbid", frozen=True):
    """What is written, and how much of it."""

    records: frozenset[Kind] = frozenset({"attempt", "decision"})
    """What is written: that a call reached the plugin, and what was decided in the end."""
    fields: tuple[RecordField, ...] = ()
    """The only parts of a record to write, beside those that say which record it is. Empty means all."""
    include_payload: Literal["none", "keys", "full"] = "keys"
    """How much of a payload an `attempt` tells: nothing, names and types, or values."""
    payload_fields: tuple[str, ...] = ()
    """With `full`: dotted paths (`args.city`, `*` for any one key) of the only values to write. Empty means all."""
    secret_keys: tuple[str, ...] = ()
    """Further keys whose values are never written; case, `-` and `_` make no difference."""
    max_payload_bytes: int = Field(default=65_536, gt=0, le=2_097_152)
    """A larger payload is told by its outline, as with `keys`."""

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if self.payload_fields and self.include_payload != "full":
            raise ValueError("`payload_fields` chooses among values: set `include_payload: full` with it")
        return self

    def may_tell_unredacted(self, mode: PluginMode) -> bool:
        """Whether values are written in a mode that may see them before they are redacted."""
        return self.include_payload == "full" and mode in (PluginMode.SEQUENTIAL, PluginMode.TRANSFORM)


class EventForm:
    """Makes records, as settings say."""

    def __init__(self, settings: EventSettings) -> None:
        """Prepare what the settings name."""
        self._settings = settings
        self._secret_keys = SECRET_KEYS | {normal_key(key) for key in settings.secret_keys}
        self._fields = [tuple(path.split(".")) for path in settings.payload_fields]
        # What says that a payload is not there belongs to it.
        self._wanted = {*settings.fields, *(("payload_omitted",) if "payload" in settings.fields else ())}

    def attempt(self, call: HookCall) -> dict[str, Any] | None:
        """The record of a plugin's turn; `None` when these are not wanted."""
        if "attempt" not in self._settings.records:
            return None
        request = call.context.global_context
        session = session_of(call.context, call.extensions)
        record = _head("attempt", call.hook, request.request_id, session, call.payload)
        record |= {"user": requester_of(request), "tenant": request.tenant_id, "server": request.server_id}
        return self._chosen(record | self._told(call.payload))

    def decision(self, outcome: HookOutcome) -> dict[str, Any] | None:
        """The record of a decision; `None` when these are not wanted."""
        if "decision" not in self._settings.records:
            return None
        record = _head("decision", outcome.hook, outcome.request_id, outcome.session, outcome.payload)
        record |= {
            "user": user_of(outcome.user),
            "tenant": outcome.tenant_id,
            "allowed": outcome.allowed,
            "outcome": outcome_of(outcome),
            "violation": _violation(outcome.violation),
            "error": outcome.error_code,
            "plugins": _plugins(outcome.executions),
            "duration_us": outcome.duration_ns // 1000,
        }
        return self._chosen(record)

    def _chosen(self, record: dict[str, Any]) -> dict[str, Any]:
        """The parts of a record that the settings let through."""
        if not self._settings.fields:
            return record
        return {key: value for key, value in record.items() if key in _ALWAYS or key in self._wanted}

    def _told(self, payload: Any) -> dict[str, Any]:
        """What the settings let a record say of the payload."""
        settings = self._settings
        if settings.include_payload == "none":
            return {}
        if settings.include_payload == "keys":
            return {"payload": outline(payload)}
        try:
            tree = plain(payload, max_bytes=settings.max_payload_bytes, secret_keys=self._secret_keys)
        except TooLarge:
            return {"payload": outline(payload), "payload_omitted": f"more than {settings.max_payload_bytes} bytes"}
        return {"payload": select(tree, self._fields) if self._fields else tree}


def outcome_of(outcome: HookOutcome) -> Outcome:
    """What came of the operation, in one word.

    A hook after the operation says how that ended: `completed`, or `errored` when its result says that it failed (MCP's
    `isError`). A hook before it can only say that it was `allowed`. A call that a plugin denied is `denied`, and one
    that ended in a plugin's failure, or in time running out, is `failed`: its operation was not let through either.
    """
    if not outcome.allowed:
        return "denied" if outcome.violation is not None or outcome.error_code is None else "failed"
    if "_post_" not in outcome.hook:
        return "allowed"
    return "errored" if _is_error(outcome.payload) else "completed"


def _is_error(payload: Any) -> bool:
    result = getattr(payload, "result", None)
    if _says_error(result):
        return True
    parts = getattr(getattr(payload, "message", None), "content", None)
    return isinstance(parts, list | tuple) and any(_says_error(getattr(part, "content", None)) for part in parts)


def _says_error(value: Any) -> bool:
    if isinstance(value, dict):
        return any(value.get(flag) is True for flag in _RESULT_ERROR_FLAGS)
    return any(getattr(value, flag, None) is True for flag in _RESULT_ERROR_FLAGS)


def _head(kind: Kind, hook: str, request_id: str, session: str | None, payload: Any) -> dict[str, Any]:
    entity = entity_of(hook, payload)
    return {
        "v": RECORD_VERSION,
        "ts": timestamp(),
        "type": kind,
        "hook": hook,
        "request_id": request_id[:MAX_NAME_LENGTH],
        "session": session,
        "entity_type": entity.kind if entity else None,
        "entity": entity.name if entity else None,
    }


def _violation(violation: PluginViolation | None) -> dict[str, Any] | None:
    """Who denied and why. Description and details are left out: they may quote what was denied."""
    if violation is None:
        return None
    return {
        "plugin": violation.plugin_name,
        "code": violation.code[:MAX_NAME_LENGTH],
        "reason": violation.reason[:MAX_NAME_LENGTH],
    }


def _plugins(executions: Iterable[ControlExecutionRecord]) -> list[dict[str, Any]]:
    return [
        {
            "name": each.plugin_name,
            "mode": str(each.mode),
            "status": "pending" if each.pending else str(each.status),
            "requested_allow": each.requested_allow,
            "effective_allow": each.effective_allow,
            "payload_modified": each.payload_modified,
            "extensions_modified": each.extensions_modified,
            "reason": each.reason,
            "code": each.error_code,
            "duration_us": each.duration_ns // 1000,
        }
        for each in executions
    ]
