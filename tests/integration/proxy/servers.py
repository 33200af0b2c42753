"""MCP servers that others wrote, installed on first use and kept, and a proxy before them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client

from benchmarks.environments import Environment, IndexUnreachable

NODE_PACKAGES = (
    "@modelcontextprotocol/server-everything@2026.8.31",
    "@modelcontextprotocol/server-filesystem@2026.8.31",
)
PYTHON_PACKAGES = ("mcp-server-git==2026.10.19", "mcp-server-time==2026.10.19", "mcp-server-fetch==2026.10.24")
OLD_PACKAGES = ("mcp-server-sqlite==2025.4.25", "mcp<2")
"""Written for the SDK's first generation, whose servers speak older versions of the protocol."""
INSTALL_TIMEOUT_S = 400
TIMEOUT_S = 180
Command = list[str]


@cache
def node_server(name: str) -> Command:
    """What starts a server of the npm registry; the test is skipped, with the reason, where it cannot be had."""
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        pytest.skip("npm and node are not installed")
    environment = Environment(".venv-mcp-node")
    with environment.lacking("installed", str(NODE_PACKAGES)) as missing:
        if missing:
            environment.home.mkdir(exist_ok=True)
            words = [npm, "install", "--no-audit", "--no-fund", "--prefix", str(environment.home), *NODE_PACKAGES]
            try:
                done = subprocess.run(words, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
            except subprocess.TimeoutExpired as error:
                _skip(str(error))
            if done.returncode:
                _skip(done.stderr)
    return [node, str(environment.home / "node_modules" / "@modelcontextprotocol" / name / "dist" / "index.js")]


@cache
def python_server(name: str) -> Command:
    """What starts a server of the Python index; skipped as `node_server` is."""
    is_old = name == "mcp-server-sqlite"
    environment = Environment(".venv-mcp-python-1" if is_old else ".venv-mcp-python")
    packages = OLD_PACKAGES if is_old else PYTHON_PACKAGES
    with environment.lacking("installed", str(packages)) as missing:
        if missing:
            environment.create("MCP servers")
            try:
                environment.fetch(*packages)
            except IndexUnreachable as error:
                _skip(str(error))
    return [str(environment.python.with_name(name))]


def _skip(reason: str) -> NoReturn:
    lines = reason.strip().splitlines() or ["no message"]
    pytest.skip(f"the servers could not be fetched: {lines[-1]}")


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
    async with stdio_client(parameters) as (read, write), ClientSession(read, write, **callbacks) as session:
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
        client._stdin.close()
        # Also when it has ended: its pipes may still be open, and there is no loop to close them after the test.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TIMEOUT_S):
                await process.communicate()
        if process.returncode is None:
            process.kill()
            await process.wait()
