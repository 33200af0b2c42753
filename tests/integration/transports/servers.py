"""Plugin servers in processes of their own, which tests start, kill, stop and start again."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from ports import free_port

PLUGINS = Path(__file__).with_name("plugins")
KIND = "contract_plugin.ContractPlugin"
NAME = "contract"
HOOKS = ["tool_pre_invoke", "tool_post_invoke"]
LIMIT_S = 90.0
"""Seconds that anything here is waited for."""

Entry = dict[str, Any]
"""Fields of the plugin's entry in a configuration."""


@dataclass
class ServerProcess:
    """One plugin server's process: how it is started, and how a host reaches it."""

    command: list[str]
    entry: Entry
    """The host's."""
    listening: Callable[[ServerProcess], Awaitable[None]]
    """Returns once clients may connect."""
    variables: dict[str, str] = field(default_factory=dict)
    """Environment of the child, beside the inherited one without settings of ours."""
    child: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Start the process, and wait until it serves."""
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("PLUGINS_")}
        self.child = await asyncio.create_subprocess_exec(
            *self.command, env=inherited | self.variables, stdout=asyncio.subprocess.PIPE
        )
        async with asyncio.timeout(LIMIT_S):
            await self.listening(self)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal: `SIGSTOP` freezes it, `SIGCONT` lets it go on."""
        assert self.child is not None
        self.child.send_signal(number)

    async def kill(self) -> None:
        """End it without a chance to clean up."""
        self.signal(signal.SIGKILL)
        await self._ended()

    async def stop(self) -> None:
        """Ask it to end, which it does with 0. Does nothing when it has ended."""
        if self.child is not None and self.child.returncode is None:
            self.child.terminate()
            assert await self._ended() == 0, f"{self.command} failed"

    async def _ended(self) -> int:
        assert self.child is not None
        async with asyncio.timeout(LIMIT_S):
            return await self.child.wait()


def server_config(folder: Path, entry: Entry, **sections: Any) -> Path:
    """Write a plugin server's configuration with that one plugin."""
    plugin = {"name": NAME, "kind": KIND, "hooks": HOOKS, **entry}
    path = folder / "server.yaml"
    path.write_text(yaml.safe_dump({"plugin_dirs": [str(PLUGINS)], "plugins": [plugin], **sections}), encoding="utf-8")
    return path


def says(line: bytes) -> Callable[[ServerProcess], Awaitable[None]]:
    """For servers that print a line once clients may connect."""

    async def listening(server: ServerProcess) -> None:
        assert server.child is not None
        assert server.child.stdout is not None
        assert await server.child.stdout.readuntil(line) == line

    return listening


def answers_at(connect: Callable[[], Awaitable[tuple[Any, asyncio.StreamWriter]]]) -> Any:
    """For servers that say nothing: they are there when they take a connection."""

    async def listening(server: ServerProcess) -> None:
        while True:
            assert server.child is not None
            assert server.child.returncode is None, f"{server.command} ended with {server.child.returncode}"
            try:
                _, writer = await connect()
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return

    return listening


def unix(folder: Path, entry: Entry) -> ServerProcess:
    """A Unix socket."""
    path = str(folder / "plugin.sock")
    return ServerProcess(
        [sys.executable, "-m", "cpex.framework.external.unix.server.runtime"],
        {"kind": "external", "unix_socket": {"path": path, "reconnect_delay": 0.01}},
        says(b"READY\n"),
        {"PLUGINS_CONFIG_PATH": str(server_config(folder, entry)), "PLUGINS_UNIX_SOCKET_PATH": path},
    )


def grpc(folder: Path, entry: Entry) -> ServerProcess:
    """GRPC over TCP."""
    config, port = server_config(folder, entry), str(free_port())
    return ServerProcess(
        [sys.executable, "-m", "cpex.framework.external.grpc.server.runtime", "-c", str(config), "-p", port],
        {"kind": "external", "grpc": {"target": f"127.0.0.1:{port}"}},
        answers_at(lambda: asyncio.open_connection("127.0.0.1", int(port))),
    )


def grpc_uds(folder: Path, entry: Entry) -> ServerProcess:
    """GRPC over a Unix socket that the server's configuration names."""
    path = str(folder / "grpc.sock")
    config = server_config(folder, entry, grpc_server_settings={"uds": path})
    return ServerProcess(
        [sys.executable, "-m", "cpex.framework.external.grpc.server.runtime"],
        {"kind": "external", "grpc": {"uds": path}},
        answers_at(lambda: asyncio.open_unix_connection(path)),
        {"PLUGINS_CONFIG_PATH": str(config)},
    )


MCP_RUNTIME = [sys.executable, "-m", "cpex.framework.external.mcp.server.runtime"]


def mcp_stdio(folder: Path, entry: Entry) -> Entry:
    """The host's entry for a server that it starts itself, which speaks MCP on its pipes."""
    env = {"PLUGINS_CONFIG_PATH": str(server_config(folder, entry))}
    return {"kind": "external", "mcp": {"proto": "STDIO", "cmd": MCP_RUNTIME, "env": env, "reconnect_delay": 0.01}}


def mcp_http(folder: Path, entry: Entry) -> ServerProcess:
    """MCP over HTTP."""
    port = free_port()
    config = server_config(folder, entry, server_settings={"port": port})
    mcp = {"proto": "STREAMABLEHTTP", "url": f"http://localhost:{port}/mcp", "reconnect_delay": 0.01}
    return ServerProcess(
        [*MCP_RUNTIME],
        {"kind": "external", "mcp": mcp},
        answers_at(lambda: asyncio.open_connection("127.0.0.1", port)),
        {"PLUGINS_CONFIG_PATH": str(config), "PLUGINS_TRANSPORT": "http"},
    )


def mcp_uds(folder: Path, entry: Entry) -> ServerProcess:
    """MCP over HTTP on a Unix socket."""
    path = str(folder / "mcp.sock")
    config = server_config(folder, entry, server_settings={"uds": path})
    mcp = {"proto": "STREAMABLEHTTP", "url": "http://localhost/mcp", "uds": path, "reconnect_delay": 0.01}
    return ServerProcess(
        [*MCP_RUNTIME],
        {"kind": "external", "mcp": mcp},
        answers_at(lambda: asyncio.open_unix_connection(path)),
        {"PLUGINS_CONFIG_PATH": str(config), "PLUGINS_TRANSPORT": "http"},
    )


SERVERS: dict[str, Callable[[Path, Entry], ServerProcess]] = {
    "mcp-http": mcp_http,
    "mcp-http-uds": mcp_uds,
    "unix": unix,
    "grpc": grpc,
    "grpc-uds": grpc_uds,
}
"""Each transport whose server is a process of its own; makes one for an entry of its configuration, not yet started."""
