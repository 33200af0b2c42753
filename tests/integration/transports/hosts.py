"""Hosts that reach a plugin in another process, and calls of its hook."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from integration.transports.servers import NAME, PLUGINS, Entry

from cpex.framework import GlobalContext, ToolPreInvokePayload
from cpex.framework.manager import TenantPluginManager


def manager_for(folder: Path, entry: Entry, **local: Any) -> TenantPluginManager:
    """A host with that plugin, not yet started."""
    path = folder / "host.yaml"
    plugin = {"name": NAME, **entry, **local}
    path.write_text(yaml.safe_dump({"plugin_dirs": [str(PLUGINS)], "plugins": [plugin]}), encoding="utf-8")
    return TenantPluginManager(str(path))


@asynccontextmanager
async def host(folder: Path, entry: Entry, **local: Any) -> AsyncIterator[TenantPluginManager]:
    """The same, started; nothing of it is left behind."""
    manager = manager_for(folder, entry, **local)
    await manager.initialize()
    try:
        yield manager
    finally:
        await manager.shutdown()


async def call(manager: TenantPluginManager, name: str, **args: Any) -> Any:
    """Call the tool hook; the merged result. Nothing here may take longer than the test's patience."""
    async with asyncio.timeout(60):
        payload = ToolPreInvokePayload(name=name, args=args)
        result, _ = await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id="r"))
    return result
