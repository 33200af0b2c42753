"""What becomes of a question that gets no answer: both adapters, against servers that misbehave."""

from __future__ import annotations

import asyncio
import logging
import pickle
import re
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from certificates import self_signed
from pdp_servers import Engine, PdpServer, Reply, as_json, running
from ports import free_port
from support import of_ours

from cpex.framework.models.tls import MCPClientTLSConfig
from cpex.framework.pdp import AuthZenResolver, OpaResolver, PdpError
from cpex.framework.pdp.http import HttpResolver

Serve = Callable[[Engine], PdpServer]
LONG_MS = 60_000


@pytest.fixture(params=[OpaResolver, AuthZenResolver], ids=["opa", "authzen"])
def adapter(request: pytest.FixtureRequest) -> type[HttpResolver]:
    cls: type[HttpResolver] = request.param
    return cls


def yes(path: str, body: Any) -> Reply:
    return as_json({"result": True, "decision": True})


async def outcome(resolver: HttpResolver, facts: dict[str, Any] | None = None) -> PdpError:
    """The error of a question; the same resolver, told to fail open, lets it pass and says so."""
    try:
        with pytest.raises(PdpError) as caught:
            await resolver.resolve({} if facts is None else facts)
    finally:
        await resolver.close()
    assert caught.value.endpoint == resolver.endpoint
    return caught.value


BAD_REPLIES = [
    (Reply(b"{}", 500), "HTTP 500", "HTTP 500"),
    (Reply(b'{"result": true, "decision": true}', 403), "HTTP 403", "HTTP 403"),
    (Reply(b"", 204), "bad response: its body is not JSON", "bad response"),
    (Reply(b"<html>"), "bad response: its body is not JSON", "bad response"),
    (Reply(b"\xff\xfe"), "bad response: its body is not JSON", "bad response"),
    (Reply(b"[" * 100_000), "bad response: its body is not JSON", "bad response"),
    (Reply(b"true"), "bad response: its body is not a JSON object", "bad response"),
    (Reply(b" " * 1_000_001), "bad response: it is larger than 1,000,000 bytes", "bad response"),
]


@pytest.mark.parametrize(("reply", "text", "short"), BAD_REPLIES)
@pytest.mark.conformance("P4")
async def test_an_answer_that_is_none_is_an_error_or_let_pass_aloud(
    serve: Serve, adapter: type[HttpResolver], caplog: pytest.LogCaptureFixture, reply: Reply, text: str, short: str
) -> None:
    url = f"{serve(lambda path, body: reply).url}/x?key=secret"
    error = await outcome(adapter(url, LONG_MS))
    assert str(error) == f"{adapter.PREFIX} {text} ({url.partition('?')[0]})"
    assert of_ours(caplog.records) == []
    resolver = adapter(url, LONG_MS, fail_open=True)
    result = await resolver.resolve({})
    await resolver.close()
    assert (result.allowed, result.reason) == (True, f"{adapter.PREFIX} {short}, fail-open")
    (record,) = of_ours(caplog.records)
    assert record.levelno == logging.WARNING
    assert text in record.getMessage()
    assert "secret" not in record.getMessage()


async def test_a_redirect_is_not_followed(serve: Serve, adapter: type[HttpResolver]) -> None:
    other = serve(yes)
    server = serve(lambda path, body: Reply(b"", 307, {"Location": f"{other.url}/elsewhere"}))
    assert "HTTP 307" in str(await outcome(adapter(f"{server.url}/x", LONG_MS)))
    assert other.asked == []


async def test_a_server_that_hangs_is_left_at_the_deadline(serve: Serve, adapter: type[HttpResolver]) -> None:
    server = serve(yes)
    server.misbehave.append(server.hang)
    error = await outcome(adapter(f"{server.url}/x", 50))
    assert str(error).startswith(f"{adapter.PREFIX} timeout after 50ms (")
    assert error.cause is error.__cause__ is not None


@pytest.mark.conformance("P4")
async def test_a_server_that_sends_byte_after_byte_is_left_at_the_same_deadline(
    serve: Serve, adapter: type[HttpResolver]
) -> None:
    server = serve(lambda path, body: Reply(drip=True))
    assert "timeout after 200ms" in str(await outcome(adapter(f"{server.url}/x", 200)))


async def test_a_timeout_may_be_let_pass(serve: Serve, adapter: type[HttpResolver]) -> None:
    server = serve(yes)
    server.misbehave.append(server.hang)
    resolver = adapter(f"{server.url}/x", 50, fail_open=True)
    assert (await resolver.resolve({})).reason == f"{adapter.PREFIX} timeout, fail-open"
    await resolver.close()


async def test_a_refused_connection_is_an_error_or_let_pass(adapter: type[HttpResolver]) -> None:
    url = f"http://localhost:{free_port()}/x"
    error = await outcome(adapter(url, LONG_MS))
    assert str(error).startswith(f"{adapter.PREFIX} connection error: ")
    resolver = adapter(url, LONG_MS, fail_open=True)
    assert (await resolver.resolve({})).reason == f"{adapter.PREFIX} unreachable, fail-open"
    await resolver.close()


async def test_a_connection_that_is_dropped_is_tried_again_as_often_as_configured(
    serve: Serve, adapter: type[HttpResolver]
) -> None:
    server = serve(yes)
    server.misbehave += [server.drop, server.drop, server.drop]
    assert "connection error" in str(await outcome(adapter(f"{server.url}/x", LONG_MS, retries=1)))
    assert len(server.asked) == 2
    resolver = adapter(f"{server.url}/x", LONG_MS, retries=1)
    assert (await resolver.resolve({})).allowed
    await resolver.close()
    assert len(server.asked) == 4


async def test_a_status_is_an_answer_and_not_tried_again(serve: Serve, adapter: type[HttpResolver]) -> None:
    server = serve(lambda path, body: Reply(status=503))
    await outcome(adapter(f"{server.url}/x", LONG_MS, retries=3))
    assert len(server.asked) == 1


async def test_cancellation_reaches_the_caller_and_leaves_no_task(serve: Serve, adapter: type[HttpResolver]) -> None:
    server = serve(yes)
    server.misbehave.append(server.hang)
    resolver = adapter(f"{server.url}/x", LONG_MS, fail_open=True)
    task = asyncio.create_task(resolver.resolve({}))
    assert await asyncio.to_thread(server.arrived.wait, 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await resolver.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_closed_resolver_opens_again_and_may_be_closed_twice(serve: Serve, adapter: type[HttpResolver]) -> None:
    resolver = adapter(f"{serve(yes).url}/x", LONG_MS)
    for _ in range(2):
        assert (await resolver.resolve({})).allowed
        await resolver.close()
        await resolver.close()


class Endless(dict[str, Any]):
    def __init__(self) -> None:
        self["self"] = self


@pytest.mark.parametrize(
    "facts", [{"x": {1, 2}}, {"x": float("nan")}, {"x": object()}, Endless()], ids=["set", "nan", "object", "itself"]
)
@pytest.mark.conformance("P4")
async def test_facts_that_are_no_json_are_bad_input(
    serve: Serve, adapter: type[HttpResolver], facts: dict[str, Any]
) -> None:
    server = serve(yes)
    error = await outcome(adapter(f"{server.url}/x", LONG_MS), facts)
    assert str(error).startswith(f"{adapter.PREFIX} bad input: ")
    assert server.asked == []
    resolver = adapter(f"{server.url}/x", LONG_MS, fail_open=True)
    assert (await resolver.resolve(facts)).reason == f"{adapter.PREFIX} bad input, fail-open"


async def test_an_unknown_authority_is_refused_and_a_given_one_is_believed(
    tmp_path: Path, adapter: type[HttpResolver]
) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with running(yes, context) as server:
        error = await outcome(adapter(f"{server.url}/x", LONG_MS))
        assert "certificate verify failed" in str(error)
        for tls in (MCPClientTLSConfig(ca_bundle=certificate), MCPClientTLSConfig(verify=False)):
            resolver = adapter(f"{server.url}/x", LONG_MS, tls=tls)
            assert (await resolver.resolve({})).allowed
            await resolver.close()


async def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificate)
    with running(yes, context) as server:
        error = await outcome(OpaResolver(f"{server.url}/x", LONG_MS, tls=MCPClientTLSConfig(ca_bundle=certificate)))
        # A server that refuses its client need not say why; the text then tells at least what was seen.
        assert re.search(r"connection error: \S", str(error))
        tls = MCPClientTLSConfig(ca_bundle=certificate, certfile=certificate, keyfile=key)
        resolver = OpaResolver(f"{server.url}/x", LONG_MS, tls=tls)
        assert (await resolver.resolve({})).allowed
        await resolver.close()


async def test_certificates_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("nothing")
    resolver = OpaResolver("https://localhost:1/x", tls=MCPClientTLSConfig(ca_bundle=str(broken)))
    with pytest.raises(ValueError, match="the certificates of `tls` cannot be used"):
        await resolver.resolve({})


def test_an_error_can_be_sent_to_another_process() -> None:
    error = pickle.loads(pickle.dumps(PdpError("OPA HTTP 500", "http://x", ValueError("x"))))
    assert (str(error), error.endpoint, type(error.cause)) == ("OPA HTTP 500", "http://x", ValueError)
