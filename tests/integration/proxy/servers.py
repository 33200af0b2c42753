"""MCP servers that others wrote, installed on first use and kept, and a proxy before them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

ROOT = Path(__file__).parents[3]
NODE_HOME, PYTHON_HOME = ROOT / ".venv-mcp-node", ROOT / ".venv-mcp-python"
NODE_PACKAGES = (
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
)
PYTHON_PACKAGES = (*("mcp-server-git==2026.10.19", "mcp-server-time==2026.10.19", "mcp-server-fetch==2026.10.24"),)
OLD_HOME = ROOT / ".venv-mcp-python-1"
OLD_PACKAGES = ("mcp-server-sqlite==2025.4.25", "mcp<2")
"""Written for the SDK's first generation, whose servers speak older versions of the protocol."""
INSTALL_TIMEOUT_S = 600
TIMEOUT_S = 60
_BIN = "Scripts" if os.name == "nt" else "bin"
Command = list[str]


@cache
def node_server(name: str) -> Command:
    """What starts a server of the npm registry; the test is skipped, with the reason, where it cannot be had."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node are not installed")
    _install(NODE_HOME, NODE_PACKAGES, [npm, "install", "--no-audit", "--no-fund", "--prefix", str(NODE_HOME)])
    return [node, str(NODE_HOME / "node_modules" / "@modelcontextprotocol" / name / "dist" / "index.js")]


@cache
def python_server(name: str) -> Command:
    """What starts a server of the Python index; skipped as `node_server` is."""
    home, packages = (OLD_HOME, OLD_PACKAGES) if name == "mcp-server-sqlite" else (PYTHON_HOME, PYTHON_PACKAGES)
    python = str(home / _BIN / "python")
    if not Path(python).exists():
        venv.create(home, with_pip=True)
    _install(home, packages, [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"])
    return [str(home / _BIN / name)]


def _install(home: Path, packages: tuple[str, ...], command: Command) -> None:
    ready = home / ".installed"
    wanted = hashlib.sha256(" ".join(packages).encode()).hexdigest()
    if ready.exists() and ready.read_text(encoding="utf-8") == wanted:
        return
    home.mkdir(exist_ok=True)
    done = subprocess.run([*command, *packages], capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        pytest.skip(f"the servers could not be fetched: {lines[-1]}")
    ready.write_text(wanted, encoding="utf-8")


def proxied(command: Command, config: Path, *options: str) -> Command:
    """The same server behind a proxy."""
    own = [sys.executable, "-m", "cpex.tools.cli", "proxy", "--config", str(config), "--log-level", "WARNING"]
    return [*own, *options, "--", *command]


def plugins(folder: Path, text: str = "plugins: []\n") -> Path:
    """A configuration in a file."""
    path = folder / "plugins.yaml"
    path.write_text(text, encoding="utf-8")
    return path


@asynccontextmanager
async def client_of(
    command: Command, *, initialize: bool = True, env: dict[str, str] | None = None, **callbacks: Callable[..., Any]
) -> AsyncIterator[ClientSession]:
    """The SDK's client, over the pipes of a command."""
    parameters = StdioServerParameters(command=command[0], args=command[1:], env=env)
    async with stdio_client(parameters) as (read, write), ClientSession(read, write, **callbacks) as session:  # type: ignore[arg-type]
        if initialize:
            await session.initialize()
        yield session


class RawClient:
    """A client that sends what it is told to, and waits for answers in their order."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self.others: list[dict[str, Any]] = []
        """What came that was no answer."""

    async def send(self, message: dict[str, Any]) -> None:
        self._stdin.write(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")
        await self._stdin.drain()

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(TIMEOUT_S):
            line = await self._stdout.readline()
        if not line:
            raise EOFError("the proxy closed its output")
        message: dict[str, Any] = json.loads(line)
        return message

    async def answer(self) -> dict[str, Any]:
        while "method" in (message := await self.receive()):
            self.others.append(message)
        return message

    async def ask(self, id: int | str, method: str, **params: Any) -> dict[str, Any]:
        await self.send({"id": id, "method": method, "params": params})
        return await self.answer()

    async def shake_hands(self) -> dict[str, Any]:
        about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}
        answer = await self.ask("hello", "initialize", **about)
        if "result" in answer:
            await self.send({"method": "notifications/initialized"})
        return answer

    async def leave(self) -> int:
        """Close the input; gives the exit code."""
        self._stdin.close()
        async with asyncio.timeout(TIMEOUT_S):
            return await self.process.wait()


@asynccontextmanager
async def raw_client(command: Command, **options: Any) -> AsyncIterator[RawClient]:
    """A client of JSON lines over the pipes of a command; what it writes on standard error is kept for reading."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=32 * 1024 * 1024,
        **options,
    )
    client = RawClient(process)
    try:
        yield client
    finally:
        if process.returncode is None:
            client._stdin.close()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TIMEOUT_S):
                    await process.communicate()
            if process.returncode is None:
                process.kill()
                await process.wait()
