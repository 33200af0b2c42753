"""The project of a plugin server: what its Makefile makes, and that what it serves decides for a host."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_blocks import fences
from integration.transports.servers import ServerProcess, answers_at, says
from ports import free_port
from wheels import LIMIT_S, environment

from cpex.framework import GlobalContext, TenantPluginManager, ToolPreInvokePayload

DENY = """\
        if payload.name == "shell":
            violation = PluginViolation(reason="no shell", description="Not here.", code="NO_SHELL")
            return ToolPreInvokeResult(continue_processing=False, violation=violation)
        return ToolPreInvokeResult()
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project as the program writes it, with a plugin that decides something."""
    command = [sys.executable, "-m", "cpex.tools.cli", "bootstrap", "-d", "shell_guard", "-t", "external", "--no_input"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, timeout=LIMIT_S)
    plugin = tmp_path / "shell_guard" / "shell_guard" / "plugin.py"
    text = plugin.read_text(encoding="utf-8").replace("        return ToolPreInvokeResult()\n", DENY)
    plugin.write_text(
        text.replace("    PluginContext,\n", "    PluginContext,\n    PluginViolation,\n"), encoding="utf-8"
    )
    return tmp_path / "shell_guard"


async def decisions(project: Path, entry: dict[str, Any]) -> list[tuple[str, str]]:
    """What a host is told whose configuration has that entry."""
    config = project.parent / "host.yaml"
    config.write_text(yaml.safe_dump({"plugins": [entry]}), encoding="utf-8")
    manager = TenantPluginManager(str(config))
    await manager.initialize()
    found = []
    for tool in ("search", "shell"):
        payload = ToolPreInvokePayload(name=tool, args={})
        result, _ = await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id=tool))
        found.append((tool, result.violation.code if result.violation else "allowed"))
    await manager.shutdown()
    return found


DECIDED = [("search", "allowed"), ("shell", "NO_SHELL")]


def host_entry(project: Path) -> dict[str, Any]:
    """The plugin as the project's page tells a host to name it."""
    (fence,) = [each for each in fences((project / "README.md").read_text("utf-8")) if each.language == "yaml"]
    (entry,) = yaml.safe_load(fence.code)["plugins"]
    found: dict[str, Any] = entry
    return found


@asynccontextmanager
async def served(server: ServerProcess, project: Path) -> AsyncIterator[None]:
    """The server's process, in the project's folder, until the block ends."""
    server.command = ["bash", "-c", 'cd "$0" && exec "$@"', str(project), *server.command]
    await server.start()
    try:
        yield
    finally:
        await server.stop()


async def test_the_script_serves_over_http_what_the_page_tells_hosts_to_reach(project: Path) -> None:
    entry, port = host_entry(project), free_port()
    entry["mcp"]["url"] = entry["mcp"]["url"].replace(":8000/", f":{port}/")
    variables = {"PYTHON": sys.executable, "PLUGINS_SERVER_PORT": str(port)}
    listening = answers_at(lambda: asyncio.open_connection("127.0.0.1", port))
    async with served(ServerProcess(["./run-server.sh"], {}, listening, variables), project):
        assert await decisions(project, entry) == DECIDED


async def test_the_script_serves_over_grpc(project: Path) -> None:
    port = free_port()
    variables = {"PYTHON": sys.executable, "PLUGINS_TRANSPORT": "grpc", "PLUGINS_GRPC_SERVER_PORT": str(port)}
    listening = answers_at(lambda: asyncio.open_connection("127.0.0.1", port))
    async with served(ServerProcess(["./run-server.sh"], {}, listening, variables), project):
        entry = {**host_entry(project), "grpc": {"target": f"127.0.0.1:{port}"}}
        del entry["mcp"]
        assert await decisions(project, entry) == DECIDED


async def test_the_script_serves_over_a_unix_socket(project: Path) -> None:
    path = str(project / "s.sock")
    variables = {"PYTHON": sys.executable, "PLUGINS_TRANSPORT": "unix", "UNIX_SOCKET_PATH": path}
    async with served(ServerProcess(["./run-server.sh"], {}, says(b"READY\n"), variables), project):
        entry = {**host_entry(project), "unix_socket": {"path": path}}
        del entry["mcp"]
        assert await decisions(project, entry) == DECIDED


async def test_a_host_starts_the_script_itself_over_standard_input(project: Path) -> None:
    env = {"PYTHON": sys.executable, "PLUGINS_TRANSPORT": "stdio"}
    mcp = {"proto": "STDIO", "script": str(project / "run-server.sh"), "env": env}
    assert await decisions(project, {**host_entry(project), "mcp": mcp}) == DECIDED


def make(project: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", "--no-print-directory", f"PYTHON={sys.executable}", *words],
        cwd=project,
        env=environment(**variables),
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


MADE = (
    (("help",), "start-grpc-tls"),
    (("test",), "4 passed"),
    (("lint",), "All checks passed!"),
    (("lock",), "pip freeze"),
    (("wheel",), "Successfully built"),
    (("sdist",), "Successfully built"),
    (("verify",), "PASSED"),
)
"""Targets, and what they print; each is made where the ones before have been."""


@pytest.mark.timeout(4 * LIMIT_S)
async def test_the_targets_of_the_makefile_do_what_they_say(project: Path) -> None:
    for words, expected in MADE:
        done = await asyncio.to_thread(make, project, *words)
        assert done.returncode == 0, (words, done.stdout + done.stderr)
        assert expected in done.stdout, (words, done.stdout + done.stderr)
    assert sorted(path.name for path in (project / "dist").iterdir()) == [
        "shell_guard-0.1.0-py3-none-any.whl",
        "shell_guard-0.1.0.tar.gz",
    ]
    assert (
        "cpex @" in (project / "requirements.lock").read_text()
        or "cpex==" in (project / "requirements.lock").read_text()
    )
    entry, port = host_entry(project), free_port()
    entry["mcp"]["url"] = entry["mcp"]["url"].replace(":8000/", f":{port}/")
    served_by = await asyncio.create_subprocess_exec(
        "make", "start", cwd=project, env=environment(PLUGINS_SERVER_PORT=str(port)), start_new_session=True
    )
    try:
        server = ServerProcess(["make", "start"], {}, lambda _: asyncio.sleep(0), child=served_by)
        async with asyncio.timeout(LIMIT_S):
            await answers_at(lambda: asyncio.open_connection("127.0.0.1", port))(server)
        assert await decisions(project, entry) == DECIDED
    finally:
        # As Ctrl-C does on a terminal: make and what it started.
        os.killpg(served_by.pid, signal.SIGINT)
        async with asyncio.timeout(60):
            await served_by.wait()
    assert (await asyncio.to_thread(make, project, "clean")).returncode == 0
    assert not (project / ".venv").exists()
    assert not (project / "dist").exists()


# It builds a wheel of the package where no test has done so before.
@pytest.mark.timeout(2 * LIMIT_S)
def test_container_targets_call_the_engine_and_say_when_there_is_none(project: Path) -> None:
    # There is no container engine where tests run; what it would be told is seen.
    engine = "CONTAINER=echo engine"
    assert make(project, "build", engine).stdout.splitlines()[-1] == "engine build -t shell-guard -f Containerfile ."
    grpc = make(project, "build-grpc", engine).stdout.splitlines()[-1]
    assert grpc == "engine build --build-arg INSTALL_GRPC=true -t shell-guard -f Containerfile ."
    assert make(project, "container", engine).stdout.splitlines()[-1].startswith("engine run --rm --name shell-guard")
    assert make(project, "stop", engine).stdout.splitlines()[-1] == "engine stop shell-guard"
    none = make(project, "build", "CONTAINER=")
    assert none.returncode == 2
    assert none.stderr.startswith("error: neither podman nor docker is installed; name another: make build CONTAINER=")
