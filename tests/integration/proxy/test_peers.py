"""Peers that cancel, hang, are killed or leave in the middle of a call, over every way to and from the proxy."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from integration.proxy.servers import TIMEOUT_S, client_of, plugins, raw_client
from integration.proxy.test_everything import outcome
from integration.proxy.test_http import BREAKING, listening, running, session_at
from integration.proxy.test_lists import CATALOGUE, behind, catalogue_over_http
from mcp import ClientSession
from ports import free_port

WAYS = [(front, back) for front in ("pipes", "http") for back in ("pipes", "http")]
ACCEPT = {"accept": "application/json, text/event-stream"}
HELLO = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "raw", "version": "1"}}


@asynccontextmanager
async def session_through(front: str, back: str, folder: Path, *options: str) -> AsyncIterator[ClientSession]:
    """A client's session with a catalogue behind the proxy."""
    async with asyncio.timeout(TIMEOUT_S), AsyncExitStack() as stack:
        server = ["--", *CATALOGUE, "pipes"]
        if back == "http":
            server = ["--url", await stack.enter_async_context(catalogue_over_http())]
        if front == "pipes":
            yield await stack.enter_async_context(client_of(behind([*options, *server], plugins(folder))))
            return
        port = free_port()
        command = listening(plugins(folder), *options, *server, port=port)
        await stack.enter_async_context(running(command, "The proxy listens"))
        yield await stack.enter_async_context(session_at(f"http://127.0.0.1:{port}/mcp"))


async def heard(session: ClientSession, **args: int) -> str:
    """What the server knows of hanging calls, once there are as many."""
    return (await session.call_tool("heard", args)).content[0].text


@pytest.mark.parametrize(("front", "back"), WAYS)
async def test_a_server_hears_that_its_client_has_cancelled(front: str, back: str, tmp_path: Path) -> None:
    async with session_through(front, back, tmp_path) as session:
        call = asyncio.create_task(session.call_tool("hang", {}))
        assert await heard(session, begun=1) == "1 begun, 0 ended"
        call.cancel()
        assert await heard(session, ended=1) == "1 begun, 1 ended"
        with pytest.raises(asyncio.CancelledError):
            await call
        assert (await session.call_tool("tool-01", {})).content[0].text == "one: tool-01"


@pytest.mark.parametrize(("front", "back"), WAYS)
async def test_a_call_that_takes_too_long_is_ended_at_both_ends(front: str, back: str, tmp_path: Path) -> None:
    async with session_through(front, back, tmp_path, "--timeout", "0.5") as session:
        begun = ended = 0
        # On a busy machine time may be up before the server has begun a call, and for questions about it as well.
        while not begun or ended < begun:
            if not begun:
                error = await outcome(session.call_tool("hang", {}))
                assert (error["code"], error["message"]) == (
                    -32001,
                    "server `server` did not answer `tools/call` within 0.5s; it was told to stop",
                )
            counted = await outcome(session.call_tool("heard", {}))
            if "content" in counted:
                begun, ended = map(int, re.findall(r"\d+", counted["content"][0]["text"]))


async def test_a_server_that_takes_nothing_any_more_holds_nobody_up(tmp_path: Path) -> None:
    port = free_port()
    async with running([*CATALOGUE, "http", str(port)], "Uvicorn running") as server:
        command = behind(["--timeout", "0.3", "--url", f"http://localhost:{port}/mcp"], plugins(tmp_path))
        async with raw_client(command) as client:
            await client.shake_hands()
            server.send_signal(signal.SIGSTOP)
            try:
                asked = [client.ask(number, "tools/call", name="tool-01") for number in range(3)]
                answers = [await each for each in asked]
                assert [answer["error"]["code"] for answer in answers] == [-32001] * 3
            finally:
                server.send_signal(signal.SIGCONT)
            assert await client.leave() == 0


async def test_a_child_that_is_killed_in_the_middle_of_a_call_is_told_of(tmp_path: Path) -> None:
    async with raw_client(behind(["--", *CATALOGUE, "pipes"], plugins(tmp_path))) as client:
        await client.shake_hands()
        error = (await client.ask(1, "tools/call", name="die"))["error"]
        assert error["code"] == -32000
        assert "was killed by SIGKILL" in error["message"]
        async with asyncio.timeout(TIMEOUT_S):
            assert await client.process.wait() == 1


async def test_a_server_that_is_killed_in_the_middle_of_a_call_is_told_of(tmp_path: Path) -> None:
    port = free_port()
    url = f"http://localhost:{port}/mcp"
    async with raw_client(behind(["--url", url], plugins(tmp_path))) as client:
        async with running([*CATALOGUE, "http", str(port)], "Uvicorn running") as server:
            await client.shake_hands()
            await client.send({"id": 1, "method": "tools/call", "params": {"name": "hang"}})
            await client.ask(2, "tools/call", name="heard", arguments={"begun": 1})
            server.kill()
            error = (await client.answer())["error"]
            assert error == {"code": -32000, "message": f"the connection to {url} was lost before the answer"}
        error = (await client.ask(3, "tools/call", name="tool-01"))["error"]
        assert error["message"].startswith(f"cannot reach {url}: ")
        async with running([*CATALOGUE, "http", str(port)], "Uvicorn running"):
            # What the client and the server had agreed on is gone with the first one.
            error = (await client.ask(4, "tools/call", name="tool-01"))["error"]
            assert error["message"] == (
                f"server `server`: {url} knows the session no more: it was started anew, or has ended it"
            )
            async with asyncio.timeout(TIMEOUT_S):
                assert await client.process.wait() == 1


class Posting:
    """A client over HTTP that may leave whenever it likes."""

    def __init__(self, url: str, client: httpx2.AsyncClient) -> None:
        self.url, self.client = url, client
        self.headers = dict(ACCEPT)

    async def begin(self) -> None:
        answer = await self.post({"id": 0, "method": "initialize", "params": HELLO})
        self.headers["mcp-session-id"] = answer.headers["mcp-session-id"]
        await self.post({"method": "notifications/initialized"})

    async def post(self, message: dict[str, Any]) -> httpx2.Response:
        return await self.client.post(self.url, json={"jsonrpc": "2.0"} | message, headers=self.headers)

    async def call(self, name: str, **args: Any) -> str:
        params = {"name": name, "arguments": args}
        return (await self.post({"id": 2, "method": "tools/call", "params": params})).text

    async def leave_in_the_middle(self) -> None:
        """Close the connection while a call is under way."""
        params = {"name": "hang", "arguments": {}}
        message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
        async with self.client.stream("POST", self.url, json=message, headers=self.headers) as response:
            assert response.status_code == 200

    async def end(self) -> int:
        return (await self.client.delete(self.url, headers=self.headers)).status_code


async def test_a_client_over_http_begins_anew_after_its_server_did(tmp_path: Path) -> None:
    port, back = free_port(), free_port()
    command = listening(plugins(tmp_path), "--url", f"http://localhost:{back}/mcp", port=port)
    async with (
        asyncio.timeout(TIMEOUT_S),
        running(command, "The proxy listens"),
        httpx2.AsyncClient(timeout=TIMEOUT_S) as http,
    ):
        client = Posting(f"http://127.0.0.1:{port}/mcp", http)
        async with running([*CATALOGUE, "http", str(back)], "Uvicorn running"):
            await client.begin()
            assert "one: tool-01" in await client.call("tool-01")
        async with running([*CATALOGUE, "http", str(back)], "Uvicorn running"):
            assert "knows the session no more" in await client.call("tool-01")
            # So the protocol tells clients that they are to begin anew.
            assert (await client.post({"id": 3, "method": "ping"})).status_code == 404
            del client.headers["mcp-session-id"]
            await client.begin()
            assert "one: tool-01" in await client.call("tool-01")


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


@pytest.mark.skipif(sys.platform != "linux", reason="counts open files and children in /proc")
@pytest.mark.parametrize("back", ["pipes", "http"])
async def test_clients_that_leave_in_the_middle_leave_nothing_behind(back: str, tmp_path: Path) -> None:
    port = free_port()
    async with AsyncExitStack() as stack:
        server = ["--", *CATALOGUE, "pipes"]
        if back == "http":
            server = ["--url", await stack.enter_async_context(catalogue_over_http())]
        proxy = await stack.enter_async_context(
            running(listening(plugins(tmp_path), *server, port=port), "The proxy listens")
        )
        observer = await stack.enter_async_context(httpx2.AsyncClient(timeout=TIMEOUT_S))
        await observer.get(f"http://127.0.0.1:{port}/")
        open_before = descriptors(proxy.pid)
        for number in range(3):
            async with asyncio.timeout(TIMEOUT_S), httpx2.AsyncClient(timeout=TIMEOUT_S) as http:
                client = Posting(f"http://127.0.0.1:{port}/mcp", http)
                await client.begin()
                await client.leave_in_the_middle()
                begun = number + 1 if back == "http" else 1
                # Closing a stream is no cancellation, says the protocol of these versions: the call goes on.
                assert f"{begun} begun, {begun - 1} ended" in await client.call("heard", begun=begun)
                assert await client.end() == 200
                assert await client.end() == 404
        async with asyncio.timeout(TIMEOUT_S):
            while descriptors(proxy.pid) > open_before or children(proxy.pid):
                # Each answer is a turn of the proxy's loop, in which it notices connections that were closed.
                await observer.get(f"http://127.0.0.1:{port}/")
        if back == "http":
            async with session_at(server[-1]) as session:
                assert await heard(session, ended=3) == "3 begun, 3 ended"


async def test_a_call_over_http_that_nobody_would_answer_does_not_reach_the_server(tmp_path: Path) -> None:
    port = free_port()
    command = listening(plugins(tmp_path), "--", *BREAKING, port=port)
    async with (
        asyncio.timeout(TIMEOUT_S),
        running(command, "The proxy listens"),
        httpx2.AsyncClient(timeout=TIMEOUT_S) as http,
    ):
        client = Posting(f"http://127.0.0.1:{port}/mcp", http)
        await client.begin()
        for id in ({}, {"id": None}, {"id": 1.5}, {"id": True}, {"id": [1]}):
            await client.post({**id, "method": "tools/call", "params": {"name": "forbidden", "arguments": {}}})
        heard = await client.call("heard")
        assert "notifications/initialized" in heard
        assert "forbidden" not in heard
        assert await client.end() == 200


async def test_what_a_server_says_that_is_no_message_holds_up_no_client_over_http(tmp_path: Path) -> None:
    port = free_port()
    said = [
        {"method": 5},
        {"method": "notifications/message", "params": "text"},
        {"method": "notifications/message", "params": {"level": "info", "data": "fine"}},
        # The second thing that it is asked, after the handshake.
        {"id": 2, "error": {"code": "E", "message": ["not", "found"]}},
    ]
    command = listening(plugins(tmp_path), "--", *BREAKING, port=port)
    async with (
        asyncio.timeout(TIMEOUT_S),
        running(command, "The proxy listens"),
        httpx2.AsyncClient(timeout=TIMEOUT_S) as http,
    ):
        client = Posting(f"http://127.0.0.1:{port}/mcp", http)
        await client.begin()
        answer = await client.call("says", messages=said)
        assert '"data":"fine"' in answer
        assert """{"code":-32603,"message":"['not', 'found']"}""" in answer
        # The SDK's transport, which takes no halves of characters, would write nothing at all.
        assert "cut \ufffd" in await client.call("half")
        assert await client.end() == 200
