"""TLS of gRPC: certificates decide who talks to whom, and nothing falls back to clear text."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import trustme
import yaml
from cryptography.hazmat.primitives import serialization
from integration.transports.servers import NAME, PLUGINS, ServerProcess, answers_at, server_config
from ports import free_port

from cpex.framework import GlobalContext, ToolPreInvokePayload
from cpex.framework.errors import PluginLoadError
from cpex.framework.external.grpc.targets import _pinned
from cpex.framework.external.grpc.tls_utils import create_secure_channel
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.proto.plugin_service_pb2_grpc import PluginServiceStub
from cpex.framework.manager import TenantPluginManager
from cpex.framework.models.tls import GRPCClientTLSConfig


@dataclass(frozen=True)
class Authority:
    """A certificate authority, and files of what it issued."""

    folder: Path
    ca: trustme.CA

    def bundle(self) -> str:
        """The authority's own certificate."""
        path = self.folder / "ca.pem"
        self.ca.cert_pem.write_to_path(str(path))
        return str(path)

    def pair(self, name: str) -> dict[str, str]:
        """A certificate made out to a name, and its key."""
        issued = self.ca.issue_cert(name)
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        issued.private_key_pem.write_to_path(str(key))
        certificate.write_bytes(b"".join(part.bytes() for part in issued.cert_chain_pems))
        return {"certfile": str(certificate), "keyfile": str(key)}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The one that both ends trust."""
    return Authority(tmp_path_factory.mktemp("ours"), trustme.CA())


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Another one."""
    return Authority(tmp_path_factory.mktemp("strange"), trustme.CA())


@asynccontextmanager
async def serving(folder: Path, tls: dict[str, Any]) -> AsyncIterator[int]:
    """A server with TLS; its port."""
    port = free_port()
    settings = {"host": "127.0.0.1", "port": port, "tls": tls}
    config = server_config(folder, {}, grpc_server_settings=settings)
    server = ServerProcess(
        [sys.executable, "-m", "cpex.framework.external.grpc.server.runtime", "-c", str(config)],
        {},
        answers_at(lambda: asyncio.open_connection("127.0.0.1", port)),
    )
    await server.start()
    try:
        yield port
    finally:
        await server.stop()


async def denies(folder: Path, port: int, tls: dict[str, Any] | None, *, start_s: float = 60) -> bool:
    """Whether a host that connects like that gets the plugin's denial."""
    path = folder / "host.yaml"
    grpc = {"target": f"localhost:{port}", **({"tls": tls} if tls is not None else {})}
    entry = {"name": NAME, "kind": "external", "grpc": grpc, "initialize_timeout_s": start_s}
    path.write_text(yaml.safe_dump({"plugin_dirs": [str(PLUGINS)], "plugins": [entry]}), encoding="utf-8")
    manager = TenantPluginManager(str(path))
    await manager.initialize()
    try:
        payload = ToolPreInvokePayload(name="deny", args={})
        result, _ = await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id="r"))
    finally:
        await manager.shutdown()
    return not result.continue_processing


async def test_both_ends_show_certificates(authority: Authority, tmp_path: Path) -> None:
    tls = {**authority.pair("localhost"), "ca_bundle": authority.bundle(), "client_auth": "require"}
    async with serving(tmp_path, tls) as port:
        assert await denies(tmp_path, port, {"ca_bundle": authority.bundle(), **authority.pair("host.example")})


async def test_a_server_may_ask_for_no_certificate(authority: Authority, tmp_path: Path) -> None:
    async with serving(tmp_path, {**authority.pair("localhost"), "client_auth": "none"}) as port:
        assert await denies(tmp_path, port, {"ca_bundle": authority.bundle()})


@pytest.mark.conformance("E4")
async def test_an_encrypted_key_is_opened_with_its_password(authority: Authority, tmp_path: Path) -> None:
    pair = authority.pair("localhost")
    key = serialization.load_pem_private_key(Path(pair["keyfile"]).read_bytes(), None)
    closed = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"hunter2"),
    )
    path = tmp_path / "closed.key"
    path.write_bytes(closed)
    tls = {**pair, "keyfile": str(path), "keyfile_password": "hunter2", "client_auth": "none"}
    async with serving(tmp_path, tls) as port:
        assert await denies(tmp_path, port, {"ca_bundle": authority.bundle()})


@pytest.mark.parametrize("wrong", ["authority", "host name", "no client certificate", "strange client", "clear text"])
async def test_whoever_shows_the_wrong_papers_gets_no_answer(
    wrong: str, authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    name = "elsewhere.example" if wrong == "host name" else "localhost"
    server = {**authority.pair(name), "ca_bundle": authority.bundle(), "client_auth": "require"}
    client: dict[str, Any] | None = {"ca_bundle": authority.bundle(), **authority.pair("host.example")}
    if wrong == "authority":
        client = {**(client or {}), "ca_bundle": stranger.bundle()}
    elif wrong == "no client certificate":
        client = {"ca_bundle": authority.bundle()}
    elif wrong == "strange client":
        client = {"ca_bundle": authority.bundle(), **stranger.pair("host.example")}
    elif wrong == "clear text":
        client = None
    async with serving(tmp_path, server) as port:
        with pytest.raises(PluginLoadError, match="Plugin initialization failed: contract"):
            await denies(tmp_path, port, client, start_s=4)


@pytest.mark.parametrize(
    ("tls", "text"),
    [
        ({"certfile": "A"}, "certfile and keyfile are both required"),
        ({}, "certfile and keyfile are both required"),
        ({"certfile": "A", "keyfile": "B", "client_auth": "optional"}, "without demanding it"),
        ({"certfile": "A", "keyfile": "B"}, "there is no ca_bundle to judge clients by"),
        ({"certfile": "A", "keyfile": "closed"}, "the key is encrypted; give its keyfile_password"),
    ],
)
async def test_a_server_with_half_a_tls_section_does_not_start(
    tls: dict[str, str], text: str, authority: Authority, tmp_path: Path
) -> None:
    pair = authority.pair("localhost")
    closed = tmp_path / "closed.key"
    closed.write_text("-----BEGIN ENCRYPTED PRIVATE KEY-----\n", encoding="utf-8")
    files = {"A": pair["certfile"], "B": pair["keyfile"], "closed": str(closed)}
    settings = {"port": free_port(), "tls": {key: files.get(value, value) for key, value in tls.items()}}
    config = server_config(tmp_path, {}, grpc_server_settings=settings)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "cpex.framework.external.grpc.server.runtime",
        "-c",
        str(config),
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(60):
        _, stderr = await child.communicate()
    assert child.returncode == 1
    assert text in stderr.decode()
    assert "Traceback" not in stderr.decode()


@pytest.mark.conformance("E4")
async def test_a_host_opens_its_encrypted_key_or_says_what_is_missing(authority: Authority, tmp_path: Path) -> None:
    pair = authority.pair("host.example")
    key = serialization.load_pem_private_key(Path(pair["keyfile"]).read_bytes(), None)
    closed = tmp_path / "closed.key"
    password = serialization.BestAvailableEncryption(b"hunter2")
    closed.write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, password))
    client = {"ca_bundle": authority.bundle(), "certfile": pair["certfile"]}
    server = {**authority.pair("localhost"), "ca_bundle": authority.bundle(), "client_auth": "require"}
    async with serving(tmp_path, server) as port:
        assert await denies(tmp_path, port, {**client, "keyfile": str(closed), "keyfile_password": "hunter2"})
        for half, text in (
            ({**client, "keyfile": str(closed)}, "the key is encrypted; give its keyfile_password"),
            (client, "certfile and keyfile are both required"),
        ):
            with pytest.raises(PluginLoadError, match=text):
                await denies(tmp_path, port, half)


@pytest.mark.conformance("E4")
async def test_a_host_that_wants_no_verification_is_told_that_there_is_none_such(
    authority: Authority, tmp_path: Path
) -> None:
    with pytest.raises(PluginLoadError, match="gRPC always verifies its server"):
        await denies(tmp_path, 1, {"ca_bundle": authority.bundle(), "verify": False})


@pytest.mark.conformance("E10.grpc")
@pytest.mark.parametrize("name", ["plugins.example", "elsewhere.example"])
async def test_a_server_found_by_its_name_must_show_a_certificate_of_that_name(
    name: str, authority: Authority, tmp_path: Path
) -> None:
    """The channel is made to the address that was judged; the certificate is held to the name all the same."""
    async with serving(tmp_path, {**authority.pair(name), "client_auth": "none"}) as port:
        tls = GRPCClientTLSConfig(ca_bundle=authority.bundle())
        target, options = _pinned("plugins.example", port, ["127.0.0.1"], 0)
        channel = create_secure_channel(target, tls, "p", options)
        async with channel, asyncio.timeout(60):
            asked = PluginServiceStub(channel).GetPluginConfig(messages.GetPluginConfigRequest(name=NAME), timeout=60)
            if name == "plugins.example":
                assert (await asked).found
            else:
                with pytest.raises(grpc.aio.AioRpcError):
                    await asked
