"""Plugins for the tests of managers, which make them from their dotted names. `LOG` tells of their lives."""

from __future__ import annotations

import asyncio
from typing import Any

from cpex.framework.base import Plugin
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.result import PluginResult

LOG: list[tuple[str, str]] = []
STARTED = asyncio.Event()
"""Set when a plugin that never gets ready has begun to start; made anew by each test that waits for it."""


class Good(Plugin):
    """Logs its life, and tells its name and setting."""

    async def initialize(self) -> None:
        LOG.append(("start", self.name))

    async def shutdown(self) -> None:
        LOG.append(("stop", self.name))

    async def tool_pre_invoke(self, payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(metadata={self.name: (self.config.config or {}).get("value")})


class CannotBeMade(Good):
    def __init__(self, config: PluginConfig) -> None:
        raise ValueError("bad settings")


class CannotStart(Good):
    async def initialize(self) -> None:
        raise ConnectionError("nobody there")


class Hangs(Good):
    async def initialize(self) -> None:
        STARTED.set()
        await asyncio.Event().wait()


class FailsToStop(Good):
    async def shutdown(self) -> None:
        await super().shutdown()
        raise ValueError("broken")


class Edits(Good):
    async def initialize(self) -> None:
        settings = self.config.config or {}
        settings["value"] = "edited"
        settings["list"].append(1)
