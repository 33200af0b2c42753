"""Where the contract's plugin may run. A site starts it there and says how a host reaches it."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from integration.transports.servers import (
    HOOKS,
    KIND,
    NAME,
    PLUGINS,
    SERVERS,
    Entry,
    ServerProcess,
    mcp_stdio,
    server_config,
)
from isolated_environments import ready

from cpex.framework import PluginConfig
from cpex.framework.external.memory import MemoryExternalPlugin
from cpex.framework.external.server import ExternalPluginServer
from cpex.framework.manager import TenantPluginManager

_numbers = itertools.count()


@dataclass(frozen=True)
class Site:
    """One way to run the plugin."""

    name: str
    start: Callable[[Path, Entry], AbstractAsyncContextManager[Entry]]
    """Serves an entry of a server's configuration from a folder; gives the host's entry that reaches it."""
    lost: frozenset[str] = frozenset()
    """What is documented not to survive the way: `types`, `extensions`, `user_context`, `secrets`."""
    one_operator: bool = False
    """Whether the plugin's configuration is the host's alone."""


@asynccontextmanager
async def in_process(folder: Path, entry: Entry) -> AsyncIterator[Entry]:
    """No other process at all: what everything else is compared with."""
    yield {"kind": KIND, "hooks": HOOKS, **entry}


class OverMemory(MemoryExternalPlugin):
    """A plugin behind the service that the site has started."""

    service: ExternalPluginServer

    def __init__(self, config: PluginConfig) -> None:
        super().__init__(config, self.service)


@asynccontextmanager
async def over_memory(folder: Path, entry: Entry) -> AsyncIterator[Entry]:
    """A service in this process."""
    server = ExternalPluginServer(str(server_config(folder, entry)))
    await server.initialize()
    # A kind is a name: each service has a class of its own, under one that a configuration can say.
    name = f"OverMemory{next(_numbers)}"
    globals()[name] = type(name, (OverMemory,), {"service": server, "__module__": __name__})
    try:
        yield {"kind": f"{__name__}.{name}", "hooks": HOOKS, **entry}
    finally:
        await server.shutdown()
        del globals()[name]


@asynccontextmanager
async def in_venv(folder: Path, entry: Entry) -> AsyncIterator[Entry]:
    """A worker in a virtual environment; its package is the plugin's module."""
    package = folder / "plugins" / "contract_plugin"
    package.mkdir(parents=True, exist_ok=True)
    shutil.copy(PLUGINS / "contract_plugin.py", package / "__init__.py")
    found = {"kind": "isolated_venv", "hooks": HOOKS, "config": {"class_name": KIND}, **entry}
    ready(PluginConfig(name=NAME, **found), folder / "plugins")
    yield {**found, "plugin_dirs": [str(folder / "plugins")]}


@asynccontextmanager
async def over_mcp_stdio(folder: Path, entry: Entry) -> AsyncIterator[Entry]:
    """A child of the host that speaks MCP on its pipes."""
    yield mcp_stdio(folder, entry)


def in_another_process(make: Callable[[Path, Entry], ServerProcess]) -> Callable[[Path, Entry], Any]:
    """A server that runs for as long as the test."""

    @asynccontextmanager
    async def start(folder: Path, entry: Entry) -> AsyncIterator[Entry]:
        server = make(folder, entry)
        await server.start()
        try:
            yield server.entry
        finally:
            await server.stop()

    return start


SITES = [
    Site("in-process", in_process, one_operator=True),
    Site("memory", over_memory),
    Site("mcp-stdio", over_mcp_stdio),
    Site("venv", in_venv, one_operator=True),
    *(Site(name, in_another_process(make)) for name, make in SERVERS.items()),
]


@asynccontextmanager
async def host(folder: Path, entry: Entry, **local: Any) -> AsyncIterator[TenantPluginManager]:
    """A started host.

    Args:
        entry: What a site says of how its plugin is reached.
        local: Fields of the host's entry, over that.
    """
    path = folder / "host.yaml"
    plugin = {"name": NAME, **entry, **local}
    folders = plugin.pop("plugin_dirs", [str(PLUGINS)])
    path.write_text(yaml.safe_dump({"plugin_dirs": folders, "plugins": [plugin]}), encoding="utf-8")
    manager = TenantPluginManager(str(path))
    await manager.initialize()
    try:
        yield manager
    finally:
        await manager.shutdown()
