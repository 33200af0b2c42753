"""Lists of several pages, of one server and of several, filtered on the way; and news that a list has changed."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from integration.proxy.servers import TIMEOUT_S, Command, client_of, plugins, proxied
from integration.proxy.test_everything import Client, outcome
from integration.proxy.test_http import running
from mcp import ClientSession
from ports import free_port

CATALOGUE = [sys.executable, str(Path(__file__).with_name("catalogue.py"))]
ALL = [f"{number:02}" for number in range(23)]
EVEN = [number for number in ALL if not int(number) % 2]
HIDING = """
from cpex.framework import Plugin, PluginResult


def even(entries, key):
    return [each for each in entries if not each[key][-1].isdigit() or int(each[key][-1]) % 2 == 0]


class OnlyEven(Plugin):
    def _shown(self, payload, key, **fields):
        kept = {name: even(entries, key) for name, entries in fields.items()}
        return PluginResult(modified_payload=payload.model_copy(update=kept))

    async def tool_list(self, payload, context):
        return self._shown(payload, "name", tools=payload.tools)

    async def prompt_list(self, payload, context):
        return self._shown(payload, "name", prompts=payload.prompts)

    async def resource_list(self, payload, context):
        return self._shown(payload, "name", resources=payload.resources, templates=payload.templates)
"""
FILTER = "{name: even, kind: hiding.OnlyEven, mode: sequential, hooks: [tool_list, prompt_list, resource_list]}"
NOTHING = """
plugins:
  - name: none
    kind: security.ToolAllowListPlugin
    mode: sequential
    hooks: [tool_list]
    config: {allowed_tools: [tool-22]}
"""


def config(folder: Path, *, filtered: bool) -> Path:
    (folder / "hiding.py").write_text(HIDING, encoding="utf-8")
    return plugins(folder, f"plugin_dirs: [{folder}]\nplugins:\n  - {FILTER}\n" if filtered else "plugins: []\n")


@asynccontextmanager
async def catalogue_over_http(name: str = "one") -> AsyncIterator[str]:
    port = free_port()
    async with running([*CATALOGUE, "http", str(port)], "Uvicorn running", CATALOGUE=name):
        yield f"http://localhost:{port}/mcp"


@pytest.fixture(params=["pipes", "http"])
async def one(request: pytest.FixtureRequest) -> AsyncIterator[list[str]]:
    """What names a server to the proxy."""
    async with AsyncExitStack() as stack:
        if request.param == "pipes":
            yield ["--", *CATALOGUE, "pipes"]
        else:
            yield ["--url", await stack.enter_async_context(catalogue_over_http())]


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[list[str]]:
    """What names two servers, one over pipes and one over HTTP."""
    async with catalogue_over_http("far") as url:
        child = {"command": CATALOGUE[0], "args": [*CATALOGUE[1:], "pipes"], "env": {"CATALOGUE": "near"}}
        listed = {"mcpServers": {"near": child, "far": {"url": url}}}
        (tmp_path / "servers.json").write_text(json.dumps(listed), encoding="utf-8")
        yield ["--servers", str(tmp_path / "servers.json")]


def behind(server: list[str], configured: Path) -> Command:
    own = [sys.executable, "-m", "cpex.tools.cli", "proxy", "--config", str(configured), "--log-level", "WARNING"]
    return [*own, *server]


async def pages(ask: Callable[..., Awaitable[Any]], field: str, of_entry: Callable[[Any], str]) -> list[list[str]]:
    """What a client sees that walks through a list."""
    seen: list[list[str]] = []
    cursor: str | None = None
    while not seen or cursor is not None:
        page = await ask(params=types.PaginatedRequestParams(cursor=cursor))
        seen.append([of_entry(each) for each in getattr(page, field)])
        cursor = page.next_cursor
    return seen


async def all_pages(session: ClientSession) -> dict[str, list[list[str]]]:
    return {
        "tools": await pages(session.list_tools, "tools", lambda each: str(each.name)),
        "prompts": await pages(session.list_prompts, "prompts", lambda each: str(each.name)),
        "resources": await pages(session.list_resources, "resources", lambda each: str(each.uri)),
        "templates": await pages(
            session.list_resource_templates, "resource_templates", lambda each: str(each.uri_template)
        ),
    }


async def test_pages_are_those_of_the_server(one: list[str], tmp_path: Path) -> None:
    seen = []
    direct = [*CATALOGUE, "pipes"]
    for command in (direct, behind(one, config(tmp_path, filtered=False))):
        async with asyncio.timeout(TIMEOUT_S), client_of(command) as session:
            seen.append(await all_pages(session))
    assert seen[1] == seen[0]
    assert [len(page) for page in seen[0]["prompts"]] == [10, 10, 3]


async def test_every_page_is_filtered(one: list[str], tmp_path: Path) -> None:
    async with (
        asyncio.timeout(TIMEOUT_S),
        client_of(behind(one, config(tmp_path, filtered=True))) as session,
    ):
        seen = await all_pages(session)
    assert [len(page) for page in seen["prompts"]] == [5, 5, 2]
    flat = {field: [each for page in listed for each in page] for field, listed in seen.items()}
    assert [name for name in flat["tools"] if name.startswith("tool-")] == [f"tool-{number}" for number in EVEN]
    assert flat["prompts"] == [f"prompt-{number}" for number in EVEN]
    assert flat["resources"] == [f"shelf://one/{number}" for number in EVEN]
    assert flat["templates"] == [f"box://one/{number}/{{item}}" for number in EVEN]


async def test_a_page_of_which_nothing_may_be_seen_leads_on_to_the_next(one: list[str], tmp_path: Path) -> None:
    async with asyncio.timeout(TIMEOUT_S), client_of(behind(one, plugins(tmp_path, NOTHING))) as session:
        assert await pages(session.list_tools, "tools", lambda each: str(each.name)) == [[], [], ["tool-22"]]


@pytest.mark.parametrize("filtered", [False, True])
async def test_pages_of_several_servers_are_joined(two: list[str], tmp_path: Path, filtered: bool) -> None:
    numbers = EVEN if filtered else ALL
    async with (
        asyncio.timeout(TIMEOUT_S),
        client_of(behind(two, config(tmp_path, filtered=filtered))) as session,
    ):
        seen = await all_pages(session)
        assert [len(page) for page in seen["prompts"]] == ([10, 10, 4] if filtered else [20, 20, 6])
        flat = {field: {each for page in listed for each in page} for field, listed in seen.items()}
        expected = [(server, number) for server in ("near", "far") for number in numbers]
        assert flat["prompts"] == {f"{server}__prompt-{number}" for server, number in expected}
        assert flat["resources"] == {f"shelf://{server}/{number}" for server, number in expected}
        assert flat["templates"] == {f"box://{server}/{number}/{{item}}" for server, number in expected}
        assert {f"{server}__tool-{number}" for server, number in expected} == {
            name for name in flat["tools"] if "__tool-" in name
        }
        # What stood on a later page is found all the same, and what is hidden is not denied.
        for uri in (f"{kind}://{server}" for server in ("near", "far") for kind in ("shelf", "box")):
            server = uri.rpartition("/")[2]
            uri = f"{uri}/21" if uri.startswith("shelf") else f"{uri}/21/lid"
            assert (await session.read_resource(uri)).contents[0].text == f"{server}: {uri}"


@pytest.mark.parametrize("cursor", ["20", "bm9uc2Vuc2U=", "eyJvdGhlciI6ICIxMCJ9", "WzFd", "\u00e9", ""])
async def test_a_cursor_of_several_servers_that_was_not_given_out_is_refused(
    two: list[str], tmp_path: Path, cursor: str
) -> None:
    async with asyncio.timeout(TIMEOUT_S), client_of(behind(two, config(tmp_path, filtered=False))) as session:
        refused = await outcome(session.list_tools(params=types.PaginatedRequestParams(cursor=cursor)))
        assert refused == {"code": -32602, "message": "the cursor is none that was given out here", "data": None}


CHANGES = [
    *("ToolListChangedNotification", "PromptListChangedNotification", "ResourceListChangedNotification"),
    "ResourceUpdatedNotification",
]


async def told_of_changes(command: Command, prefix: str = "") -> list[str]:
    client = Client()
    async with asyncio.timeout(TIMEOUT_S), client_of(command, **client.callbacks()) as session:
        # Over HTTP news have a stream of their own, which is opened beside the first calls: until then they are lost.
        while not client.told:
            await session.call_tool(f"{prefix}say", {})
        await session.call_tool(f"{prefix}change", {})
        while len(told := [each for each in client.told if each in CHANGES]) < len(CHANGES):
            client.news.clear()
            await client.news.wait()
    return told


async def test_news_of_changed_lists_reach_the_client_in_their_order(one: list[str], tmp_path: Path) -> None:
    command = behind(one, config(tmp_path, filtered=False))
    assert await told_of_changes(command) == CHANGES
    assert await told_of_changes(proxied([*CATALOGUE, "pipes"], config(tmp_path, filtered=False))) == CHANGES


@pytest.mark.parametrize("server", ["near", "far"])
async def test_news_of_each_of_several_servers_reach_the_client(two: list[str], tmp_path: Path, server: str) -> None:
    assert await told_of_changes(behind(two, config(tmp_path, filtered=False)), f"{server}__") == CHANGES
