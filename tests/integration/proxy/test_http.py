"""The proxy with HTTP on either side: real servers, real clients, many at once, and peers that go away."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from integration.proxy.servers import TIMEOUT_S, Command, node_server, plugins, raw_client
from integration.proxy.test_everything import CALLS, WATCHING, Client, outcome
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from ports import free_port

from cpex.framework.settings import settings
from cpex.proxy.http_client import connected_url

BREAKING = [sys.executable, str(Path(__file__).with_name("breaking.py"))]


def listening(config: Path, *options: str, port: int) -> Command:
    own = [sys.executable, "-m", "cpex.tools.cli", "proxy", "--config", str(config), "--log-level", "INFO"]
    return [*own, "--listen", f"127.0.0.1:{port}", *options]


@asynccontextmanager
async def running(
    command: Command, ready: str, *, told: list[str] | None = None, **variables: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A server process that has said that it is ready; what it says from then on is put into `told` at its end."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **variables},
    )
    assert process.stderr is not None
    said: list[bytes] = []
    async with asyncio.timeout(TIMEOUT_S):
        while not re.search(ready, (line := await process.stderr.readline()).decode()):
            said.append(line)
            assert line, b"".join(said).decode()
    rest = asyncio.create_task(process.stderr.read())
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        async with asyncio.timeout(TIMEOUT_S):
            await process.wait()
        text = (await rest).decode()
        if told is not None:
            told.append(text)


@asynccontextmanager
async def everything_over_http() -> AsyncIterator[str]:
    port = free_port()
    command = [*node_server("server-everything"), "streamableHttp"]
    async with running(command, "listening on port", PORT=str(port)):
        yield f"http://localhost:{port}/mcp"


@asynccontextmanager
async def session_at(url: str, **callbacks: Any) -> AsyncIterator[ClientSession]:
    async with (
        asyncio.timeout(TIMEOUT_S),
        streamable_http_client(url) as (read, write),
        ClientSession(read, write, **callbacks) as session,
    ):
        await session.initialize()
        yield session


async def scenario(session: ClientSession, client: Client) -> Any:
    reports: list[Any] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total, message))

    answers = [await outcome(session.call_tool(name, args)) for name, args in CALLS]
    answers.append(
        await outcome(
            session.call_tool("trigger-long-running-operation", {"duration": 0.4, "steps": 4}, progress_callback=report)
        )
    )
    lists = (session.list_tools, session.list_prompts, session.list_resources, session.list_resource_templates)
    answers.extend([await outcome(each()) for each in lists])
    return answers, reports, [each for each in client.told if isinstance(each, tuple)]


async def test_http_on_both_sides_answers_as_the_server_does(tmp_path: Path) -> None:
    seen = []
    async with everything_over_http() as url:
        port = free_port()
        command = listening(plugins(tmp_path, WATCHING), "--url", url, port=port)
        async with running(command, "The proxy listens"):
            for address in (url, f"http://127.0.0.1:{port}/mcp"):
                client = Client()
                async with session_at(address, **client.callbacks()) as session:
                    seen.append(await scenario(session, client))
    assert seen[1] == seen[0]
    assert {kind for kind, _ in seen[0][2]} == {"sampling", "elicitation"}


async def test_many_clients_at_once_are_kept_apart(tmp_path: Path) -> None:
    port = free_port()

    async def client(number: int) -> str:
        async with session_at(f"http://127.0.0.1:{port}/mcp") as session:
            results = [await session.call_tool("echo", {"message": f"{number}"}) for _ in range(3)]
            return "".join(result.content[0].text for result in results)

    async with everything_over_http() as url:
        command = listening(plugins(tmp_path, WATCHING), "--url", url, port=port)
        async with running(command, "The proxy listens"):
            said = await asyncio.gather(*(client(number) for number in range(20)))
    assert said == [f"Echo: {number}" * 3 for number in range(20)]


async def test_a_stopped_proxy_ends_the_streams_of_sessions_in_order(tmp_path: Path) -> None:
    port = free_port()
    told: list[str] = []
    url, headers = f"http://127.0.0.1:{port}/mcp", {"accept": "application/json, text/event-stream"}
    hello = {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "bare", "version": "1"},
    }
    async with (
        asyncio.timeout(TIMEOUT_S),
        running(listening(plugins(tmp_path), "--", *BREAKING, port=port), "The proxy listens", told=told) as proxy,
        httpx2.AsyncClient(timeout=TIMEOUT_S, headers=headers) as http,
    ):
        begun = await http.post(url, json={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": hello})
        session = {"mcp-session-id": begun.headers["mcp-session-id"], "mcp-protocol-version": "2025-11-25"}
        await http.post(url, headers=session, json={"jsonrpc": "2.0", "method": "notifications/initialized"})
        async with http.stream("GET", url, headers=session) as stream:
            proxy.terminate()
            # It would raise if the connection were cut. Signs of life are comments.
            assert [line async for line in stream.aiter_lines() if line and not line.startswith(":")] == []
        assert await proxy.wait() == 0
    assert [line for line in told[0].splitlines() if " ERROR " in line] == []


async def test_a_server_that_cannot_be_reached_fails_each_request_and_not_the_session(tmp_path: Path) -> None:
    port = free_port()
    own = [sys.executable, "-m", "cpex.tools.cli", "proxy", "--config", str(plugins(tmp_path))]
    async with raw_client([*own, "--url", f"http://localhost:{port}/mcp"]) as client:
        for number in (1, 2):
            error = (await client.ask(number, "initialize", protocolVersion="2025-11-25", capabilities={}))["error"]
            assert error["code"] == -32000
            assert error["message"].startswith(f"cannot reach http://localhost:{port}/mcp: ")
        assert await client.leave() == 0


PRIVATE = "http://169.254.169.254/mcp"
REFUSAL = (
    f"cannot reach {PRIVATE}: `169.254.169.254` leads to 169.254.169.254, a link-local address, which is blocked by "
    "SSRF protection; for a server that is meant to be there set PLUGINS_SSRF_PROTECTION_ENABLED=false"
)


@pytest.mark.parametrize("listed", [False, True])
async def test_a_private_address_in_a_url_stops_the_start(tmp_path: Path, listed: bool) -> None:
    own = [sys.executable, "-m", "cpex.tools.cli", "proxy", "--config", str(plugins(tmp_path))]
    command = [*own, "--url", PRIVATE]
    if listed:
        servers = {"mcpServers": {"near": {"url": "http://localhost:9/mcp"}, "far": {"url": PRIVATE}}}
        (tmp_path / "servers.json").write_text(json.dumps(servers), encoding="utf-8")
        command = [*own, "--servers", str(tmp_path / "servers.json")]
    async with raw_client(command) as client:
        async with asyncio.timeout(TIMEOUT_S):
            _, said = await client.process.communicate()
        assert (client.process.returncode, said.decode()) == (1, f"error: {REFUSAL}\n")


async def test_private_addresses_are_not_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLUGINS_SSRF_PROTECTION_ENABLED", raising=False)
    settings.cache_clear()
    # Below what is checked at the start, where a name that leads to such an address would be met.
    async with asyncio.timeout(TIMEOUT_S), connected_url(PRIVATE, {}) as connection:
        await connection.send({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}})
        answer = await connection.receive()
        assert answer is not None
        assert answer["error"] == {"code": -32000, "message": REFUSAL}


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        ({"mcp-session-id": "another"}, {"jsonrpc": "2.0", "id": 1, "method": "ping"}, 404),
        ({}, {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, 400),
        ({}, [], 400),
        ({"mcp-protocol-version": "2099-01-01"}, {"jsonrpc": "2.0", "id": 1, "method": "server/discover"}, 400),
        ({"host": "evil.example.com"}, {"jsonrpc": "2.0", "id": 1, "method": "initialize"}, 421),
    ],
)
async def test_what_opens_no_session_leaves_none_behind(
    tmp_path: Path, headers: dict[str, str], body: Any, status: int
) -> None:
    port = free_port()
    accept = {"accept": "application/json, text/event-stream"}
    async with (
        running(listening(plugins(tmp_path), "--", *BREAKING, port=port), "The proxy listens"),
        httpx2.AsyncClient(timeout=TIMEOUT_S) as client,
    ):
        answer = await client.post(f"http://127.0.0.1:{port}/mcp", json=body, headers={**accept, **headers})
        assert answer.status_code == status


async def test_a_server_that_dies_ends_the_session_of_its_client_only(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/mcp"
    async with (
        running(listening(plugins(tmp_path), "--", *BREAKING, port=port), "The proxy listens"),
        session_at(url) as other,
    ):
        async with session_at(url) as session:
            answer = await outcome(session.call_tool("die", {}))
            assert answer["code"] == -32000
            assert "exited with status 3" in answer["message"]
        # Its own server still talks to the other client, if only to say that it knows nothing.
        assert (await outcome(other.send_ping()))["message"] == "nothing else here"
