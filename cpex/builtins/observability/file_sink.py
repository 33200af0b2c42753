"""Records of hook calls as JSON lines in a file, written behind the caller's back.

The audit log is evidence and writes each record before it goes on; this is telemetry, and may drop.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from pydantic import Field

from cpex.builtins.observability._delivery import SinkSettings, Unreachable
from cpex.builtins.observability._journal import Journal
from cpex.builtins.observability._sink import Sink
from cpex.framework import PluginConfig, PluginError, PluginErrorModel

__all__ = ["FileSinkPlugin", "FileSinkSettings"]


class FileSinkSettings(SinkSettings):
    """Settings of the file sink."""

    path: Path = Path("cpex-events.jsonl")
    """Relative paths start at the working directory of the process. The folder is created if it is missing."""
    rotate_bytes: int | None = Field(default=None, gt=0)
    """Size in bytes at which the file is set aside as `<path>.1`. Without it the file grows."""
    rotate_keep: int = Field(default=5, ge=1)
    """How many files are kept aside."""


class FileSinkPlugin(Sink):
    """Appends a JSON line for every decision (and every call, if asked to) to a file, in batches.

    Source: docs/plugins/file_sink.md.
    """

    settings_model = FileSinkSettings

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings; nothing is opened yet.

        Raises:
            pydantic.ValidationError: A setting is unknown or has a value that is not allowed.
        """
        self._settings = FileSinkSettings.model_validate(config.config or {})
        super().__init__(config, self._settings)
        self._journal = Journal(
            self._settings.path.expanduser().absolute(),
            rotate_bytes=self._settings.rotate_bytes,
            rotate_keep=self._settings.rotate_keep,
            durable=False,
        )

    async def initialize(self) -> None:
        """Open the file, and mend what a crash left in it. Does nothing when it is open.

        Raises:
            PluginError: The file cannot be written; code `sink_unavailable`.
        """
        try:
            await asyncio.to_thread(self._journal.open)
        except OSError as error:
            message = (
                f"`{self._journal.path}` cannot be written: {error.strerror or error}; check the folder and rights"
            )
            raise PluginError(
                PluginErrorModel(message=message, plugin_name=self.name, code="sink_unavailable")
            ) from error
        self.delivery.start()

    async def shutdown(self) -> None:
        """Write what waits, for `drain_s` seconds at most, and close the file. Does nothing the second time."""
        try:
            await super().shutdown()
        finally:
            await asyncio.to_thread(self._journal.close)

    async def _send(self, records: list[bytes]) -> None:
        try:
            await asyncio.to_thread(self._journal.append, *records)
        except OSError as error:
            raise Unreachable(f"`{self._journal.path}` cannot be written: {error.strerror or error}") from error
