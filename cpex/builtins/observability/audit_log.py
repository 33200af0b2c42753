"""The audit log: who asked for what, and what was decided, as JSON lines that survive a crash.

This module decides what a record says and when the disk is told to keep it; `_journal` puts lines into the file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, Field, model_validator

from cpex.builtins.observability._facts import MAX_NAME_LENGTH, entity_of, requester_of, session_of, user_of
from cpex.builtins.observability._journal import Journal
from cpex.builtins.observability._observer import HookCall, HookObserver
from cpex.builtins.observability._records import encode, timestamp
from cpex.builtins.observability._values import SECRET_KEYS, TooLarge, normal_key, outline, plain, select
from cpex.framework import (
    ControlExecutionRecord,
    PluginConfig,
    PluginError,
    PluginErrorModel,
    PluginMode,
    PluginViolation,
)
from cpex.framework.models import HookOutcome

__all__ = ["AuditLogPlugin", "AuditLogSettings"]

logger = logging.getLogger(__name__)

RECORD_VERSION = 1

Kind = Literal["attempt", "decision"]


class AuditLogSettings(BaseModel, extra="forbid", frozen=True):
    """Settings of the audit log."""

    path: Path = Path("cpex-audit.jsonl")
    """Relative paths start at the working directory of the process. The folder is created if it is missing."""
    records: frozenset[Kind] = frozenset({"attempt", "decision"})
    """What is written: that a call reached the plugin, and what was decided in the end."""
    include_payload: Literal["none", "keys", "full"] = "keys"
    """How much of a payload an `attempt` tells: nothing, names and types, or values."""
    payload_fields: tuple[str, ...] = ()
    """With `full`: dotted paths (`args.city`, `*` for any one key) of the only values to write. Empty means all."""
    secret_keys: tuple[str, ...] = ()
    """Further keys whose values are never written; case, `-` and `_` make no difference."""
    max_payload_bytes: int = Field(default=65_536, gt=0)
    """A larger payload is told by its outline, as with `keys`."""
    fsync: Literal["always", "interval", "never"] = "interval"
    """When the disk is told to keep what was written. A process that is killed loses nothing in any case."""
    fsync_interval_s: float = Field(default=1.0, gt=0)
    """Seconds of records that a power failure may cost with `fsync: interval`."""
    rotate_bytes: int | None = Field(default=None, gt=0)
    """Size in bytes at which the file is set aside as `<path>.1`. Without it the file grows."""
    rotate_keep: int = Field(default=5, ge=1)
    """How many files are kept aside."""

    @model_validator(mode="after")
    def _check_fields(self) -> Self:
        if self.payload_fields and self.include_payload != "full":
            raise ValueError("`payload_fields` chooses among values: set `include_payload: full` with it")
        return self


class AuditLogPlugin(HookObserver):
    """Writes one JSON line for every call that reaches it, and one for every decision.

    Runs in any mode and on any hook. It never denies; in a mode that the caller waits for, a record that cannot be
    written is a failure of the plugin, so `on_error` says whether the operation may go on without evidence.

    Source: docs/plugins/audit_log.md.
    """

    stops_calls = True

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings; nothing is opened yet.

        Raises:
            pydantic.ValidationError: A setting is unknown or has a value that is not allowed.
        """
        super().__init__(config)
        self._settings = AuditLogSettings.model_validate(config.config or {})
        self._secret_keys = SECRET_KEYS | {normal_key(key) for key in self._settings.secret_keys}
        self._fields = [tuple(path.split(".")) for path in self._settings.payload_fields]
        self._journal: Journal | None = None
        self._flush: asyncio.TimerHandle | None = None
        self._flush_loop: asyncio.AbstractEventLoop | None = None

    async def initialize(self) -> None:
        """Open the file, and mend what a crash left in it. Does nothing when it is open.

        Raises:
            PluginError: The file cannot be written; code `audit_unwritable`.
        """
        if self._journal is not None:
            return
        self._warn_of_raw_values()
        settings = self._settings
        path = settings.path.expanduser().absolute()
        journal = Journal(path, rotate_bytes=settings.rotate_bytes, rotate_keep=settings.rotate_keep)
        try:
            await asyncio.to_thread(journal.open)
        except OSError as error:
            raise self._unwritable(path, error) from error
        self._journal = journal

    async def shutdown(self) -> None:
        """Have the disk keep what was written, and close the file. Does nothing when it is closed."""
        journal, self._journal = self._journal, None
        if self._flush is not None:
            self._flush.cancel()
            self._flush = self._flush_loop = None
        if journal is None:
            return
        try:
            if self._settings.fsync != "never":
                await asyncio.to_thread(journal.sync)
        except OSError as error:
            self.failures.report(f"`{journal.path}` was closed without being kept by the disk", error)
        finally:
            journal.close()
            self.failures.tell_rest()

    async def on_call(self, call: HookCall) -> None:
        """Write an `attempt`.

        Raises:
            PluginError: It was not written; code `audit_unwritable`.
        """
        if "attempt" not in self._settings.records:
            return
        request = call.context.global_context
        record = self._head(
            "attempt", call.hook, request.request_id, session_of(call.context, call.extensions), call.payload
        )
        record |= {"user": requester_of(request), "tenant": request.tenant_id, "server": request.server_id}
        await self._write(record | self._told(call.payload))

    async def on_outcome(self, outcome: HookOutcome) -> None:
        """Write a `decision`.

        Raises:
            PluginError: It was not written; code `audit_unwritable`.
        """
        if "decision" not in self._settings.records:
            return
        record = self._head("decision", outcome.hook, outcome.request_id, outcome.session, outcome.payload)
        record |= {
            "user": user_of(outcome.user),
            "tenant": outcome.tenant_id,
            "allowed": outcome.allowed,
            "violation": _violation(outcome.violation),
            "error": outcome.error_code,
            "plugins": _plugins(outcome.executions),
            "duration_us": outcome.duration_ns // 1000,
        }
        await self._write(record)

    def _head(self, kind: Kind, hook: str, request_id: str, session: str | None, payload: Any) -> dict[str, Any]:
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

    async def _write(self, record: dict[str, Any]) -> None:
        journal = self._journal
        if journal is None:
            raise self._failure(f"audit log `{self._settings.path}` is not open; initialize the plugin first")
        line = encode(record)
        try:
            # A small append is far cheaper than a change of thread; only a file that is locked elsewhere is waited for.
            if not journal.try_append(line):
                await asyncio.to_thread(journal.append, line)
            if self._settings.fsync == "always":
                await asyncio.to_thread(journal.sync)
        except OSError as error:
            raise self._unwritable(journal.path, error) from error
        if self._settings.fsync == "interval":
            self._flush_later()

    def _flush_later(self) -> None:
        """Have the disk keep what was written, once an interval, also when nothing follows."""
        loop = asyncio.get_running_loop()
        # A timer of a loop that has ended since will never fire.
        if self._flush is not None and self._flush_loop is loop:
            return
        self._flush_loop = loop
        self._flush = loop.call_later(self._settings.fsync_interval_s, self._start_flush, loop)

    def _start_flush(self, loop: asyncio.AbstractEventLoop) -> None:
        self._flush = None
        if (journal := self._journal) is not None:
            loop.run_in_executor(None, self._sync, journal)

    def _sync(self, journal: Journal) -> None:
        try:
            journal.sync()
        except OSError as error:
            self.failures.report(f"the disk did not keep `{journal.path}`", error)

    def _warn_of_raw_values(self) -> None:
        if self._settings.include_payload == "full" and self.mode in (PluginMode.SEQUENTIAL, PluginMode.TRANSFORM):
            logger.warning(
                "Plugin '%s' writes payload values and runs in mode %s, so it may see them before they are redacted; "
                "use mode audit or fire_and_forget, or `include_payload: keys`",
                self.name,
                self.mode,
            )

    def _unwritable(self, path: Path, error: OSError) -> PluginError:
        cause = error.strerror or str(error)
        return self._failure(
            f"audit log `{path}` cannot be written: {cause}; check the folder, its rights and free space"
        )

    def _failure(self, message: str) -> PluginError:
        return PluginError(PluginErrorModel(message=message, plugin_name=self.name, code="audit_unwritable"))


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
