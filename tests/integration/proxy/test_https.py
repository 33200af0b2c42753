"""Servers behind TLS, with certificates that the tests make: who is trusted, and what is said of who is not."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from certificates import self_signed
from integration.proxy.servers import TIMEOUT_S, Command, client_of, plugins, raw_client
from integration.proxy.test_http import running
from integration.proxy.test_lists import CATALOGUE
from ports import free_port

CA = "PLUGINS_CLIENT_MTLS_CA_BUNDLE"


@pytest.fixture
async def certificate(tmp_path: Path) -> tuple[str, str]:
    return self_signed(tmp_path)


@pytest.fixture
async def url(certificate: tuple[str, str]) -> AsyncIterator[str]:
    port = free_port()
    async with running([*CATALOGUE, "https", str(port), *certificate], "Uvicorn running"):
        yield f"https://localhost:{port}/mcp"


def behind(folder: Path, url: str) -> Command:
    return [sys.executable, "-m", "cpex.tools.cli", "proxy", "--config", str(plugins(folder)), "--url", url]


async def test_a_server_is_trusted_whose_authority_is_named(
    url: str, certificate: tuple[str, str], tmp_path: Path
) -> None:
    env = {**os.environ, CA: certificate[0]}
    async with asyncio.timeout(TIMEOUT_S), client_of(behind(tmp_path, url), env=env) as session:
        assert (await session.call_tool("tool-01", {})).content[0].text == "one: tool-01"


@pytest.mark.parametrize("which", ["another authority", "no authority", "another name"])
async def test_a_server_is_refused_that_cannot_show_who_it_is(
    url: str, certificate: tuple[str, str], tmp_path: Path, which: str
) -> None:
    env = dict(os.environ)
    if which == "another authority":
        (tmp_path / "other").mkdir()
        env[CA] = self_signed(tmp_path / "other")[0]
    elif which == "another name":
        env[CA] = certificate[0]
        # Where the exemption of `localhost` does not hold, addresses of this machine must be allowed.
        env["PLUGINS_SSRF_PROTECTION_ENABLED"] = "false"
        url = url.replace("localhost", "127.0.0.1")
    async with raw_client(behind(tmp_path, url), env=env) as client:
        error = (await client.shake_hands())["error"]
        assert error["code"] == -32000
        assert error["message"].startswith(f"TLS with {url} failed: ")
        assert error["message"].endswith(
            "; name its authority in `PLUGINS_CLIENT_MTLS_CA_BUNDLE`, and check the host name"
        )
        assert await client.leave() == 0


async def test_what_does_not_speak_tls_is_told_so(tmp_path: Path) -> None:
    port = free_port()
    url = f"https://localhost:{port}/mcp"
    async with (
        running([*CATALOGUE, "http", str(port)], "Uvicorn running"),
        raw_client(behind(tmp_path, url)) as client,
    ):
        error = (await client.shake_hands())["error"]
        assert error["message"].startswith(f"TLS with {url} failed: ")


@pytest.mark.parametrize("listed", [False, True])
async def test_a_file_of_authorities_that_is_none_stops_the_start(tmp_path: Path, listed: bool) -> None:
    (tmp_path / "ca.pem").write_text("this is no certificate", encoding="utf-8")
    command = behind(tmp_path, "https://localhost:9/mcp")
    if listed:
        servers = {"mcpServers": {"far": {"url": "https://localhost:9/mcp"}}}
        (tmp_path / "servers.json").write_text(json.dumps(servers), encoding="utf-8")
        command = [*command[:-2], "--servers", str(tmp_path / "servers.json")]
    async with raw_client(command, env={**os.environ, CA: str(tmp_path / "ca.pem")}) as client:
        async with asyncio.timeout(TIMEOUT_S):
            _, said = await client.process.communicate()
        assert client.process.returncode == 1
        assert b"error: cannot set up TLS towards servers: " in said
        assert b"PLUGINS_CLIENT_MTLS_" in said
        assert b"Traceback" not in said
