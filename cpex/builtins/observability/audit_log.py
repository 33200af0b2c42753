"""The audit log: who asked for what, and what came of it, as a chain of JSON lines that survives a crash.

This module decides when something is written and when the disk is told to keep it; `_events` says what a record tells,
`_chain` makes the lines evidence, and `_journal` puts them into a file, or `_table` into one of SQLite's.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from cpex.builtins.observability._chain import Chain, read_key
from cpex.builtins.observability._events import EventForm, EventSettings
from cpex.builtins.observability._journal import Journal
from cpex.builtins.observability._observer import HookCall, HookObserver
from cpex.builtins.observability._records import encode
from cpex.builtins.observability._table import TableJournal
from cpex.framework import PluginConfig, PluginError, PluginErrorModel
from cpex.framework.models import HookOutcome

__all__ = ["AuditLogPlugin", "AuditLogSettings"]

logger = logging.getLogger(__name__)


class AuditLogSettings(EventSettings):
    """Settings of the audit log."""

    path: Path = Path("cpex-audit.jsonl")
    """Relative paths start at the working directory of the process. The folder is created if it is missing."""
    format: Literal["jsonl", "sqlite"] = "jsonl"
    """What the file is: JSON lines, or an SQLite database with the same lines in a table, to be asked with SQL."""
    key_file: Path | None = None
    """File with the key of the chain; who has no key can then not forge it. Without one, anybody can compute it."""
    fsync: Literal["always", "interval", "never"] = "interval"
    """When the disk is told to keep what was written. A process that is killed loses nothing in any case."""
    fsync_interval_s: float = Field(default=1.0, gt=0)
    """Seconds of records that a power failure may cost with `fsync: interval`."""
    rotate_bytes: int | None = Field(default=None, gt=0)
    """Size in bytes at which the file is set aside as `<path>.1`. Without it the file grows."""
    rotate_keep: int = Field(default=5, ge=1)
    """How many files are kept aside."""

    @model_validator(mode="after")
    def _check_rotation(self) -> Self:
        if self.format == "sqlite" and self.rotate_bytes is not None:
            raise ValueError("`rotate_bytes` sets files of JSON lines aside; leave it out with `format: sqlite`")
        return self


class AuditLogPlugin(HookObserver):
    """Writes one JSON line for every call that reaches it, and one for every decision, each sealed to the one before.

    Runs in any mode and on any hook. It never denies; in a mode that the caller waits for, a record that cannot be
    written is a failure of the plugin, so `on_error` says whether the operation may go on without evidence.

    Source: docs/plugins/audit_log.md.
    """

    settings_model = AuditLogSettings
    stops_calls = True

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings; nothing is opened yet.

        Raises:
            pydantic.ValidationError: A setting is unknown or has a value that is not allowed.
        """
        super().__init__(config)
        self._settings = AuditLogSettings.model_validate(config.config or {})
        self._form = EventForm(self._settings)
        self._journal: Journal | TableJournal | None = None
        self._flush: asyncio.TimerHandle | None = None
        self._flush_loop: asyncio.AbstractEventLoop | None = None

    async def initialize(self) -> None:
        """Open the file, and mend what a crash left in it. Does nothing when it is open.

        Raises:
            PluginError: The file cannot be written, or its end is not a chain, or the key cannot be read; code
                `audit_unwritable`.
        """
        if self._journal is not None:
            return
        self._warn_of_raw_values()
        journal = self._make_journal(Chain(await self._read_key()))
        try:
            await asyncio.to_thread(journal.open)
        except OSError as error:
            raise self._unwritable(journal.path, error) from error
        self._journal = journal

    def _make_journal(self, chain: Chain) -> Journal | TableJournal:
        settings = self._settings
        path, durable = settings.path.expanduser().absolute(), settings.fsync != "never"
        if settings.format == "sqlite":
            return TableJournal(path, chain=chain, durable=durable)
        rotate_bytes, rotate_keep = settings.rotate_bytes, settings.rotate_keep
        return Journal(path, rotate_bytes=rotate_bytes, rotate_keep=rotate_keep, chain=chain, durable=durable)

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
        if (record := self._form.attempt(call)) is not None:
            await self._write(record)

    async def on_outcome(self, outcome: HookOutcome) -> None:
        """Write a `decision`.

        Raises:
            PluginError: It was not written; code `audit_unwritable`.
        """
        if (record := self._form.decision(outcome)) is not None:
            await self._write(record)

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

    def _sync(self, journal: Journal | TableJournal) -> None:
        try:
            journal.sync()
        except OSError as error:
            self.failures.report(f"the disk did not keep `{journal.path}`", error)

    async def _read_key(self) -> bytes | None:
        path = self._settings.key_file
        if path is None:
            return None
        try:
            return await asyncio.to_thread(read_key, path.expanduser())
        except OSError as error:
            raise self._failure(f"the key of the audit log cannot be read from `{path}`: {error.strerror}") from error
        except ValueError as error:
            raise self._failure(str(error)) from error

    def _warn_of_raw_values(self) -> None:
        if self._settings.may_tell_unredacted(self.mode):
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
