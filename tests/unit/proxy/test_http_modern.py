"""Clients over HTTP without sessions, with a server in the place of the whole proxy: who hears what, and until when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from cpex.proxy import http_modern
from cpex.proxy.http_modern import ModernClients
from cpex.proxy.port import Connection, Message

VERSION = "2026-07-28"
TIMEOUT_S = 120


class Server:
    """What a session of the proxy would be: it says what the test wants said, request by request."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[Message] = asyncio.Queue()
        self.sessions = 0
        self.over = asyncio.Event()
        self.clients: Connection

    async def run(self, clients: Connection, over: Callable[[], None]) -> None:
        self.sessions += 1
        self.clients = clients
        while (message := await clients.receive()) is not None:
            await self.asked.put(message)
        over()
        self.over.set()

    async def say(self, **message: Any) -> None:
        await self.clients.send({"jsonrpc": "2.0", **message}, about=1)


@asynccontextmanager
async def serving() -> AsyncIterator[tuple[Server, httpx2.AsyncClient]]:
    server = Server()
    clients = ModernClients(None, server.run)
    transport = httpx2.ASGITransport(app=clients)
    async with asyncio.timeout(TIMEOUT_S), httpx2.AsyncClient(transport=transport, base_url="http://here") as http:
        yield server, http
        await clients.close()


def ask(
    http: httpx2.AsyncClient, method: str = "tools/list", token: int | None = None
) -> asyncio.Task[httpx2.Response]:
    meta = {"protocolVersion": VERSION, "clientCapabilities": {}}
    params: dict[str, Any] = {"_meta": {f"io.modelcontextprotocol/{name}": value for name, value in meta.items()}}
    if token is not None:
        params["_meta"]["progressToken"] = token
    headers = {
        "accept": "application/json, text/event-stream",
        "mcp-protocol-version": VERSION,
        "mcp-method": method,
    }
    body = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    return asyncio.create_task(http.post("/mcp", json=body, headers=headers))


async def test_every_request_has_names_of_its_own_behind_and_its_clients_names_before() -> None:
    async with serving() as (server, http):
        first, second = ask(http, token=1), ask(http, token=1)
        one, other = await server.asked.get(), await server.asked.get()
        assert one["id"] != other["id"]
        tokens = [each["params"]["_meta"]["progressToken"] for each in (one, other)]
        assert tokens == [one["id"], other["id"]]
        await server.say(method="notifications/progress", params={"progressToken": tokens[1], "progress": 1})
        await server.say(id=other["id"], result={"which": "other"})
        await server.say(id=one["id"], result={"which": "one"})
        assert (await first).json() == {"jsonrpc": "2.0", "id": 7, "result": {"which": "one"}}
        streamed = (await second).text
        assert '"progressToken":1,' in streamed
        assert '"which":"other"' in streamed
        assert '"id":7' in streamed


async def test_what_a_server_says_for_nobody_in_particular_reaches_nobody() -> None:
    async with serving() as (server, http):
        asked = ask(http)
        id = (await server.asked.get())["id"]
        await server.say(method="notifications/message", params={"level": "info", "data": "of somebody else"})
        await server.say(method="notifications/progress", params={"progressToken": id + 1, "progress": 1})
        await server.say(method="notifications/tools/list_changed")
        await server.say(id=id, result={})
        assert (await asked).json()["result"] == {}


async def test_a_server_that_asks_clients_is_told_that_there_are_none() -> None:
    async with serving() as (server, http):
        asked = ask(http)
        id = (await server.asked.get())["id"]
        await server.say(id=99, method="sampling/createMessage", params={})
        refused = await server.asked.get()
        assert (refused["id"], refused["error"]["code"]) == (99, -32601)
        await server.say(id=id, result={})
        assert (await asked).status_code == 200


async def test_a_request_whose_messages_are_not_read_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    # The bound is no setting; at its size the test would have to say a thousand things.
    monkeypatch.setattr(http_modern, "_UNREAD", 0)
    async with serving() as (server, http):
        asked = ask(http, token=1)
        id = (await server.asked.get())["id"]
        await server.say(method="notifications/progress", params={"progressToken": id, "progress": 1})
        assert "were not read; it was ended" in (await asked).text
        assert (await server.asked.get())["params"] == {"requestId": id}
        # Too late for anybody.
        await server.say(id=id, result={})


async def test_a_silent_response_shows_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    # Time that is always up, in place of seconds that the test would wait.
    monkeypatch.setattr(http_modern, "PING_S", 0.0)
    async with serving() as (server, http):
        asked = ask(http)
        id = (await server.asked.get())["id"]
        for _ in range(20):
            # Turns of the loop, in which the response notices that its time is up.
            await asyncio.sleep(0)
        await server.say(id=id, result={})
        assert (await asked).text.startswith(": ping\r\n\r\n")


async def test_the_server_is_let_go_when_nobody_asks_and_connected_to_again_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # As above, in place of half an hour.
    monkeypatch.setattr(http_modern, "IDLE_S", 0.0)
    async with serving() as (server, http):
        for number in (1, 2):
            asked = ask(http)
            id = (await server.asked.get())["id"]
            await server.say(id=id, result={})
            assert (await asked).json()["result"] == {}
            await server.over.wait()
            server.over.clear()
            assert server.sessions == number


async def test_an_old_server_is_asked_once_whether_it_can_do_without_a_handshake() -> None:
    async with serving() as (server, http):
        asked = ask(http, "server/discover")
        id = (await server.asked.get())["id"]
        await server.say(id=id, error={"code": -32601, "message": "what?"})
        assert (await asked).status_code == 404
        await server.over.wait()
        again = await ask(http, "server/discover")
        assert again.json() == {"jsonrpc": "2.0", "id": 7, "error": {"code": -32601, "message": "what?"}}
        assert server.sessions == 1


async def test_who_waits_when_the_server_ends_is_told_so() -> None:
    async with serving() as (server, http):
        asked = ask(http)
        await server.asked.get()
        clients: Any = server.clients
        clients._incoming.put_nowait(None)
        assert (await asked).json()["error"]["message"] == "the connection to the server has ended; ask again"
