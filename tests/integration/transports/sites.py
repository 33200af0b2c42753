"""Where the contract's plugin may run. A site starts it there and says how a host reaches it."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from isolated_environments import ready

from cpex.framework import PluginConfig
from cpex.framework.external.memory import MemoryExternalPlugin
from cpex.framework.external.server import ExternalPluginServer
from cpex.framework.manager import TenantPluginManager

PLUGINS = Path(__file__).with_name("plugins")
KIND = "contract_plugin.ContractPlugin"
NAME = "contract"
HOOKS = ["tool_pre_invoke", "tool_post_invoke"]

Entry = dict[str, Any]
"""Fields of the plugin's entry in the host's configuration."""


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


def server_config(folder: Path, entry: Entry, **sections: Any) -> Path:
    """Write a plugin server's configuration with that one plugin."""
    plugin = {"name": NAME, "kind": KIND, "hooks": HOOKS, **entry}
    path = folder / "server.yaml"
    path.write_text(yaml.safe_dump({"plugin_dirs": [str(PLUGINS)], "plugins": [plugin], **sections}), encoding="utf-8")
    return path


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
    OverMemory.service = server
    try:
        yield {"kind": f"{OverMemory.__module__}.OverMemory", "hooks": HOOKS, **entry}
    finally:
        await server.shutdown()


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
async def over_unix_socket(folder: Path, entry: Entry) -> AsyncIterator[Entry]:
    """A server of its own process on a Unix socket."""
    config = server_config(folder, entry)
    path = str(folder / "plugin.sock")
    command = [sys.executable, "-m", "cpex.framework.external.unix.server.runtime"]
    variables = {"PLUGINS_CONFIG_PATH": str(config), "PLUGINS_UNIX_SOCKET_PATH": path}
    async with server_process(command, variables, ready=b"READY\n"):
        yield {"kind": "external", "unix_socket": {"path": path, "reconnect_delay": 0.01}}


@asynccontextmanager
async def over_grpc(folder: Path, entry: Entry) -> AsyncIterator[Entry]:
    """A server of its own process, gRPC over TCP."""
    config = server_config(folder, entry)
    port = free_port()
    command = [sys.executable, "-m", "cpex.framework.external.grpc.server.runtime", "-c", str(config), "-p", str(port)]
    async with server_process(command, {}):
        await answering(lambda: asyncio.open_connection("127.0.0.1", port))
        yield {"kind": "external", "grpc": {"target": f"127.0.0.1:{port}"}}


@asynccontextmanager
async def over_grpc_uds(folder: Path, entry: Entry) -> AsyncIterator[Entry]:
    """A server of its own process, gRPC over a Unix socket that its configuration names."""
    path = str(folder / "grpc.sock")
    config = server_config(folder, entry, grpc_server_settings={"uds": path})
    command = [sys.executable, "-m", "cpex.framework.external.grpc.server.runtime"]
    async with server_process(command, {"PLUGINS_CONFIG_PATH": str(config)}):
        await answering(lambda: asyncio.open_unix_connection(path))
        yield {"kind": "external", "grpc": {"uds": path}}


async def answering(connect: Callable[[], Awaitable[tuple[Any, asyncio.StreamWriter]]]) -> None:
    """Wait until a server takes connections, for those that do not say so themselves."""
    async with asyncio.timeout(30):
        while True:
            try:
                _, writer = await connect()
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def server_process(
    command: list[str], variables: dict[str, str], ready: bytes | None = None
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A child process that serves until it is told to end, and then ends with 0.

    Args:
        variables: Environment of the child, beside the inherited one without settings of ours.
        ready: What it prints on stdout once clients may connect; `None` for one that says nothing there.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PLUGINS_")}
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, env=inherited | variables, stdout=pipe)
    assert child.stdout is not None
    try:
        if ready is not None:
            async with asyncio.timeout(30):
                assert await child.stdout.readuntil(ready) == ready
        yield child
    finally:
        if child.returncode is None:
            child.terminate()
        async with asyncio.timeout(30):
            status = await child.wait()
    assert status == 0, f"{command} ended with {status}"


SITES = [
    Site("in-process", in_process, one_operator=True),
    Site("memory", over_memory),
    Site("venv", in_venv, one_operator=True),
    Site("unix", over_unix_socket),
    Site("grpc", over_grpc),
    Site("grpc-uds", over_grpc_uds),
]


@asynccontextmanager
async def host(
    site: Site, folder: Path, server: Entry | None = None, **local: Any
) -> AsyncIterator[TenantPluginManager]:
    """A started host that reaches the plugin at a site.

    Args:
        server: Fields of the entry on the server; `{}` for one that the operator left at its defaults.
        local: Fields of the host's entry, over what the site says.
    """
    async with site.start(folder, server or {}) as entry:
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
