"""Our hosts with plugin servers of the published release, and its hosts with ours, over every transport it has."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.transports.servers import LIMIT_S, NAME, PLUGINS, SERVERS, ServerProcess

from benchmarks.sides import RIVAL, SideError, rival_python

HOST = Path(__file__).parents[1] / "published" / "host.py"
KIND = {"kind": "plain_plugin.PlainPlugin"}
TEXT = 'ü "\\ \n \u2028 🦊'
CALLS = [
    {"hook": "tool_pre_invoke", "payload": {"name": "nothing", "args": {"n": None}}},
    {"hook": "tool_pre_invoke", "payload": {"name": "add", "args": {"text": TEXT, "n": 3, "keep": [1, {"a": None}]}}},
    {"hook": "tool_pre_invoke", "payload": {"name": "deny", "args": {}}},
    {"hook": "tool_post_invoke", "payload": {"name": "nothing", "result": {"rows": [1, 2.5]}}},
]


@pytest.fixture(scope="module")
def published() -> str:
    """The interpreter of an environment with the published package."""
    try:
        return str(rival_python())
    except SideError as error:
        pytest.skip(f"needs {RIVAL}: {error}")


@pytest.fixture(params=["ours asks", "theirs asks"])
async def asked(
    request: pytest.FixtureRequest, transport: str, published: str, tmp_path: Path
) -> AsyncIterator[list[dict[str, Any]]]:
    """What a host of one side heard from a server of the other."""
    asking, serving = (sys.executable, published) if request.param == "ours asks" else (published, sys.executable)
    server = SERVERS[transport](tmp_path, KIND)
    server.command[0] = serving
    server.variables |= {"PYTHONPATH": str(PLUGINS)}
    await server.start()
    try:
        yield await asyncio.to_thread(answers, asking, server, tmp_path)
    finally:
        await server.stop()


def answers(python: str, server: ServerProcess, folder: Path) -> list[dict[str, Any]]:
    """Let a host of an interpreter make the calls."""
    path = folder / "host.yaml"
    # Older hosts do not fetch the configuration over every transport, so what it needs stands here.
    entry = {"name": NAME, "hooks": ["tool_pre_invoke", "tool_post_invoke"], **server.entry}
    path.write_text(yaml.safe_dump({"plugins": [entry]}), encoding="utf-8")
    dropped = ("PLUGINS_", "PYTHON", "VIRTUAL_ENV")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(dropped)}
    done = subprocess.run(
        [python, HOST],
        input=json.dumps({"config": str(path), "calls": CALLS}),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env=inherited,
        cwd=folder,
        timeout=2 * LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    told: list[dict[str, Any]] = json.loads(done.stdout)["answers"]
    return told


@pytest.mark.parametrize("transport", SERVERS)
async def test_hosts_and_servers_of_two_releases_understand_each_other(asked: list[dict[str, Any]]) -> None:
    allowed, rewritten, denied, told = asked
    assert (allowed["allowed"], allowed["payload"], allowed["violation"]) == (True, None, None)
    added = {"text": TEXT, "n": 3, "keep": [1, {"a": None}], "added": ["x", 1.5, None, {"ü": True}]}
    assert (rewritten["allowed"], rewritten["payload"]["args"]) == (True, added)
    assert rewritten["metadata"]["note"] == "n"
    assert (denied["allowed"], denied["violation"]["code"]) == (False, "NO")
    assert denied["violation"]["details"] == {"count": 3, "list": [1.5, None]}
    assert told["payload"]["result"] == {"was": {"rows": [1, 2.5]}, "seen": None}
