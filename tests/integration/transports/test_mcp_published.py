"""Either end may be of the published release 0.1.4, over every way that MCP takes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.transports.hosts import call, host
from integration.transports.servers import MCP_RUNTIME, NAME, PLUGINS, Entry, ServerProcess, answers_at
from ports import free_port

from benchmarks.sides import SideError, rival_python
from cpex.framework import GlobalContext, PluginError, ToolPreInvokePayload

HOST = Path(__file__).with_name("published_host.py")
MODULE = MCP_RUNTIME[1:]


@pytest.fixture(scope="module")
def release() -> Path:
    """The interpreter that has the published package."""
    try:
        return rival_python()
    except SideError as error:
        pytest.skip(str(error))


def clean(**variables: str) -> dict[str, str]:
    """An environment without settings and import paths of the tests."""
    dropped = ("PLUGINS_", "PYTHON", "VIRTUAL_ENV")
    return {name: text for name, text in os.environ.items() if not name.startswith(dropped)} | variables


def configuration(folder: Path, **sections: Any) -> Path:
    """Of a server of either release."""
    plugin = {"name": NAME, "kind": "common_plugin.CommonPlugin", "hooks": ["tool_pre_invoke"], "mode": "sequential"}
    path = folder / "server.yaml"
    path.write_text(yaml.safe_dump({"plugins": [plugin], "plugin_dirs": [str(PLUGINS)], **sections}), encoding="utf-8")
    return path


@asynccontextmanager
async def over_stdio(python: str, folder: Path) -> AsyncIterator[Entry]:
    """A server that the host starts."""
    env = {"PLUGINS_CONFIG_PATH": str(configuration(folder)), "PLUGINS_TRANSPORT": "stdio"}
    yield {"kind": "external", "mcp": {"proto": "STDIO", "cmd": [python, *MODULE], "env": env}}


@asynccontextmanager
async def over_http(python: str, folder: Path) -> AsyncIterator[Entry]:
    """A server on TCP."""
    port = free_port()
    config = configuration(folder, server_settings={"host": "127.0.0.1", "port": port})
    listening = answers_at(lambda: asyncio.open_connection("127.0.0.1", port))
    async with _running(python, config, listening):
        yield {"kind": "external", "mcp": {"proto": "STREAMABLEHTTP", "url": f"http://localhost:{port}/mcp"}}


@asynccontextmanager
async def over_uds(python: str, folder: Path) -> AsyncIterator[Entry]:
    """A server on a Unix socket."""
    path = str(folder / "mcp.sock")
    config = configuration(folder, server_settings={"uds": path})
    async with _running(python, config, answers_at(lambda: asyncio.open_unix_connection(path))):
        yield {"kind": "external", "mcp": {"proto": "STREAMABLEHTTP", "url": "http://localhost/mcp", "uds": path}}


@asynccontextmanager
async def _running(python: str, config: Path, listening: Any) -> AsyncIterator[None]:
    variables = {"PLUGINS_CONFIG_PATH": str(config), "PLUGINS_TRANSPORT": "http"}
    server = ServerProcess([python, *MODULE], {}, listening, variables)
    await server.start()
    try:
        yield
    finally:
        assert server.child is not None
        server.child.terminate()
        # How the other release ends is its own affair.
        await asyncio.wait_for(server.child.wait(), 60)


WAYS = pytest.mark.parametrize("way", [over_stdio, over_http, over_uds], ids=["stdio", "http", "uds"])
Way = Callable[[str, Path], Any]


@WAYS
async def test_our_host_uses_a_published_server(way: Way, release: Path, tmp_path: Path) -> None:
    async with way(str(release), tmp_path) as entry, host(tmp_path, entry) as manager:
        denied = await call(manager, "deny")
        assert (denied.continue_processing, denied.violation.code) == (False, "NO")
        assert (denied.violation.details, denied.violation.plugin_name) == ({"count": 3}, NAME)
        added = await call(manager, "add", tags={"a", "b"}, n=3)
        # What the plugin did not touch is the host's own, although the way knows no sets.
        assert added.modified_payload.args == {"tags": {"a", "b"}, "n": 3, "added": "ü"}
        context = GlobalContext(request_id="r1", state={"before": {1}})
        await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="remember", args={}), context)
        assert context.state == {"before": {1}, "shared": [1, None, "x"]}
        with pytest.raises(PluginError, match="this plugin is broken"):
            await call(manager, "raise")
        results = await asyncio.gather(*(call(manager, "echo", number=n, turns=n % 5) for n in range(100)))
        assert [result.metadata["number"] for result in results] == list(range(100))


@WAYS
async def test_a_published_host_uses_our_server(way: Way, release: Path, tmp_path: Path) -> None:
    calls = [["deny", {}], ["add", {"n": 3}], ["remember", {"x": 1}], ["nothing", {}]]
    echoes = [["echo", {"number": number, "turns": number % 5}] for number in range(50)]
    async with way(sys.executable, tmp_path) as entry:
        config = tmp_path / "host.yaml"
        config.write_text(yaml.safe_dump({"plugins": [{"name": NAME, **entry}], "plugin_dirs": []}), encoding="utf-8")
        one = await asyncio.to_thread(ask, release, config, [*calls, *echoes])
    assert one["plugins"] == 1
    denied, added, remembered, nothing, *echoed = one["outcomes"]
    assert (denied["allowed"], denied["code"], denied["details"]) == (False, "NO", {"count": 3})
    assert (added["allowed"], added["args"]) == (True, {"n": 3, "added": "ü"})
    assert (remembered["allowed"], remembered["state"]) == (True, {"shared": [1, None, "x"]})
    assert (nothing["allowed"], nothing["args"]) == (True, None)
    assert [each["metadata"].get("number") for each in echoed] == list(range(50))


def ask(python: Path, config: Path, calls: list[list[Any]]) -> dict[str, Any]:
    """Let a host of the published release make calls."""
    done = subprocess.run(
        [python, HOST],
        input=json.dumps({"config": str(config), "calls": calls}),
        capture_output=True,
        text=True,
        env=clean(PLUGINS_SSRF_PROTECTION_ENABLED="false"),
        cwd=config.parent,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answers
