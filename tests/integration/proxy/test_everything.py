"""Every feature of the reference server, with the proxy and without: the same objects, where no plugin changes any."""

from __future__ import annotations

import asyncio
import base64
import json
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from integration.proxy.servers import Command, client_of, node_server, plugins, proxied, raw_client
from mcp import ClientSession, MCPError

WATCHING = """
plugins:
  - name: allow
    kind: security.ToolAllowListPlugin
    mode: sequential
    hooks: [tool_list, tool_pre_invoke, tool_post_invoke]
    config: {denied_tools: [no-such-tool]}
  - name: pii
    kind: privacy.PIIRedactionPlugin
    mode: transform
    hooks: [tool_pre_invoke, tool_post_invoke, prompt_pre_fetch, prompt_post_fetch, resource_post_fetch]
"""
TIMEOUT_S = 180
LEVEL = types.SetLevelRequest(params=types.SetLevelRequestParams(level="debug"))


@pytest.fixture
def everything() -> Command:
    return node_server("server-everything")


@pytest.fixture
def behind(everything: Command, tmp_path: Path) -> Command:
    return proxied(everything, plugins(tmp_path, WATCHING))


class Client:
    """What a client's user does when a server asks, and what it was told."""

    def __init__(self) -> None:
        self.told: list[Any] = []
        self.news = asyncio.Event()

    async def sample(self, _: Any, params: types.CreateMessageRequestParams) -> types.CreateMessageResult:
        self.told.append(("sampling", params.model_dump(exclude={"meta"})))
        text = types.TextContent(type="text", text="a sample")
        return types.CreateMessageResult(role="assistant", content=text, model="none", stop_reason="endTurn")

    async def elicit(self, _: Any, params: Any) -> types.ElicitResult:
        self.told.append(("elicitation", params.model_dump(exclude={"meta"})))
        return types.ElicitResult(action="accept", content={"name": "Ada", "check": True})

    async def roots(self, _: Any) -> types.ListRootsResult:
        return types.ListRootsResult(roots=[types.Root(uri="file:///srv/data", name="data")])

    async def hear(self, message: Any) -> None:
        if not isinstance(message, Exception):
            self.told.append(type(message).__name__)
            self.news.set()

    def callbacks(self) -> dict[str, Callable[..., Any]]:
        return {
            "sampling_callback": self.sample,
            "elicitation_callback": self.elicit,
            "list_roots_callback": self.roots,
            "message_handler": self.hear,
        }


_MADE_UP = re.compile(r"created at .*|^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$|^20\d\d-\S*Z$")


def undated(value: Any) -> Any:
    """Without what is another each time: when the server made something, and ids that it made up."""
    if isinstance(value, dict):
        if isinstance(blob := value.get("blob"), str):
            value = {**value, "blob": base64.b64decode(blob).decode("utf-8", "replace")}
        return {key: undated(each) for key, each in value.items()}
    if isinstance(value, list):
        return [undated(each) for each in value]
    return _MADE_UP.sub("", value) if isinstance(value, str) else value


async def outcome(asked: Awaitable[Any]) -> Any:
    """A result, or the error in its place, as values that can be compared."""
    try:
        return undated((await asked).model_dump())
    except MCPError as error:
        return undated(error.error.model_dump())


async def both(everything: Command, behind: Command, ask: Callable[[ClientSession, Client], Awaitable[Any]]) -> Any:
    """What a scenario comes to without the proxy and with it, which must be the same."""
    seen = []
    for command in (everything, behind):
        client = Client()
        async with asyncio.timeout(TIMEOUT_S), client_of(command, **client.callbacks()) as session:
            seen.append(await ask(session, client))
    assert seen[1] == seen[0]
    return seen[0]


async def test_the_handshake_tells_the_same_of_the_server(everything: Command, behind: Command) -> None:
    async def ask(session: ClientSession, _: Client) -> Any:
        assert session.initialize_result is not None
        return session.initialize_result.model_dump()

    assert (await both(everything, behind, ask))["server_info"]["name"] == "mcp-servers/everything"


async def test_lists_are_the_same(everything: Command, behind: Command) -> None:
    async def ask(session: ClientSession, client: Client) -> Any:
        # The server announces tools that depend on the client's capabilities after the handshake.
        await outcome(session.call_tool("get-roots-list"))
        lists = (session.list_tools, session.list_prompts, session.list_resources, session.list_resource_templates)
        return [await outcome(each()) for each in lists]

    tools, *_ = await both(everything, behind, ask)
    assert len(tools["tools"]) > 10


CALLS: list[tuple[str, dict[str, Any]]] = [
    ("echo", {"message": "hi \u2603"}),
    ("echo", {}),
    ("no-such", {}),
    ("get-sum", {"a": 2, "b": 0.5}),
    ("get-annotated-message", {"messageType": "error", "includeImage": True}),
    ("get-tiny-image", {}),
    ("get-resource-links", {"count": 3}),
    ("get-resource-reference", {"resourceType": "Text", "resourceId": 1}),
    ("get-resource-reference", {"resourceType": "Blob", "resourceId": 2}),
    ("get-structured-content", {"location": "Chicago"}),
    ("get-roots-list", {}),
    ("trigger-sampling-request", {"prompt": "say", "maxTokens": 5}),
    ("trigger-elicitation-request", {}),
    ("trigger-url-elicitation", {"url": "https://example.com/one", "elicitationId": "one"}),
    ("trigger-url-elicitation", {"url": "https://example.com/two", "elicitationId": "two", "errorPath": True}),
    ("gzip-file-as-resource", {"name": "a.gz", "data": "data:text/plain,abc", "outputType": "resource"}),
    ("gzip-file-as-resource", {"name": "b.gz", "data": "data:text/plain,abc"}),
]
ELSEWHERE = {
    "get-env": "test_the_server_gets_the_environment_that_was_meant_for_it",
    "simulate-research-query": "test_tasks_go_the_same_way",
    "toggle-simulated-logging": "test_log_messages_and_news_of_resources_arrive",
    "toggle-subscriber-updates": "test_log_messages_and_news_of_resources_arrive",
    "trigger-long-running-operation": "test_progress_arrives_in_order",
}
"""Tools that other tests here compare."""


async def test_every_tool_of_the_server_is_compared(everything: Command) -> None:
    async with asyncio.timeout(TIMEOUT_S), client_of(everything, **Client().callbacks()) as session:
        await outcome(session.call_tool("get-roots-list"))
        offered = {tool.name for tool in (await session.list_tools()).tools}
    assert offered == {name for name, _ in CALLS if name != "no-such"} | set(ELSEWHERE)
    assert all(test in globals() for test in ELSEWHERE.values())


async def test_the_server_gets_the_environment_that_was_meant_for_it(everything: Command, behind: Command) -> None:
    async def ask(session: ClientSession, _: Client) -> Any:
        given = json.loads((await session.call_tool("get-env")).content[0].text)
        # Python sets it for itself and for what it starts, where the locale is the bare one (PEP 538).
        return {name: value for name, value in given.items() if name != "LC_CTYPE"}

    assert "PATH" in await both(everything, behind, ask)


async def test_tools_answer_the_same(everything: Command, behind: Command) -> None:
    async def ask(session: ClientSession, client: Client) -> Any:
        answers = [await outcome(session.call_tool(name, args)) for name, args in CALLS]
        return answers, [each for each in client.told if isinstance(each, tuple)]

    answers, told = await both(everything, behind, ask)
    assert {kind for kind, _ in told} == {"sampling", "elicitation"}
    assert any(answer.get("structured_content") for answer in answers)


async def test_prompts_resources_and_completion_answer_the_same(everything: Command, behind: Command) -> None:
    async def ask(session: ClientSession, _: Client) -> Any:
        listed = await session.list_resources()
        # The SDK deprecates its own methods for these, of which the protocol of today has none in the next version.
        about = types.SubscribeRequestParams(uri=listed.resources[0].uri)
        away = types.UnsubscribeRequestParams(uri=listed.resources[0].uri)
        reference = types.PromptReference(type="ref/prompt", name="completable-prompt")
        template = types.ResourceTemplateReference(type="ref/resource", uri="demo://resource/dynamic/text/{resourceId}")
        return [
            await outcome(session.get_prompt("simple-prompt")),
            await outcome(session.get_prompt("args-prompt", {"city": "Berlin"})),
            await outcome(session.get_prompt("args-prompt", {})),
            await outcome(session.get_prompt("resource-prompt", {"resourceType": "Text", "resourceId": "1"})),
            await outcome(session.read_resource(listed.resources[0].uri)),
            await outcome(session.read_resource("demo://resource/dynamic/text/1")),
            await outcome(session.read_resource("demo://resource/dynamic/blob/1")),
            await outcome(session.read_resource("demo://nothing")),
            await outcome(session.complete(reference, {"name": "department", "value": "E"})),
            await outcome(session.complete(template, {"name": "resourceId", "value": "1"})),
            await outcome(session.send_request(LEVEL, types.EmptyResult)),
            await outcome(session.send_request(types.SubscribeRequest(params=about), types.EmptyResult)),
            await outcome(session.send_request(types.UnsubscribeRequest(params=away), types.EmptyResult)),
            await outcome(session.send_ping()),
        ]

    await both(everything, behind, ask)


async def test_progress_arrives_in_order(everything: Command, behind: Command) -> None:
    async def ask(session: ClientSession, _: Client) -> Any:
        reports: list[Any] = []

        async def report(progress: float, total: float | None, message: str | None) -> None:
            reports.append((progress, total, message))

        done = await session.call_tool(
            "trigger-long-running-operation", {"duration": 0.4, "steps": 4}, progress_callback=report
        )
        return reports, done.model_dump()

    reports, _ = await both(everything, behind, ask)
    assert [progress for progress, *_ in reports] == [1, 2, 3, 4]


async def test_log_messages_and_news_of_resources_arrive(everything: Command, behind: Command) -> None:
    uri = "demo://resource/dynamic/text/1"
    wanted = {"LoggingMessageNotification", "ResourceUpdatedNotification"}

    async def ask(session: ClientSession, client: Client) -> Any:
        about = types.SubscribeRequestParams(uri=uri)
        await session.send_request(types.SubscribeRequest(params=about), types.EmptyResult)
        began = [
            await outcome(session.call_tool(name)) for name in ("toggle-simulated-logging", "toggle-subscriber-updates")
        ]
        while not wanted <= set(client.told):
            client.news.clear()
            await client.news.wait()
        return began

    await both(everything, behind, ask)


async def test_tasks_go_the_same_way(everything: Command, tmp_path: Path) -> None:
    call = {"name": "simulate-research-query", "arguments": {"topic": "tea"}, "task": {"ttl": 60000}}
    seen = []
    for command in (everything, proxied(everything, plugins(tmp_path, WATCHING))):
        async with asyncio.timeout(TIMEOUT_S), raw_client(command) as client:
            await client.shake_hands()
            started = await client.ask(1, "tools/call", **call)
            task = started["result"]["task"]["taskId"]
            answers = [
                started,
                await client.ask(2, "tasks/result", taskId=task),
                await client.ask(3, "tasks/get", taskId=task),
                await client.ask(4, "tasks/list"),
                await client.ask(5, "tasks/get", taskId="another"),
            ]
            other = await client.ask(6, "tools/call", **call)
            answers.append(await client.ask(7, "tasks/cancel", taskId=other["result"]["task"]["taskId"]))
            text = json.dumps(answers).replace(task, "TASK").replace(other["result"]["task"]["taskId"], "OTHER")
            seen.append(undated(json.loads(text)))
            # By itself the server lives on for as long as it keeps tasks, with nobody at its input.
            client.process.terminate()
    assert seen[1] == seen[0]
    assert seen[0][2]["result"]["status"] == "completed"


async def test_a_call_that_became_a_task_is_judged_when_its_result_is_fetched(
    everything: Command, tmp_path: Path
) -> None:
    config = plugins(
        tmp_path,
        "plugins:\n  - {name: deny, kind: security.ToolAllowListPlugin, mode: sequential, hooks: [tool_post_invoke],"
        " config: {denied_tools: [simulate-research-query]}}\n",
    )
    async with raw_client(proxied(everything, config)) as client:
        await client.shake_hands()
        call = {"name": "simulate-research-query", "arguments": {"topic": "tea"}, "task": {"ttl": 60000}}
        started = await client.ask(1, "tools/call", **call)
        answer = await client.ask(2, "tasks/result", taskId=started["result"]["task"]["taskId"])
        assert answer["result"]["_meta"]["cpex/violation"]["code"] == "TOOL_NOT_ALLOWED"
        refused = await client.ask(3, "tasks/result", taskId="another")
        assert "error" in refused
        assert await client.leave() == 0


async def test_a_task_that_is_denied_is_an_error(everything: Command, tmp_path: Path) -> None:
    denied = "{denied_tools: [simulate-research-query]}"
    config = plugins(
        tmp_path,
        "plugins:\n  - {name: deny, kind: security.ToolAllowListPlugin, mode: sequential, hooks: [tool_pre_invoke],"
        f" config: {denied}}}\n",
    )
    async with raw_client(proxied(everything, config)) as client:
        await client.shake_hands()
        call = {"name": "simulate-research-query", "arguments": {"topic": "tea"}, "task": {"ttl": 60000}}
        error = (await client.ask(1, "tools/call", **call))["error"]
        assert (error["code"], error["data"]["cpex/violation"]["code"]) == (-32003, "TOOL_NOT_ALLOWED")
