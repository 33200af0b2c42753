"""The versions of the protocol without a handshake, with the SDK's client and server, on every way through."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import mcp_types as types
import pytest
from integration.proxy.servers import TIMEOUT_S, Command, node_server, plugins, proxied, raw_client
from integration.proxy.test_everything import Client as Callbacks
from integration.proxy.test_everything import outcome
from integration.proxy.test_facts import SEEING
from integration.proxy.test_faults import BREAKING
from integration.proxy.test_http import everything_over_http, listening, running
from integration.proxy.test_lists import CATALOGUE, behind, catalogue_over_http
from integration.proxy.test_peers import ACCEPT, WAYS, children
from integration.proxy.test_rewrites import PLUGIN as CHANGING
from integration.proxy.test_rewrites import TYPED
from mcp import StdioServerParameters
from mcp.client import Client
from mcp.server.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp_types.version import LATEST_MODERN_VERSION
from ports import free_port

from cpex.proxy import eras

RULES = """
plugins:
  - name: tools
    kind: security.ToolAllowListPlugin
    mode: sequential
    hooks: [tool_list, tool_pre_invoke]
    config: {denied_tools: [die, "tool-1*"]}
  - name: pii
    kind: privacy.PIIRedactionPlugin
    mode: transform
    hooks: [tool_pre_invoke, tool_post_invoke]
"""


@asynccontextmanager
async def served(front: str, back: str, config: Path, *options: str) -> AsyncIterator[str | StdioServerParameters]:
    """A proxy before a catalogue, as a client names it."""
    async with AsyncExitStack() as stack:
        server = ["--", *CATALOGUE, "pipes"]
        if back == "http":
            server = ["--url", await stack.enter_async_context(catalogue_over_http())]
        if front == "pipes":
            own = behind([*options, *server], config)
            yield StdioServerParameters(command=own[0], args=own[1:])
            return
        port = free_port()
        await stack.enter_async_context(running(listening(config, *options, *server, port=port), "The proxy listens"))
        yield f"http://127.0.0.1:{port}/mcp"


@asynccontextmanager
async def client_at(server: Any, mode: str = LATEST_MODERN_VERSION, **options: Any) -> AsyncIterator[Client]:
    async with asyncio.timeout(TIMEOUT_S), Client(server, mode=mode, **options) as client:
        yield client


def of_pipes(command: Command) -> StdioServerParameters:
    return StdioServerParameters(command=command[0], args=command[1:])


async def everything_of(client: Client) -> list[Any]:
    reports: list[Any] = []

    async def report(progress: float, total: float | None, message: str | None) -> None:
        reports.append((progress, total, message))

    pages, cursor = [], None
    while not pages or cursor is not None:
        page = await client.list_tools(cursor=cursor)
        pages.append(page.model_dump())
        cursor = page.next_cursor
    about: list[Callable[[], Awaitable[Any]]] = [
        lambda: client.session.discover(),
        lambda: client.list_prompts(),
        lambda: client.list_resources(),
        lambda: client.list_resource_templates(),
        lambda: client.call_tool("tool-01", {}),
        lambda: client.call_tool("ask", {}),
        lambda: client.call_tool("routed", {"region": "north"}),
        lambda: client.call_tool("routed", {"region": "S\u00fcd"}),
        lambda: client.call_tool("count", {"to": 3, "whose": "me"}, progress_callback=report),
        lambda: client.get_prompt("prompt-01"),
        lambda: client.read_resource("shelf://one/01"),
    ]
    return [pages, [await outcome(each()) for each in about], reports]


@pytest.mark.parametrize(("front", "back"), WAYS)
async def test_answers_are_those_of_the_server(front: str, back: str, tmp_path: Path) -> None:
    seen, asked = [], []
    async with served(front, back, plugins(tmp_path)) as proxy, catalogue_over_http() as url:
        for server in (url, proxy):
            callbacks = Callbacks()
            async with client_at(server, elicitation_callback=callbacks.elicit) as client:
                assert client.protocol_version == LATEST_MODERN_VERSION
                seen.append(await everything_of(client))
            asked.append(callbacks.told)
    assert seen[1] == seen[0]
    assert asked[1] == asked[0]
    answers, reports = seen[0][1:]
    assert not any("code" in each for each in answers)
    assert [progress for progress, *_ in reports] == [0, 1, 2]
    assert "Ada" in answers[5]["content"][0]["text"]


@pytest.mark.parametrize(("front", "back"), WAYS)
async def test_plugins_decide_as_ever(front: str, back: str, tmp_path: Path) -> None:
    async with served(front, back, plugins(tmp_path, RULES)) as proxy, client_at(proxy) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        assert "tool-09" in names
        assert "die" not in names
        denied = await client.call_tool("die", {})
        assert denied.is_error
        assert denied.content[0].text == "denied: Tool 'die' is on the deny list [TOOL_NOT_ALLOWED]"
        # The argument is repeated in a header, which must say what the rewritten call says.
        rewritten = await client.call_tool("routed", {"region": "ada@example.com"})
        assert rewritten.content[0].text == "one: [EMAIL-REDACTED]"


@pytest.mark.parametrize(("front", "back"), WAYS)
async def test_subscriptions_tell_of_what_has_changed(front: str, back: str, tmp_path: Path) -> None:
    wanted = {"tools_list_changed": True, "resource_subscriptions": ["shelf://one/00"]}
    async with served(front, back, plugins(tmp_path)) as proxy, client_at(proxy) as client:
        async with client.listen(**wanted) as news, client.listen(prompts_list_changed=True) as others:
            await client.call_tool("change", {})
            assert [type(await anext(news)).__name__ for _ in range(2)] == ["ToolsListChanged", "ResourceUpdated"]
            assert type(await anext(others)).__name__ == "PromptsListChanged"
        # What was subscribed to is over, and the server is still there.
        await client.call_tool("change", {})


@pytest.mark.parametrize(("front", "back"), WAYS)
async def test_a_server_hears_that_a_client_without_a_session_has_cancelled(
    front: str, back: str, tmp_path: Path
) -> None:
    async with served(front, back, plugins(tmp_path)) as proxy, client_at(proxy) as client:
        call = asyncio.create_task(client.call_tool("hang", {}))
        await client.call_tool("heard", {"begun": 1})
        call.cancel()
        heard = await client.call_tool("heard", {"ended": 1})
        assert heard.content[0].text == "1 begun, 1 ended"


@pytest.mark.parametrize("back", ["pipes", "http"])
async def test_clients_that_share_a_server_hear_nothing_of_one_another(back: str, tmp_path: Path) -> None:
    async def count(proxy: Any, whose: str) -> tuple[str, set[str | None]]:
        reports: set[str | None] = set()

        async def report(progress: float, total: float | None, message: str | None) -> None:
            reports.add(message)

        # Every client numbers its requests from the same start.
        async with client_at(proxy) as client:
            done = await client.call_tool("count", {"to": 20, "whose": whose}, progress_callback=report)
        return done.content[0].text, reports

    async with served("http", back, plugins(tmp_path)) as proxy:
        counted = await asyncio.gather(*(count(proxy, f"client {number}") for number in range(8)))
    assert counted == [(f"counted for client {number}", {f"of client {number}"}) for number in range(8)]


async def test_a_client_that_knows_both_falls_back_to_the_handshake_of_an_old_server(tmp_path: Path) -> None:
    direct = of_pipes(node_server("server-everything"))
    over_pipes = of_pipes(proxied(node_server("server-everything"), plugins(tmp_path)))
    port = free_port()
    async with everything_over_http() as url:
        command = listening(plugins(tmp_path), "--url", url, port=port)
        async with running(command, "The proxy listens"):
            for server in (direct, over_pipes, f"http://127.0.0.1:{port}/mcp"):
                async with client_at(server, "auto") as client:
                    assert client.protocol_version == "2025-11-25"
                    assert (await client.call_tool("echo", {"message": "hi"})).content[0].text == "Echo: hi"


@pytest.mark.parametrize("front", ["pipes", "http"])
async def test_several_servers_are_served_in_sessions_and_clients_are_told_so(front: str, tmp_path: Path) -> None:
    child = {"command": CATALOGUE[0], "args": [*CATALOGUE[1:], "pipes"]}
    (tmp_path / "servers.json").write_text(json.dumps({"mcpServers": {"one": child, "two": child}}), encoding="utf-8")
    options = ["--servers", str(tmp_path / "servers.json")]
    port = free_port()
    async with AsyncExitStack() as stack:
        own = behind(options, plugins(tmp_path))
        proxy: Any = StdioServerParameters(command=own[0], args=own[1:])
        if front == "http":
            command = listening(plugins(tmp_path), *options, port=port)
            await stack.enter_async_context(running(command, "The proxy listens"))
            proxy = f"http://127.0.0.1:{port}/mcp"
        async with client_at(proxy, "auto") as client:
            assert client.protocol_version == "2025-11-25"
            assert (await client.call_tool("two__tool-01", {})).content[0].text == "one: tool-01"
        async with client_at(proxy) as client:
            refused = await outcome(client.call_tool("two__tool-01", {}))
            assert refused["message"].startswith("several servers are served in sessions only: initialize one with")


class Bare:
    """A client over HTTP that writes its own headers."""

    def __init__(self, url: str, http: httpx2.AsyncClient) -> None:
        self.url, self.http = url, http

    def asking(self, method: str, headers: dict[str, str] | None = None, **params: Any) -> httpx2.Request:
        meta = {
            "protocolVersion": LATEST_MODERN_VERSION,
            "clientCapabilities": {},
            "clientInfo": {"name": "bare", "version": "1"},
        }
        params["_meta"] = {f"io.modelcontextprotocol/{name}": value for name, value in meta.items()}
        given = {"mcp-protocol-version": LATEST_MODERN_VERSION, "mcp-method": method}
        if "name" in params:
            given["mcp-name"] = params["name"]
        body = {"jsonrpc": "2.0", "id": "mine", "method": method, "params": params}
        return self.http.build_request("POST", self.url, json=body, headers={**ACCEPT, **given, **(headers or {})})

    async def ask(self, method: str, headers: dict[str, str] | None = None, **params: Any) -> httpx2.Response:
        return await self.http.send(self.asking(method, headers, **params))


async def test_headers_must_say_what_the_request_says(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(TIMEOUT_S),
        served("http", "pipes", plugins(tmp_path)) as url,
        httpx2.AsyncClient(timeout=TIMEOUT_S) as http,
    ):
        client = Bare(str(url), http)
        await client.ask("tools/list")
        call = {"name": "routed", "arguments": {"region": "north"}}
        good = await client.ask("tools/call", {"mcp-param-region": "north"}, **call)
        assert (good.status_code, good.json()["id"]) == (200, "mine"), good.text
        assert good.json()["result"]["content"][0]["text"] == "one: north"
        for headers in (
            {"mcp-name": "tool-01", "mcp-param-region": "north"},
            {"mcp-method": "tools/list", "mcp-param-region": "north"},
            {"mcp-param-region": "south"},
            {},
        ):
            refused = await client.ask("tools/call", headers, **call)
            assert (refused.status_code, refused.json()["error"]["code"]) == (400, -32020)
        unknown = await client.ask("tools/list", {"mcp-protocol-version": "2099-01-01"})
        assert unknown.status_code == 400
        assert (await client.ask("no/such")).status_code == 404
        assert (await http.get(str(url), headers={"mcp-protocol-version": LATEST_MODERN_VERSION})).status_code == 405
        about = {**ACCEPT, "mcp-protocol-version": LATEST_MODERN_VERSION, "content-type": "application/json"}
        for body, status in ((b"[]", 400), (b"{", 400), (b'{"jsonrpc": "2.0", "method": "notifications/x"}', 202)):
            assert (await http.post(str(url), content=body, headers=about)).status_code == status
        elsewhere = {**about, "host": "evil.example.com"}
        assert (await http.post(str(url), content=b"{}", headers=elsewhere)).status_code == 421


async def test_an_old_server_is_let_go_after_it_was_asked_whether_it_is_a_new_one(tmp_path: Path) -> None:
    port = free_port()
    command = listening(plugins(tmp_path), "--", *BREAKING, port=port)
    async with (
        asyncio.timeout(TIMEOUT_S),
        running(command, "The proxy listens") as proxy,
        httpx2.AsyncClient(timeout=TIMEOUT_S) as http,
    ):
        client = Bare(f"http://127.0.0.1:{port}/mcp", http)
        for _ in range(2):
            assert (await client.ask("server/discover")).json()["error"]["message"] == "nothing else here"
        while children(proxy.pid):
            await client.ask("server/discover")


async def test_a_result_that_is_none_yet_is_judged_when_it_is_one(tmp_path: Path) -> None:
    rule = (
        "plugins:\n  - {name: deny, kind: security.ToolAllowListPlugin, mode: sequential, hooks: [tool_post_invoke],"
        " config: {denied_tools: [ask, typed]}}\n"
    )
    callbacks = Callbacks()
    async with (
        served("http", "pipes", plugins(tmp_path, rule)) as proxy,
        client_at(proxy, elicitation_callback=callbacks.elicit) as client,
    ):
        denied = await client.call_tool("ask", {})
        assert denied.is_error
        assert callbacks.told
    meta = {eras.PROTOCOL_VERSION: LATEST_MODERN_VERSION}
    async with raw_client(proxied(BREAKING, plugins(tmp_path, rule))) as raw:
        for result in (
            {"resultType": "task", "taskId": "1"},
            {"resultType": "input_required", "requestState": "x", "content": [{"type": "text", "text": "secret"}]},
        ):
            refused = await raw.ask(1, "tools/call", name="typed", arguments=result, _meta=meta)
            assert refused["error"]["message"] == (
                f"the server answered with a result of type `{result['resultType']}`, which plugins cannot judge"
            )
        # Where a handshake was made there are no such results: it is judged as it is.
        denied_at_once = await raw.ask(2, "tools/call", name="typed", arguments={"resultType": "input_required"})
        assert denied_at_once["result"]["isError"] is True


async def test_requests_without_a_session_share_none_and_name_their_client(tmp_path: Path) -> None:
    (tmp_path / "seeing.py").write_text(SEEING.replace('if key != "session_id"', ""), encoding="utf-8")
    entry = "name: seen, capabilities: [read_headers], kind: seeing.Seeing, mode: sequential, hooks: [tool_post_invoke]"
    config = plugins(tmp_path, f"plugin_dirs: [{tmp_path}]\nplugins:\n  - {{{entry}}}\n")
    me = types.Implementation(name="modern", version="5")
    async with served("http", "pipes", config) as proxy, client_at(proxy, client_info=me) as client:
        _, seen = (await client.call_tool("tool-01", {})).content
        known = json.loads(seen.text)["known"]
        assert known == {"client": {"name": "modern", "version": "5"}, "protocol_version": LATEST_MODERN_VERSION}


def test_words_of_the_wire_are_those_of_the_sdk() -> None:
    assert eras.PROTOCOL_VERSION == types.PROTOCOL_VERSION_META_KEY
    assert eras.CLIENT_INFO == types.CLIENT_INFO_META_KEY
    assert eras.SUBSCRIPTION == SUBSCRIPTION_ID_META_KEY


async def test_a_stopped_proxy_does_not_wait_for_subscriptions(tmp_path: Path) -> None:
    port = free_port()
    command = listening(plugins(tmp_path), "--", *CATALOGUE, "pipes", port=port)
    async with (
        asyncio.timeout(TIMEOUT_S),
        running(command, "The proxy listens") as proxy,
        httpx2.AsyncClient(timeout=TIMEOUT_S) as http,
    ):
        client = Bare(f"http://127.0.0.1:{port}/mcp", http)
        call = asyncio.create_task(client.ask("tools/call", name="hang", arguments={}))
        await client.ask("tools/call", name="heard", arguments={"begun": 1})
        subscribe = client.asking("subscriptions/listen", notifications={"toolsListChanged": True})
        # It begins when the subscription stands.
        async with contextlib.aclosing(await http.send(subscribe, stream=True)) as stream:
            listen = asyncio.create_task(stream.aread())
            proxy.terminate()
            # The call has seconds of grace, which the stream does not wait for.
            done, _ = await asyncio.wait([listen, call], return_when=asyncio.FIRST_COMPLETED)
            assert done == {listen}
            assert b"the proxy is being stopped" in listen.result()
            await asyncio.wait([call])


TYPED_AND_COMMON = (
    f"name: typed, kind: changing.Typed, hooks: {TYPED}",
    "name: common, kind: changing.Common, hooks: [cmf.tool_post_invoke, cmf.resource_post_fetch]",
)


@pytest.mark.parametrize("entry", TYPED_AND_COMMON)
async def test_results_that_plugins_made_anew_are_whole_in_this_version(entry: str, tmp_path: Path) -> None:
    (tmp_path / "changing.py").write_text(CHANGING, encoding="utf-8")
    config = plugins(tmp_path, f"plugin_dirs: [{tmp_path}]\nplugins:\n  - {{{entry}, mode: sequential}}\n")
    async with served("http", "pipes", config) as proxy, client_at(proxy) as client:
        assert "after" in (await client.call_tool("tool-01", {})).content[0].text
        assert (await client.read_resource("shelf://one/01")).contents[0].text in ("(typed)", "(common)")
        assert (await client.get_prompt("prompt-01")).messages
