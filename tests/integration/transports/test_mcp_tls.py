"""TLS towards plugin servers over HTTP, with authorities and certificates of the tests' own."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from cryptography.hazmat.primitives import serialization
from integration.transports.hosts import call, host, manager_for
from integration.transports.servers import MCP_RUNTIME, Entry, ServerProcess, answers_at, server_config
from integration.transports.test_mcp_http import failing
from ports import free_port

from cpex.framework.errors import PluginError, PluginLoadError
from cpex.framework.external.mcp.tls_utils import create_ssl_context
from cpex.framework.models.tls import MCPClientTLSConfig


@dataclass(frozen=True)
class Certificates:
    """Files of one authority."""

    folder: Path
    authority: trustme.CA

    @property
    def ca(self) -> str:
        """The authority's own certificate."""
        path = self.folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(path))
        return str(path)

    def made_out_to(self, name: str) -> dict[str, str]:
        """A certificate and its key."""
        issued = self.authority.issue_cert(name)
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        issued.cert_chain_pems[0].write_to_path(str(certificate))
        issued.private_key_pem.write_to_path(str(key))
        return {"certfile": str(certificate), "keyfile": str(key)}


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The authority that both ends trust."""
    return Certificates(tmp_path_factory.mktemp("good"), trustme.CA())


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """One that nobody trusts."""
    return Certificates(tmp_path_factory.mktemp("other"), trustme.CA())


@asynccontextmanager
async def serving(folder: Path, **tls: Any) -> AsyncIterator[int]:
    """A server with TLS; its port."""
    port = free_port()
    config = server_config(folder, {}, server_settings={"port": port, "tls": tls})
    server = ServerProcess(
        MCP_RUNTIME,
        {},
        answers_at(lambda: asyncio.open_connection("127.0.0.1", port)),
        {"PLUGINS_CONFIG_PATH": str(config), "PLUGINS_TRANSPORT": "http"},
    )
    await server.start()
    try:
        yield port
    finally:
        await server.stop()


def entry(port: int, host: str = "localhost", **tls: Any) -> Entry:
    """The host's entry."""
    return {
        "kind": "external",
        "mcp": {"proto": "STREAMABLEHTTP", "url": f"https://{host}:{port}/mcp", "tls": tls},
    }


async def works(folder: Path, entry: Entry) -> bool:
    """Whether a host gets the plugin's answer."""
    async with host(folder, entry) as manager:
        return bool((await call(manager, "deny")).violation.code == "NO")


async def refusal(folder: Path, entry: Entry) -> str:
    """Why the plugin did not start."""
    with pytest.raises(PluginLoadError) as raised:
        await manager_for(folder, entry).initialize()
    return str(raised.value)


@pytest.mark.conformance("E3")
async def test_both_ends_show_a_certificate(tmp_path: Path, good: Certificates, other: Certificates) -> None:
    server = good.made_out_to("localhost")
    async with serving(tmp_path, **server, ca_bundle=good.ca, ssl_cert_reqs=2) as port:
        assert await works(tmp_path, entry(port, ca_bundle=good.ca, **good.made_out_to("host")))
        stranger = other.made_out_to("stranger")
        text = await refusal(tmp_path, entry(port, ca_bundle=good.ca, **stranger))
        assert "connection failed after 3 attempts" in text
        # Probes that have no certificate ask elsewhere.
        reader, writer = await asyncio.open_connection("127.0.0.1", port + 1000)
        writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b'{"status":"healthy"}' in await asyncio.wait_for(reader.read(), 60)
        writer.close()


async def test_without_a_client_certificate_a_server_that_wants_one_answers_nothing(
    tmp_path: Path, good: Certificates
) -> None:
    async with serving(tmp_path, **good.made_out_to("localhost"), ca_bundle=good.ca) as port:
        text = await refusal(tmp_path, entry(port, ca_bundle=good.ca))
    assert "connection failed after 3 attempts" in text
    # Whether the refusal is read as such or as the end of the connection is up to the machine.
    assert "check `certfile` and `keyfile`" in text or "check both ends' certificates" in text
    assert not re.search(r": *(;|\n|$)", text)


@pytest.mark.conformance("E3")
async def test_an_optional_client_certificate_is_optional(tmp_path: Path, good: Certificates) -> None:
    server = good.made_out_to("localhost")
    async with serving(tmp_path, **server, ca_bundle=good.ca, ssl_cert_reqs=1) as port:
        assert await works(tmp_path, entry(port, ca_bundle=good.ca))
        assert await works(tmp_path, entry(port, ca_bundle=good.ca, **good.made_out_to("host")))


async def test_a_server_of_another_authority_or_another_name_is_refused(
    tmp_path: Path, good: Certificates, other: Certificates
) -> None:
    async with serving(tmp_path, **other.made_out_to("localhost"), ssl_cert_reqs=0) as port:
        text = await refusal(tmp_path, entry(port, ca_bundle=good.ca))
        assert "TLS with https://localhost" in text
        assert "certificate" in text
        assert "check `ca_bundle` and the host name" in text
        assert await works(tmp_path, entry(port, ca_bundle=good.ca, verify=False))
    async with serving(tmp_path, **good.made_out_to("plugins.example"), ssl_cert_reqs=0) as port:
        assert "Hostname mismatch" in await refusal(tmp_path, entry(port, ca_bundle=good.ca))
        assert await works(tmp_path, entry(port, ca_bundle=good.ca, check_hostname=False))


@pytest.mark.conformance("E3")
def test_incomplete_tls_starts_no_server(tmp_path: Path, good: Certificates) -> None:
    made = good.made_out_to("localhost")

    def start(**tls: Any) -> str:
        config = server_config(tmp_path, {}, server_settings={"port": free_port(), "tls": tls})
        return failing(config, PLUGINS_TRANSPORT="http")

    assert "TLS needs a certificate and its key" in start(certfile=made["certfile"])
    assert "nothing says whose are trusted" in start(**made)
    assert "ssl_cert_reqs is 0 (none), 1 (optional) or 2 (required), not 5" in start(**made, ssl_cert_reqs=5)
    assert "cannot be used" in start(certfile=made["certfile"], keyfile=good.ca, ssl_cert_reqs=0)
    config = server_config(tmp_path, {})
    text = failing(config, PLUGINS_TRANSPORT="http", PLUGINS_SERVER_SSL_ENABLED="true")
    assert "there is no certificate; set PLUGINS_SERVER_SSL_CERTFILE" in text


def test_a_port_for_health_that_cannot_be_had_is_named(tmp_path: Path, good: Certificates) -> None:
    tls = {**good.made_out_to("localhost"), "ssl_cert_reqs": 0}
    # Outside of what the system gives out, and another one in each process that runs this test.
    port = 64_600 + os.getpid() % 900
    config = server_config(tmp_path, {}, server_settings={"port": port, "tls": tls})
    text = failing(config, PLUGINS_TRANSPORT="http")
    place = f"http://127.0.0.1:{port + 1000}/mcp"
    assert f"cannot listen on {place} for health and metrics: ports go up to 65535; choose" in text


async def test_certificates_beside_a_clear_url_are_a_mistake(tmp_path: Path, good: Certificates) -> None:
    mcp = {"proto": "STREAMABLEHTTP", "url": "http://localhost:1/mcp", "tls": {"ca_bundle": good.ca}}
    text = await refusal(tmp_path, {"kind": "external", "mcp": mcp})
    assert "has a `tls` section, and its URL is not https; write https" in text


async def test_encrypted_keys_are_opened_on_both_ends(tmp_path: Path, good: Certificates) -> None:
    def encrypted(name: str) -> dict[str, str]:
        made = good.made_out_to(name)
        key = serialization.load_pem_private_key(Path(made["keyfile"]).read_bytes(), None)
        locked = tmp_path / f"{name}-locked.key"
        algorithm = serialization.BestAvailableEncryption(b"open sesame")
        form = serialization.PrivateFormat.PKCS8
        locked.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, algorithm))
        return {**made, "keyfile": str(locked), "keyfile_password": "open sesame"}

    async with serving(tmp_path, **encrypted("localhost"), ca_bundle=good.ca) as port:
        assert await works(tmp_path, entry(port, ca_bundle=good.ca, **encrypted("host")))
    wrong = MCPClientTLSConfig(**{**encrypted("host"), "keyfile_password": "guess"})
    with pytest.raises(PluginError, match="Failed to configure SSL context for plugin contract") as raised:
        create_ssl_context(wrong, "contract")
    assert "guess" not in str(raised.value)
