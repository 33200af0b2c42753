"""Plugins of a server that behave as plugins may, and should not."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

from cpex.framework import Plugin, PluginContext, ToolPreInvokePayload
from cpex.framework.models.result import PluginResult

# Libraries greet whoever imports them.
print("hello from an import")


class Printer(Plugin):
    """Writes to standard output by every means there is, and reads from standard input."""

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> PluginResult[Any]:
        """Print, and tell what standard input holds."""
        print("printed")
        os.write(1, b"written to the descriptor\n")
        # What holds up a server is beside the point here.
        subprocess.run(["echo", "from a child"], check=True)  # noqa: ASYNC221
        return PluginResult(metadata={"stdin": os.read(0, 10).decode()})


class Environment(Plugin):
    """Tells the environment variables that it has."""

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> PluginResult[Any]:
        """Tell them."""
        return PluginResult(metadata={"variables": dict(os.environ)})


class Cancelled(Plugin):
    """Leaves a file behind when it is cancelled."""

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> PluginResult[Any]:
        """Wait, and tell how that ended."""
        folder = Path(payload.name)
        try:
            (folder / "started").touch()
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            (folder / "cancelled").touch()
            raise
        return PluginResult()


class Last(Plugin):
    """Takes its process down with it."""

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> PluginResult[Any]:
        """Say something and end."""
        os.write(2, b"RuntimeError: the model file is damaged\n")
        os._exit(7)
