"""How a server that fails by a fault of its own says what it is."""

from __future__ import annotations

import subprocess
import sys

# No input is known to make them fail so; the fault has to be put in.
PROXY = """
import sys
import cpex.proxy
from cpex.tools.cli import main

async def faulty(settings):
    raise RuntimeError("a fault of ours")

cpex.proxy.serve = faulty
sys.argv = ["cpex", "proxy", "--config", "plugins.yaml", "--", "true"]
main()
"""
SERVER = """
from cpex.framework.external.running import run_until_stopped

async def faulty():
    raise RuntimeError("a fault of ours")

run_until_stopped(faulty)
"""


def said_by(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "a fault of ours" in done.stderr
    return done.stderr


def test_a_proxy_that_fails_is_called_a_proxy() -> None:
    said = said_by(PROXY)
    assert "The proxy failed" in said
    assert "plugin server" not in said


def test_a_plugin_server_that_fails_is_called_a_plugin_server() -> None:
    assert "The plugin server failed" in said_by(SERVER)
