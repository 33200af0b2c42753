"""The ways to a plugin server that are measured. A new transport is one more entry of `WAYS`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import yaml

from benchmarks.ports import free_port

PLUGINS = Path(__file__).parents[1] / "side"
START_S = 60
Entry: TypeAlias = dict[str, Any]
Way: TypeAlias = Callable[[str, Path], AbstractAsyncContextManager[Entry]]
"""Starts a server with an interpreter in a folder, for as long as the context lasts; gives the host's entry."""

_MCP = ("-m", "cpex.framework.external.mcp.server.runtime")
_GRPC = ("-m", "cpex.framework.external.grpc.server.runtime")
_UNIX = ("-m", "cpex.framework.external.unix.server.runtime")


def server_config(folder: Path, **sections: Any) -> str:
    """Write the configuration of a server with one plugin that allows everything."""
    plugin = {"name": "noop", "kind": "noop_plugins.NoOp", "hooks": ["tool_pre_invoke"], "mode": "sequential"}
    path = folder / "server.yaml"
    path.write_text(yaml.safe_dump({"plugins": [plugin], "plugin_dirs": [str(PLUGINS)], **sections}), encoding="utf-8")
    return str(path)


@asynccontextmanager
async def running(
    python: str, words: tuple[str, ...], folder: Path, connect: Any, **variables: str
) -> AsyncIterator[None]:
    """A server process that takes connections."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PLUGINS_")}
    quiet = {"PLUGINS_LOG_LEVEL": "ERROR", "PYTHONPATH": str(PLUGINS)}
    # In a folder of its own: `-m` looks in the working directory first, and would find this tree's package there. What
    # it says goes to a file, since whoever reads a terminal would be measured, too.
    with (folder / "server.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            python,
            *words,
            env=kept | quiet | variables,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=folder,
        )
    try:
        async with asyncio.timeout(START_S):
            while not await _connects(connect):
                if process.returncode is not None:
                    said = (folder / "server.log").read_text(encoding="utf-8", errors="replace")[-1000:]
                    raise RuntimeError(f"the server of {python} ended with {process.returncode}: {said}")
                await asyncio.sleep(0.05)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), START_S)


async def _connects(connect: Any) -> bool:
    try:
        _, writer = await connect()
    except OSError:
        return False
    writer.close()
    return True


@asynccontextmanager
async def mcp_stdio(python: str, folder: Path) -> AsyncIterator[Entry]:
    """The host starts the server."""
    env = {"PLUGINS_CONFIG_PATH": server_config(folder), "PLUGINS_TRANSPORT": "stdio", "PYTHONPATH": str(PLUGINS)}
    env["PLUGINS_LOG_LEVEL"] = "ERROR"
    yield {"mcp": {"proto": "STDIO", "cmd": [python, *_MCP], "env": env}}


@asynccontextmanager
async def mcp_http(python: str, folder: Path) -> AsyncIterator[Entry]:
    """Streamable HTTP on TCP."""
    port = free_port()
    config = server_config(folder, server_settings={"host": "127.0.0.1", "port": port})
    variables = {"PLUGINS_CONFIG_PATH": config, "PLUGINS_TRANSPORT": "http"}
    async with running(python, _MCP, folder, lambda: asyncio.open_connection("127.0.0.1", port), **variables):
        yield {"mcp": {"proto": "STREAMABLEHTTP", "url": f"http://localhost:{port}/mcp"}}


@asynccontextmanager
async def mcp_http_uds(python: str, folder: Path) -> AsyncIterator[Entry]:
    """Streamable HTTP on a Unix socket."""
    path = str(folder / "mcp.sock")
    config = server_config(folder, server_settings={"uds": path})
    variables = {"PLUGINS_CONFIG_PATH": config, "PLUGINS_TRANSPORT": "http"}
    async with running(python, _MCP, folder, lambda: asyncio.open_unix_connection(path), **variables):
        yield {"mcp": {"proto": "STREAMABLEHTTP", "url": "http://localhost/mcp", "uds": path}}


@asynccontextmanager
async def grpc(python: str, folder: Path) -> AsyncIterator[Entry]:
    """GRPC on a Unix socket."""
    path = str(folder / "grpc.sock")
    config = server_config(folder, grpc_server_settings={"uds": path})
    async with running(python, _GRPC, folder, lambda: asyncio.open_unix_connection(path), PLUGINS_CONFIG_PATH=config):
        yield {"grpc": {"uds": path}}


@asynccontextmanager
async def unix(python: str, folder: Path) -> AsyncIterator[Entry]:
    """A plain Unix socket."""
    path = str(folder / "plain.sock")
    variables = {"PLUGINS_CONFIG_PATH": server_config(folder), "PLUGINS_UNIX_SOCKET_PATH": path}
    async with running(python, _UNIX, folder, lambda: asyncio.open_unix_connection(path), **variables):
        # The published host does not ask this server for the hooks.
        yield {"hooks": ["tool_pre_invoke"], "unix_socket": {"path": path}}


WAYS: Mapping[str, Way] = {
    "mcp-stdio": mcp_stdio,
    "mcp-http": mcp_http,
    "mcp-http-uds": mcp_http_uds,
    "grpc": grpc,
    "unix": unix,
}
