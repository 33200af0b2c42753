"""Plugins for the tests of managers, which make them from their dotted names. `LOG` tells of their lives."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from cpex.framework.base import Plugin
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.result import PluginResult

LOG: list[tuple[str, str]] = []
STARTED = asyncio.Event()
"""Set when a plugin that never gets ready has begun to start; made anew by each test that waits for it."""
RELEASED = asyncio.Event()
"""Lets plugins that start late get ready; made anew likewise."""
MEETING = threading.Event()
"""Never set: what waits for it for a moment lets other threads go on."""


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


class StartsLate(Good):
    """Gets ready when it is let."""

    async def initialize(self) -> None:
        STARTED.set()
        await RELEASED.wait()
        await super().initialize()


class Meets(Good):
    """Is starting while another one of it is, if there is another one."""

    async def initialize(self) -> None:
        await super().initialize()
        await asyncio.to_thread(MEETING.wait, 0.2)


class AsksToStop(Good):
    """Stops its own manager when it is stopped, in a task of its own at that."""

    manager: Any = None

    async def shutdown(self) -> None:
        await super().shutdown()
        await asyncio.create_task(self.manager.shutdown())


class FailsToStop(Good):
    async def shutdown(self) -> None:
        await super().shutdown()
        raise ValueError("broken")


class Edits(Good):
    async def initialize(self) -> None:
        settings = self.config.config or {}
        settings["value"] = "edited"
        settings["list"].append(1)


class Denies(Good):
    async def tool_pre_invoke(self, payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(continue_processing=False)


class Breaks(Good):
    async def tool_pre_invoke(self, payload: Any, context: Any) -> PluginResult[Any]:
        raise ValueError("broken")
