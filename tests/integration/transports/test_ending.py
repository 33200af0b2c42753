"""Stopping the web server that plugin servers and the proxy share: calls have their time, streams end in order."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from sse_starlette import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from cpex.framework.external.mcp.server import web
from cpex.framework.models.transport import MCPServerConfig

LIMIT_S = 60
"""A bound for what ends by itself, also on a busy machine."""


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds that no machine is too busy for. They are not settings; two tests have calls wait for their end."""
    monkeypatch.setattr(web, "GRACE_S", LIMIT_S)
    monkeypatch.setattr(web, "LEAVING_S", LIMIT_S)


class Site:
    """An application with calls that are answered when they are let, and a stream that never ends by itself."""

    def __init__(self) -> None:
        self.called, self.let = asyncio.Event(), asyncio.Event()
        self.ended: list[str] = []

    async def call(self, request: Request) -> Response:
        self.called.set()
        await self.let.wait()
        self.ended.append("call")
        return PlainTextResponse("answered")

    async def streamed_call(self, request: Request) -> Response:
        return EventSourceResponse(self._never(), ping=10 * LIMIT_S)

    async def stream(self, request: Request) -> Response:
        return EventSourceResponse(self._never(), ping=10 * LIMIT_S)

    async def _never(self) -> AsyncIterator[str]:
        try:
            yield "first"
            await asyncio.Event().wait()
        finally:
            self.ended.append("stream")

    @asynccontextmanager
    async def served(self) -> AsyncIterator[tuple[httpx2.AsyncClient, asyncio.Task[None]]]:
        """A client of it, and the task that serves."""
        routes = [
            Route("/", self.call, methods=["POST"]),
            Route("/streamed", self.streamed_call, methods=["POST"]),
            Route("/", self.stream, methods=["GET"]),
        ]
        async with asyncio.timeout(LIMIT_S):
            with web.listening(MCPServerConfig(host="127.0.0.1", port=0)) as listener:
                # Whoever connects before the web server has started waits for it.
                listener.listen()
                url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                serving = asyncio.create_task(web.run_servers([web.made_server(Starlette(routes=routes), listener)]))
                try:
                    async with httpx2.AsyncClient(base_url=url, timeout=LIMIT_S) as http:
                        yield http, serving
                finally:
                    serving.cancel()
                    await asyncio.wait([serving])


async def read_to_its_end(http: httpx2.AsyncClient, method: str, path: str, begun: asyncio.Event) -> str:
    """All of a stream; raises when it is cut off."""
    async with http.stream(method, path) as response:
        text = ""
        async for part in response.aiter_text():
            text += part
            begun.set()
        return text


def errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Of the web server and of ours: others may have something to say of what went before."""
    told = [record for record in caplog.records if record.name.partition(".")[0] in ("cpex", "uvicorn")]
    return [record.getMessage() for record in told if record.levelname == "ERROR"]


async def test_a_stopped_server_answers_its_calls_and_then_ends_its_streams(caplog: pytest.LogCaptureFixture) -> None:
    site = Site()
    async with site.served() as (http, serving):
        begun = asyncio.Event()
        stream = asyncio.create_task(read_to_its_end(http, "GET", "/", begun))
        call = asyncio.create_task(http.post("/"))
        await begun.wait()
        await site.called.wait()
        serving.cancel()
        site.let.set()
        assert (await call).text == "answered"
        assert (await stream).strip() == "data: first"
        await asyncio.wait([serving])
    assert site.ended == ["call", "stream"]
    assert errors(caplog) == []


async def test_calls_that_take_longer_than_their_time_are_ended_in_order_and_told_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(web, "GRACE_S", 0.05)
    site = Site()
    async with site.served() as (http, serving):
        begun = asyncio.Event()
        streamed = asyncio.create_task(read_to_its_end(http, "POST", "/streamed", begun))
        await begun.wait()
        serving.cancel()
        assert (await streamed).strip() == "data: first"
        await asyncio.wait([serving])
    assert "Stopped with 1 calls under way that had not ended within 0.05 s" in caplog.text
    assert errors(caplog) == []


async def test_a_call_that_has_not_begun_to_answer_gets_503_when_its_time_is_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(web, "GRACE_S", 0.05)
    called = asyncio.Event()

    async def waits_for_its_client(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            return
        called.set()
        while (await receive())["type"] != "http.disconnect":
            pass

    async with asyncio.timeout(LIMIT_S):
        with web.listening(MCPServerConfig(host="127.0.0.1", port=0)) as listener:
            listener.listen()
            serving = asyncio.create_task(web.run_servers([web.made_server(waits_for_its_client, listener)]))
            async with httpx2.AsyncClient(timeout=LIMIT_S) as http:
                call = asyncio.create_task(http.post(f"http://127.0.0.1:{listener.getsockname()[1]}/"))
                await called.wait()
                serving.cancel()
                assert (await call).status_code == 503
            await asyncio.wait([serving])
    assert errors(caplog) == []


@pytest.mark.parametrize("turns", range(6))
async def test_a_connection_that_comes_when_the_server_is_stopped_ends_with_it(turns: int) -> None:
    with web.listening(MCPServerConfig(host="127.0.0.1", port=0)) as listener:
        server, _ = web.made_server(Starlette(), listener)
        async with asyncio.timeout(LIMIT_S):
            serving = asyncio.create_task(server.serve([listener]))
            while not server.started:  # noqa: ASYNC110 - the web server tells nobody
                await asyncio.sleep(0)
            with socket.create_connection(listener.getsockname(), timeout=LIMIT_S) as client:
                for _ in range(turns):
                    await asyncio.sleep(0)
                await server.shutdown([listener])
                try:
                    assert client.recv(1) == b""
                except ConnectionResetError:
                    # It was not accepted any more.
                    pass
            server.stop()
            await serving


async def test_a_server_that_is_started_after_another_was_stopped_still_streams() -> None:
    for _ in range(2):
        site = Site()
        async with site.served() as (http, serving):
            begun = asyncio.Event()
            stream = asyncio.create_task(read_to_its_end(http, "GET", "/", begun))
            await begun.wait()
            assert site.ended == []
            serving.cancel()
            await stream
            # Cancelled once more it would not wait for the web server.
            await asyncio.wait([serving])
