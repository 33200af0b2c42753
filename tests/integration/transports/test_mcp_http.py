"""Plugin servers over HTTP: what both ends refuse, and what a server that is none does to a call."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from integration.transports.hosts import call, host, manager_for
from integration.transports.servers import (
    MCP_RUNTIME,
    PLUGINS,
    Entry,
    ServerProcess,
    answers_at,
    mcp_http,
    mcp_uds,
    server_config,
)
from listeners import listening
from ports import free_port

from cpex.framework import PluginError
from cpex.framework.errors import PluginLoadError
from cpex.framework.external.mcp.server.web import application
from cpex.framework.external.server import ExternalPluginServer
from cpex.framework.models.transport import MCPServerConfig
from cpex.framework.settings import settings

CONFIG = {"name": "contract", "kind": "contract_plugin.ContractPlugin", "hooks": ["tool_pre_invoke"]}
Answerer = Callable[[dict[str, Any], asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def canned(answer: Answerer, version: str = "2025-11-25") -> AsyncIterator[Entry]:
    """A server that shakes hands, knows the plugin, and leaves the answer of a hook to the test."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if line)
            body = await reader.readexactly(int(fields.get(b"content-length", b"0")))
            message = json.loads(body) if body else {"method": "goodbye"}
            await _polite(message, writer, version) or await answer(message, writer)

    async with listening(serve) as server:
        port = server.sockets[0].getsockname()[1]
        yield {"kind": "external", "mcp": {"proto": "STREAMABLEHTTP", "url": f"http://localhost:{port}/mcp"}}


async def _polite(message: dict[str, Any], writer: asyncio.StreamWriter, version: str) -> bool:
    """Answer everything but a hook; whether it was that."""
    params = message.get("params", {})
    if message["method"] == "initialize":
        info = {"name": "x", "version": "1"}
        value = {"protocolVersion": version, "capabilities": {}, "serverInfo": info}
    elif params.get("name") == "get_plugin_config":
        value = {"content": [{"type": "text", "text": json.dumps(CONFIG)}]}
    elif "id" not in message:
        writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n")
        return True
    else:
        return False
    respond(writer, json.dumps({"jsonrpc": "2.0", "id": message["id"], "result": value}))
    return True


def respond(writer: asyncio.StreamWriter, body: str, kind: str = "application/json", status: str = "200 OK") -> None:
    """A whole response."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {len(body.encode())}\r\n\r\n"
    writer.write(head.encode() + body.encode())


async def html(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    respond(writer, "<html>", "text/html")


async def no_json(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    respond(writer, "{")


async def cut_off(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{")
    writer.close()


async def never_ending(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: ")
    while not writer.is_closing():
        writer.write(b"x" * 1_000_000)
        await writer.drain()


async def another_id(message: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    respond(writer, json.dumps({"jsonrpc": "2.0", "id": message["id"] + 1, "result": {"content": []}}))


async def broken(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    respond(writer, "no", "text/plain", "500 Internal Server Error")


async def elsewhere(_: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://169.254.169.254/mcp?token=x\r\n")
    writer.write(b"content-length: 0\r\n\r\n")


@pytest.mark.parametrize(
    ("answer", "code", "text"),
    [
        (html, "JSON_DECODE_ERROR", "is neither application/json nor text/event-stream"),
        (no_json, "JSON_DECODE_ERROR", "the server's response holds no answer to the request"),
        (cut_off, "external_lost", "was lost before the answer"),
        (never_ending, "external_too_large", "the server's answer is over 16,777,216 bytes"),
        (another_id, "JSON_DECODE_ERROR", "the server's response holds no answer to the request"),
        (broken, "JSON_DECODE_ERROR", "answered with HTTP status 500; the server's log says why"),
        (elsewhere, "JSON_DECODE_ERROR", "redirects to http://169.254.169.254/mcp, which is not followed"),
    ],
)
@pytest.mark.conformance("E10")
async def test_an_answer_that_is_none_fails_the_call_at_once(
    tmp_path: Path, answer: Answerer, code: str, text: str
) -> None:
    async with canned(answer) as entry, host(tmp_path, entry, timeout_s=60) as manager:
        with pytest.raises(PluginError) as raised:
            await call(manager, "x")
    assert (raised.value.error.code, text in raised.value.error.message) == (code, True), raised.value


async def test_a_redirect_on_the_same_server_is_followed(tmp_path: Path) -> None:
    server = mcp_http(tmp_path, {})
    await server.start()
    # The server redirects a path that ends in a slash.
    entry = {**server.entry, "mcp": {**server.entry["mcp"], "url": server.entry["mcp"]["url"] + "/"}}
    async with host(tmp_path, entry) as manager:
        assert (await call(manager, "deny")).violation.code == "NO"
    await server.stop()


async def start_fails(folder: Path, entry: Entry, **local: Any) -> str:
    """Why a plugin did not start."""
    with pytest.raises(PluginLoadError) as raised:
        await manager_for(folder, entry, **local).initialize()
    return str(raised.value)


@pytest.mark.conformance("E2")
async def test_a_server_that_cannot_be_reached_is_tried_three_times_and_named(tmp_path: Path) -> None:
    url = f"http://localhost:{free_port()}/mcp"
    text = await start_fails(tmp_path, {"kind": "external", "mcp": {"proto": "STREAMABLEHTTP", "url": url}})
    assert f"external plugin contract at {url}: connection failed after 3 attempts: cannot reach {url}: " in text


@pytest.mark.conformance("E10")
async def test_a_server_of_another_protocol_version_is_refused_by_name(tmp_path: Path) -> None:
    async with canned(html, "1999-01-01") as entry:
        text = await start_fails(tmp_path, entry)
    assert "the server speaks MCP version '1999-01-01', and this end one of 2024-11-05, " in text


async def test_a_name_that_leads_into_a_private_network_is_refused(tmp_path: Path) -> None:
    name = socket.gethostname()
    try:
        address = socket.gethostbyname(name)
    except OSError:
        pytest.skip("this machine's own name has no address")
    mcp = {"proto": "STREAMABLEHTTP", "url": f"http://{name}:1/mcp"}
    text = await start_fails(tmp_path, {"kind": "external", "mcp": mcp}, initialize_timeout_s=60)
    assert f"`{name}` leads to {address}" in text
    assert "blocked by SSRF protection" in text


async def test_the_switch_lets_private_addresses_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLUGINS_SSRF_PROTECTION_ENABLED", "false")
    settings.cache_clear()
    server = mcp_http(tmp_path, {})
    await server.start()
    url = server.entry["mcp"]["url"].replace("localhost", "127.0.0.1")
    try:
        async with host(tmp_path, {"kind": "external", "mcp": {"proto": "STREAMABLEHTTP", "url": url}}) as manager:
            assert (await call(manager, "deny")).violation.code == "NO"
    finally:
        settings.cache_clear()
        await server.stop()


# The server.


async def get(server: ServerProcess, path: str, *headers: str, method: str = "GET", body: str = "") -> tuple[int, str]:
    """Status and body of a request to a server."""
    mcp = server.entry["mcp"]
    port = int(mcp["url"].split(":")[-1].split("/")[0]) if "uds" not in mcp else 0
    opening = asyncio.open_unix_connection(mcp["uds"]) if "uds" in mcp else asyncio.open_connection("127.0.0.1", port)
    reader, writer = await opening
    lines = [f"{method} {path} HTTP/1.1", "Connection: close", f"Content-Length: {len(body)}", *headers]
    if not any(each.startswith("Host") for each in headers):
        lines.append("Host: localhost:1")
    writer.write("\r\n".join([*lines, "", body]).encode())
    head, _, rest = (await asyncio.wait_for(reader.read(), 60)).partition(b"\r\n\r\n")
    writer.close()
    return int(head.split()[1]), rest.decode()


@pytest.fixture(params=[mcp_http, mcp_uds], ids=["tcp", "uds"])
async def served(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A running server."""
    server: ServerProcess = request.param(tmp_path, {})
    await server.start()
    yield server
    await server.stop()


ACCEPT = ("Accept: application/json, text/event-stream", "Content-Type: application/json")


async def test_only_local_names_and_origins_are_answered(served: ServerProcess) -> None:
    ping = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"})

    async def status(*headers: str) -> int:
        return (await get(served, "/mcp", *ACCEPT, *headers, method="POST", body=ping))[0]

    assert await status("Host: evil.example") == 421
    assert await status("Host: localhost:5", "Origin: http://evil.example") == 403
    assert await status("Host: localhost:5", "Origin: http://localhost:8080") not in (403, 421)
    assert await status("Host: [::1]:5") not in (403, 421)
    if "uds" in served.entry["mcp"]:
        assert await status("Host: localhost") not in (403, 421)


async def test_health_and_metrics_are_told_to_whoever_asks(served: ServerProcess) -> None:
    assert await get(served, "/health", "Host: probe.example") == (200, '{"status":"healthy"}')
    status, text = await get(served, "/metrics/prometheus")
    assert status == 200
    assert 'plugin_info{server_name="MCP Plugin Server",ssl_enabled="false",transport="http"} 1.0' in text


async def test_health_follows_the_plugins(tmp_path: Path) -> None:
    missing = {"name": "missing", "kind": "no.such.Plugin", "on_error": "ignore"}
    config = server_config(tmp_path, {})
    document = yaml.safe_load(config.read_text(encoding="utf-8"))
    document["plugins"].append(missing)
    config.write_text(yaml.safe_dump(document), encoding="utf-8")
    service = ExternalPluginServer(str(config))
    transport = httpx2.ASGITransport(app=application(service, MCPServerConfig(), metrics=False))
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:

        async def health() -> tuple[int, Any]:
            answer = await client.get("/health")
            return answer.status_code, answer.json()

        assert await health() == (503, {"status": "unhealthy"})
        await service.initialize()
        assert await health() == (200, {"status": "degraded"})
        await service.shutdown()
        assert await health() == (503, {"status": "unhealthy"})


async def test_a_program_may_serve_plugins_of_its_own(tmp_path: Path) -> None:
    program = tmp_path / "own.py"
    program.write_text(OWN_SERVER.format(folder=str(PLUGINS)), encoding="utf-8")
    entry = {"kind": "external", "mcp": {"proto": "STDIO", "cmd": [sys.executable, str(program)]}}
    async with host(tmp_path, entry) as manager:
        assert (await call(manager, "deny")).violation.code == "NO"


OWN_SERVER = """\
import sys

sys.path.insert(0, {folder!r})
from contract_plugin import ContractPlugin

from cpex.framework import ExternalPluginServer, PluginConfig

config = PluginConfig(name="contract", kind="contract_plugin.ContractPlugin", hooks=["tool_pre_invoke"])
ExternalPluginServer(plugins=[ContractPlugin(config)]).run("stdio")
print("it has returned", file=sys.stderr)
"""


@pytest.mark.conformance("E17")
async def test_metrics_that_are_off_are_unavailable(tmp_path: Path) -> None:
    server = mcp_http(tmp_path, {})
    server.variables["ENABLE_METRICS"] = "no"
    await server.start()
    assert (await get(server, "/metrics/prometheus"))[0] == 503
    await server.stop()


@pytest.mark.conformance("E16")
async def test_the_socket_is_its_owners_alone_and_is_removed(tmp_path: Path) -> None:
    server = mcp_uds(tmp_path, {})
    path = Path(server.entry["mcp"]["uds"])
    await server.start()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    await server.kill()
    assert path.exists()
    await server.start()
    assert (await get(server, "/health"))[0] == 200
    await server.stop()
    assert not path.exists()


def failing(config: Path, **variables: str) -> str:
    """What a server says that does not start."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("PLUGINS_")}
    done = subprocess.run(
        MCP_RUNTIME,
        env={**kept, "PLUGINS_CONFIG_PATH": str(config), **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, ""), done
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.conformance("E16")
async def test_a_socket_that_somebody_listens_on_is_left_alone(tmp_path: Path) -> None:
    server = mcp_uds(tmp_path, {})
    await server.start()
    config = Path(server.variables["PLUGINS_CONFIG_PATH"])
    text = await asyncio.to_thread(failing, config, PLUGINS_TRANSPORT="http")
    assert f"cannot listen on Unix socket {server.entry['mcp']['uds']}: another server listens there" in text
    assert (await get(server, "/health"))[0] == 200
    await server.stop()


async def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    server = mcp_http(tmp_path, {})
    await server.start()
    config = Path(server.variables["PLUGINS_CONFIG_PATH"])
    text = await asyncio.to_thread(failing, config, PLUGINS_TRANSPORT="http")
    assert "cannot listen on http://127.0.0.1:" in text
    assert "Address already in use" in text
    await server.stop()


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("grpc", "is served by `python -m cpex.framework.external.grpc.server.runtime`"),
        ("unix", "is served by `python -m cpex.framework.external.unix.server.runtime`"),
        ("htpp", "unknown PLUGINS_TRANSPORT 'htpp'; write stdio or http"),
        ("", "standard input is empty, so nobody can speak to this server; set PLUGINS_TRANSPORT=http"),
    ],
)
@pytest.mark.conformance("E22")
def test_a_transport_that_is_none_of_its_is_refused(tmp_path: Path, word: str, text: str) -> None:
    assert text in failing(server_config(tmp_path, {}), PLUGINS_TRANSPORT=word)


@pytest.mark.conformance("E20")
def test_a_malformed_variable_of_another_server_stops_nothing(tmp_path: Path) -> None:
    config = server_config(tmp_path, {})
    variables = {
        "PLUGINS_GRPC_SERVER_PORT": "many",
        "PLUGINS_HTTPX_READ_TIMEOUT": "soon",
        "PLUGINS_PLUGIN_TIMEOUT": "x",
    }
    done = subprocess.run(
        MCP_RUNTIME,
        env={**os.environ, "PLUGINS_CONFIG_PATH": str(config), "PLUGINS_TRANSPORT": "stdio", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr


async def test_the_command_line_serves_where_its_options_say(tmp_path: Path) -> None:
    port = free_port()
    config = server_config(tmp_path, {}, server_settings={"port": 1})
    command = [sys.executable, "-m", "cpex.tools.cli", "serve", str(config), "-t", "mcp-http", "--port", str(port)]
    mcp = {"proto": "STREAMABLEHTTP", "url": f"http://localhost:{port}/mcp"}
    listening = answers_at(lambda: asyncio.open_connection("127.0.0.1", port))
    server = ServerProcess(command, {"kind": "external", "mcp": mcp}, listening)
    await server.start()
    async with host(tmp_path, server.entry) as manager:
        assert (await call(manager, "deny")).violation.code == "NO"
    await server.stop()
