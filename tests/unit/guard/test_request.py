"""The guard around operations: what runs, what is handed on, and what a host sees of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from support import allow, deny, manager_of, never, plugin

from cpex.framework.base import Plugin
from cpex.framework.cmf.message import Message, Role, TextContent
from cpex.framework.cmf.rewrite import rewrite_text
from cpex.framework.errors import GuardError, PluginError, PluginViolationError
from cpex.framework.extensions import Extensions, SecurityExtension
from cpex.framework.guard import AGENT, HTTP, MODEL, PROMPT, RESOURCE, TOOL, Kind, current_request
from cpex.framework.guard.operations import HttpResponse
from cpex.framework.hooks.headers import HttpHeaderPayload
from cpex.framework.hooks.http import HttpPreRequestPayload
from cpex.framework.manager import TenantPluginManager
from cpex.framework.models.config import Config, PluginConfig
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.result import PluginResult, PluginViolation

PRE, POST = "tool_pre_invoke", "tool_post_invoke"


def rewriting(**changes: Any) -> Any:
    """A handler that puts other values into the payload."""

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=payload.model_copy(update=changes))

    return handler


async def masked(payload: Any, context: Any) -> PluginResult[Any]:
    """A handler of messages that replaces a word."""
    message = rewrite_text(payload.message, lambda leaf: leaf.text.replace("secret", "***"), names=False)
    return PluginResult(modified_payload=payload.model_copy(update={"message": message}))


class WithholdsResults(Plugin):
    """Denies every result of a tool; made from its dotted name."""

    async def tool_post_invoke(self, payload: Any, context: Any) -> PluginResult[Any]:
        return await deny(payload, context)


async def search(q: str, limit: int = 1) -> dict[str, Any]:
    return {"found": f"{q} x{limit}"}


# What runs.


async def test_a_tool_is_called_between_its_hooks_with_what_plugins_made_of_its_arguments() -> None:
    manager = manager_of(
        plugin(rewriting(args={"q": "tea", "limit": 2}), "pre", hooks=[PRE]),
        plugin(rewriting(result={"found": "masked"}), "post", hooks=[POST]),
    )
    args = {"q": "coffee"}
    async with manager.request(user="ann", tenant_id="acme") as request:
        seen: list[Any] = []

        async def call(**given: Any) -> dict[str, Any]:
            seen.append(given)
            return await search(**given)

        assert await request.call_tool("search", args, call) == {"found": "masked"}
    assert (seen, args) == ([{"q": "tea", "limit": 2}], {"q": "coffee"})


async def test_a_plain_function_does_as_well() -> None:
    manager = manager_of(plugin(allow))
    async with manager.request() as request:
        assert await request.call_tool("double", {"x": 2}, lambda x: x * 2) == 4


async def test_without_plugins_the_operation_is_simply_called_and_nothing_is_entered() -> None:
    manager = TenantPluginManager(Config())
    async with manager.request() as request:
        assert await request.call_tool("search", {"q": "tea"}, search) == {"found": "tea x1"}
        assert await request.get_prompt("greet", {"name": "ann"}, lambda name: f"hello {name}") == "hello ann"
        assert await request.read_resource("file:///a", lambda uri: uri) == "file:///a"
        assert await request.call_agent("a", ["hi"], lambda messages: messages) == ["hi"]
        assert await request.call_model([], lambda messages: messages) == []
        assert not request.ledger.records


async def test_a_plugin_that_is_registered_while_a_request_is_open_counts_from_then_on() -> None:
    manager = manager_of()
    async with manager.request() as request:
        assert await request.call_tool("search", {"q": "tea"}, search) == {"found": "tea x1"}
        manager._registry.register(plugin(deny))
        with pytest.raises(PluginViolationError):
            await request.call_tool("search", {"q": "tea"}, search)


async def test_configured_plugins_that_are_not_running_are_an_error_and_not_an_open_door() -> None:
    entry = PluginConfig(name="p", kind="unit.specimens_of_manager.Good", hooks=[PRE])
    manager = TenantPluginManager(Config(plugins=[entry]))
    async with manager.request() as request:
        with pytest.raises(GuardError, match=r"no plugins are running.*1 are configured"):
            await request.call_tool("search", {}, search)


async def test_the_context_holds_what_the_host_says_of_the_request() -> None:
    manager = manager_of()
    request = manager.request(
        user="ann", tenant_id="acme", server_id="s", session_id="chat", request_id="r", metadata={"a": 1}
    )
    expected = GlobalContext(
        request_id="r", user="ann", tenant_id="acme", server_id="s", metadata={"a": 1, "session_id": "chat"}
    )
    assert request.context == expected
    assert len(manager.request().context.request_id) == 32
    assert manager.request(context=expected).context is expected
    with pytest.raises(ValueError, match="either `context` or its parts"):
        manager.request(context=expected, user="ann")


async def test_the_open_request_is_known_in_its_context_only() -> None:
    manager = manager_of()
    assert current_request.get() is None
    async with manager.request() as outer:
        async with manager.request() as inner:
            assert current_request.get() is inner
        assert current_request.get() is outer
    assert current_request.get() is None


async def test_a_request_may_be_left_in_another_context_than_it_was_entered_in() -> None:
    request = manager_of(plugin(allow)).request()
    await asyncio.create_task(request.__aenter__())
    assert await request.call_tool("a", {}, lambda: 1) == 1
    await asyncio.create_task(request.__aexit__(None, None, None))
    assert current_request.get() is None


# Denials and failures.


async def test_a_denial_stops_the_call_and_is_raised_with_its_violation() -> None:
    manager = manager_of(plugin(deny, "guard"))
    called = []
    async with manager.request() as request:
        with pytest.raises(PluginViolationError) as caught:
            await request.call_tool("shell", {}, lambda: called.append(1))
        assert caught.value.violation is not None
        assert (caught.value.violation.code, caught.value.violation.plugin_name) == ("NO", "guard")
        assert [each.plugin_name for each in caught.value.executions or []] == ["guard"]
        (record,) = request.ledger.records
    assert (called, record.outcome, record.denied_by) == ([], "denied", PRE)


async def test_a_denial_is_returned_where_the_host_wants_that() -> None:
    manager = manager_of(plugin(deny, hooks=[POST]))
    async with manager.request(on_denial="return") as request:
        denied = await request.call_tool("search", {"q": "tea"}, search)
        assert isinstance(denied, PluginViolation)
        assert denied.code == "NO"
        with pytest.raises(PluginViolationError):
            await request.call_tool("search", {"q": "tea"}, search, on_denial="raise")


async def test_a_denial_without_a_violation_is_returned_as_one_all_the_same() -> None:
    async def refuse(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(continue_processing=False)

    manager = manager_of(plugin(refuse))
    async with manager.request(on_denial="return") as request:
        denied = await request.call_tool("search", {"q": "tea"}, search)
    assert (denied.reason, denied.code) == ("tool_pre_invoke blocked by plugin", "plugin_violation")


async def test_an_exception_of_the_operation_goes_through_and_no_hook_runs_after_it() -> None:
    after: list[Any] = []

    async def watch(payload: Any, context: Any) -> PluginResult[Any]:
        after.append(payload)
        return PluginResult()

    manager = manager_of(plugin(watch, hooks=[POST]))
    async with manager.request(on_denial="return") as request:
        with pytest.raises(ZeroDivisionError):
            await request.call_tool("divide", {}, lambda: 1 // 0)
        # A denial of another guard is the operation's own business.
        denial = PluginViolationError("another guard", PluginViolation(reason="r", description="d", code="C"))

        async def denied() -> None:
            raise denial

        with pytest.raises(PluginViolationError, match="another guard"):
            await request.call_tool("nested", {}, denied)
        outcomes = [(each.outcome, each.error) for each in request.ledger.records]
    assert after == []
    assert outcomes == [("failed", "ZeroDivisionError"), ("failed", "PluginViolationError")]


async def test_a_plugin_that_fails_stops_the_call() -> None:
    async def crash(payload: Any, context: Any) -> PluginResult[Any]:
        raise RuntimeError("boom")

    manager = manager_of(plugin(crash))
    async with manager.request() as request:
        with pytest.raises(PluginError):
            await request.call_tool("search", {"q": "tea"}, search)
        assert request.ledger.records[0].outcome == "failed"


@pytest.mark.parametrize("where", [PRE, "operation", POST])
async def test_cancelling_reaches_whatever_runs_and_is_noted(where: str) -> None:
    started = asyncio.Event()

    async def wait(payload: Any = None, context: Any = None) -> Any:
        started.set()
        return await never(payload, context)

    manager = manager_of(
        plugin(wait if where != "operation" else allow, hooks=[where if where != "operation" else PRE])
    )
    async with manager.request() as request:

        async def operation() -> Any:
            return await wait() if where == "operation" else None

        task = asyncio.create_task(request.call_tool("slow", {}, operation))
        await asyncio.wait_for(started.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        (record,) = request.ledger.records
        assert (record.outcome, request.ledger.running) == ("cancelled", {})


# Rewritten names.


async def pages() -> AsyncIterator[str]:
    yield "a secret"


def lines() -> Iterator[str]:
    yield "a secret"


@pytest.mark.parametrize(
    ("tool", "kind"), [(pages, "async_generator"), (lines, "generator"), (lambda: iter("a"), "str")]
)
async def test_a_result_that_is_read_once_does_not_go_past_plugins_that_judge_results(tool: Any, kind: str) -> None:
    manager = manager_of(plugin(allow, hooks=[POST]), plugin(allow, "cmf", hooks=["cmf.resource_post_fetch"]))
    async with manager.request() as request:
        with pytest.raises(GuardError, match=rf"tool `search` gave a {kind}\w*, which is read once, and plugins judge"):
            await request.call_tool("search", {}, tool)
        with pytest.raises(GuardError, match=rf"resource `file:///a` gave a {kind}\w*, which is read once"):
            await request.read_resource("file:///a", lambda uri: tool())
    assert [each.outcome for each in request.ledger.records] == ["failed", "failed"]


async def test_a_result_that_is_read_once_passes_where_nobody_judges_it() -> None:
    async with manager_of(plugin(allow, hooks=[PRE])).request() as request:
        assert [each async for each in await request.call_tool("search", {}, pages)] == ["a secret"]


async def test_a_rewritten_tool_name_is_an_error_unless_the_host_can_resolve_it() -> None:
    manager = manager_of(plugin(rewriting(name="safe_search")))
    tools = {"search": search, "safe_search": lambda q: {"safe": q}}
    async with manager.request() as request:
        with pytest.raises(GuardError, match=r"rewrote tool `search` to `safe_search`.*pass `resolve=`"):
            await request.call_tool("search", {"q": "tea"}, search)
        assert await request.call_tool("search", {"q": "tea"}, search, resolve=tools.__getitem__) == {"safe": "tea"}


async def test_a_rewritten_address_is_read_from_there() -> None:
    manager = manager_of(plugin(rewriting(uri="file:///public"), hooks=["resource_pre_fetch"]))
    async with manager.request() as request:
        assert (
            await request.read_resource("file:///secret", lambda uri: f"content of {uri}")
            == "content of file:///public"
        )


# Agents, prompts, HTTP.


async def test_an_agent_gets_what_plugins_made_of_its_messages_and_settings() -> None:
    manager = manager_of(
        plugin(rewriting(system_prompt="be kind", model="small"), "pre", hooks=["agent_pre_invoke"]),
        plugin(rewriting(messages=["masked"]), "post", hooks=["agent_post_invoke"]),
    )
    seen: list[Any] = []

    async def invoke(messages: list[Any], **settings: Any) -> str:
        seen.append((messages, settings))
        return "answer"

    async with manager.request() as request:
        assert await request.call_agent("helper", [{"role": "user"}], invoke, model="large") == "masked"
    assert seen == [([{"role": "user"}], {"model": "small", "system_prompt": "be kind"})]


async def test_a_prompt_is_rendered_with_rewritten_arguments_and_a_dict_comes_back_as_a_dict() -> None:
    async def shout(payload: Any, context: Any) -> PluginResult[Any]:
        payload.result.messages[0].content.text = "HELLO"
        return PluginResult(modified_payload=payload)

    manager = manager_of(
        plugin(rewriting(args={"name": "bob"}), "pre", hooks=["prompt_pre_fetch"]),
        plugin(shout, "post", hooks=["prompt_post_fetch"]),
    )

    def render(name: str) -> dict[str, Any]:
        return {"messages": [{"role": "user", "content": {"type": "text", "text": f"hello {name}"}}]}

    async with manager.request() as request:
        result = await request.get_prompt("greet", {"name": "ann"}, render)
    assert result == {"messages": [{"role": "user", "content": {"type": "text", "text": "HELLO"}}]}


async def test_replies_of_the_http_hooks_are_merged_into_the_headers() -> None:
    async def add(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=HttpHeaderPayload({"x-seen": "yes"}))

    manager = manager_of(plugin(add, hooks=["http_pre_request", "http_post_request"]))
    payload = HttpPreRequestPayload.model_construct(
        path="/",
        method="GET",
        client_host=None,
        client_port=None,
        headers=HttpHeaderPayload({"X-Seen": "no", "a": "b"}),
    )
    async with manager.request() as request:
        response = await request.perform(
            HTTP,
            payload,
            lambda ready: HttpResponse(200, {"got": ready.headers["x-seen"], "n": str(len(ready.headers))}),
        )
    assert response == HttpResponse(200, {"got": "yes", "n": "2", "x-seen": "yes"})


# State.


async def counting(payload: Any, context: Any) -> PluginResult[Any]:
    """Counts how often the plugin was called before in the request."""
    context.set_state("calls", context.get_state("calls", 0) + 1)
    context.global_context.state["all"] = context.global_context.state.get("all", 0) + 1
    return PluginResult()


async def test_what_a_plugin_keeps_goes_from_pre_to_post_and_on_to_the_next_operation() -> None:
    seen: list[int] = []

    async def remember(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(context.get_state("calls", 0))
        return await counting(payload, context)

    manager = manager_of(plugin(remember, hooks=[PRE, POST]))
    async with manager.request() as request:
        await request.call_tool("a", {}, lambda: 1)
        await request.call_tool("b", {}, lambda: 1)
        assert request.context.state == {"all": 4}
    async with manager.request() as request:
        await request.call_tool("c", {}, lambda: 1)
    assert seen == [0, 1, 2, 3, 0, 1]


async def test_parallel_calls_of_one_request_do_not_see_each_others_state() -> None:
    async def pre(payload: Any, context: Any) -> PluginResult[Any]:
        context.set_state("name", payload.name)
        context.set_state(f"pre-{payload.name}", True)
        return PluginResult()

    async def post(payload: Any, context: Any) -> PluginResult[Any]:
        keys = sorted(key for key in context.state if key.startswith("pre-"))
        return PluginResult(modified_payload=payload.model_copy(update={"result": (context.state["name"], keys)}))

    both = plugin(pre, hooks=[PRE, POST])
    both.tool_post_invoke = post
    manager = manager_of(both)
    gate = asyncio.Barrier(3)

    async def wait() -> None:
        await asyncio.wait_for(gate.wait(), 60)

    async with manager.request() as request:
        names = ["a", "b", "c"]
        results = await asyncio.gather(*(request.call_tool(name, {}, wait) for name in names))
        assert results == [(name, [f"pre-{name}"]) for name in names]
        # Nothing of it is lost for what follows.
        assert await request.call_tool("d", {}, lambda: None) == ("d", [f"pre-{name}" for name in "abcd"])


async def test_contexts_of_hooks_that_the_host_called_itself_are_carried_on() -> None:
    manager = manager_of(plugin(counting, hooks=[PRE, "http_pre_request"]))
    context = GlobalContext(request_id="r")
    payload = HttpPreRequestPayload.model_construct(path="/", method="GET", headers=HttpHeaderPayload({}))
    _, contexts = await manager.invoke_hook("http_pre_request", payload, context)
    async with manager.request(context=context, contexts=contexts) as request:
        await request.call_tool("a", {}, lambda: 1)
        assert [each.state for each in request.contexts.entries.values()] == [{"calls": 2}]
    assert contexts is not None
    assert [each.state for each in contexts.values()] == [{"calls": 1}]


async def test_an_enclosing_operation_shares_what_plugins_keep_with_those_inside_of_it() -> None:
    manager = manager_of(plugin(counting, hooks=["http_pre_request", "http_post_request", PRE]))
    payload = HttpPreRequestPayload.model_construct(path="/", method="GET", headers=HttpHeaderPayload({}))
    async with manager.request() as request:

        async def handle(ready: Any) -> HttpResponse:
            await request.call_tool("a", {}, lambda: 1)
            return HttpResponse(200, {})

        await request.perform(HTTP, payload, handle)
        assert [each.state for each in request.contexts.entries.values()] == [{"calls": 3}]


# Extensions.


def labelling(label: str) -> Any:
    async def handler(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        labels = extensions.security.labels | {label.format(payload.name)}
        security = extensions.security.model_copy(update={"labels": labels})
        return PluginResult(modified_extensions=extensions.model_copy(update={"security": security}))

    return handler


async def test_labels_of_parallel_calls_all_reach_the_request() -> None:
    label = plugin(labelling("seen-{}"), hooks=[POST], capabilities=["append_labels", "read_labels"])
    manager = manager_of(label)
    gate = asyncio.Barrier(2)
    async with manager.request(extensions=Extensions(security=SecurityExtension(labels={"start"}))) as request:
        await asyncio.gather(*(request.call_tool(name, {}, lambda: gate.wait()) for name in "ab"))
        assert request.extensions is not None
        assert request.extensions.security is not None
        assert request.extensions.security.labels == {"start", "seen-a", "seen-b"}


async def test_slots_of_one_operation_are_seen_by_it_alone() -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        seen.append((extensions.custom, extensions.llm))
        return PluginResult(modified_extensions=extensions.model_copy(update={"custom": {**extensions.custom, "x": 1}}))

    manager = manager_of(plugin(look))
    async with manager.request(extensions=Extensions(custom={"of": "request"})) as request:
        await request.call_tool("a", {}, lambda: 1, extensions=Extensions(custom={"of": "call"}))
        await request.call_tool("b", {}, lambda: 1)
        await request.call_tool("c", {}, lambda: 1)
    assert [custom for custom, _ in seen] == [{"of": "call"}, {"of": "request"}, {"of": "request", "x": 1}]


async def test_what_plugins_ask_of_the_host_stands_at_the_operation() -> None:
    async def ask(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(retry_delay_ms=50, http_headers={"retry-after": "1"})

    manager = manager_of(plugin(ask, hooks=[PRE, POST]))
    from cpex.framework.hooks.tools import ToolPreInvokePayload

    async with manager.request() as request, request.operation(TOOL, ToolPreInvokePayload(name="a")) as operation:
        await operation.before()
        await operation.after("result")
        assert (operation.retry_delay_ms, operation.http_headers) == (50, {"retry-after": "1"})


# Twins in the common format.

MCP_PROMPT = {"messages": [{"role": "user", "content": {"type": "text", "text": "a secret"}}]}
MCP_RESOURCE = {"contents": [{"uri": "file:///a", "text": "a secret", "mimeType": "text/plain"}]}


async def test_plugins_of_the_common_format_see_and_rewrite_tools() -> None:
    hooks = ["cmf.tool_pre_invoke", "cmf.tool_post_invoke"]
    manager = manager_of(plugin(masked, hooks=hooks))
    async with manager.request(server_id="web") as request:
        result = await request.call_tool("search", {"q": ["a secret"]}, lambda q: {"asked": q, "found": "secret tea"})
    assert result == {"asked": ["a ***"], "found": "*** tea"}


@pytest.mark.parametrize(
    ("rendered", "expected"),
    [
        ("a secret", "a ***"),
        (MCP_PROMPT, {"messages": [{"role": "user", "content": {"type": "text", "text": "a ***"}}]}),
    ],
    ids=["text", "mcp"],
)
async def test_plugins_of_the_common_format_see_and_rewrite_prompts(rendered: Any, expected: Any) -> None:
    hooks = ["cmf.prompt_pre_fetch", "cmf.prompt_post_fetch"]
    manager = manager_of(plugin(masked, hooks=hooks))
    given: list[str] = []

    def render(name: str) -> Any:
        given.append(name)
        return rendered

    async with manager.request() as request:
        assert await request.get_prompt("greet", {"name": "secret"}, render) == expected
    assert given == ["***"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a secret", "a ***"),
        (b"a secret", b"a ***"),
        (MCP_RESOURCE, {"contents": [{"uri": "file:///a", "text": "a ***", "mimeType": "text/plain"}]}),
    ],
    ids=["text", "bytes", "mcp"],
)
async def test_plugins_of_the_common_format_see_and_rewrite_resources(content: Any, expected: Any) -> None:
    manager = manager_of(plugin(masked, hooks=["cmf.resource_pre_fetch", "cmf.resource_post_fetch"]))
    async with manager.request() as request:
        assert await request.read_resource("file:///a", lambda uri: content) == expected


async def test_a_result_that_has_no_form_can_be_judged_and_its_rewrite_is_an_error() -> None:
    manager = manager_of(plugin(masked, hooks=["cmf.resource_post_fetch"]))
    async with manager.request() as request:
        assert await request.read_resource("file:///a", lambda uri: {"fine": 1}) == {"fine": 1}
        with pytest.raises(GuardError, match="rewrote the result of resource `file:///a`, which it saw as text"):
            await request.read_resource("file:///a", lambda uri: {"held": "secret"})


async def test_messages_to_and_from_a_model_are_judged_one_by_one() -> None:
    manager = manager_of(plugin(masked, hooks=["cmf.llm_input", "cmf.llm_output"]))
    asked: list[str] = []

    def said(text: str, role: Role = Role.USER) -> Message:
        return Message(role=role, content=[TextContent(text=text)])

    async def model(messages: list[Message]) -> Message:
        asked.extend(part.text for message in messages for part in message.content if isinstance(part, TextContent))
        return said("my secret", Role.ASSISTANT)

    async with manager.request() as request:
        assert await request.call_model([said("hi"), said("a secret")], model) == said("my ***", Role.ASSISTANT)
    assert asked == ["hi", "a ***"]


async def test_a_message_that_says_something_else_than_the_operation_is_an_error() -> None:
    async def replace(payload: Any, context: Any) -> PluginResult[Any]:
        message = Message(role=Role.USER, content=[TextContent(text="x")])
        return PluginResult(modified_payload=payload.model_copy(update={"message": message}))

    manager = manager_of(plugin(replace, hooks=["cmf.tool_pre_invoke"]))
    async with manager.request() as request:
        with pytest.raises(GuardError, match="not one call of a tool"):
            await request.call_tool("search", {"q": "tea"}, search)


@pytest.mark.parametrize("kind", [TOOL, PROMPT, RESOURCE, AGENT, MODEL, HTTP], ids=lambda kind: kind.name)
async def test_every_hook_of_the_table_is_one_that_the_framework_has(kind: Kind) -> None:
    from cpex.framework.hooks.registry import get_hook_registry

    assert {step.hook for step in (*kind.before, *kind.after)} <= set(get_hook_registry().get_registered_hooks())


# What would go past the guard.


@pytest.mark.parametrize("again", [False, True], ids=["stopped", "restarted"])
async def test_a_result_is_not_handed_on_when_the_plugins_were_stopped_while_it_was_made(again: bool) -> None:
    kind = f"{WithholdsResults.__module__}.{WithholdsResults.__name__}"
    manager = TenantPluginManager(Config(plugins=[PluginConfig(name="p", kind=kind, hooks=[POST])]))
    await manager.initialize()
    async with manager.request() as request:

        async def slow() -> str:
            await manager.shutdown()
            if again:
                await manager.initialize()
            return "withheld"

        with pytest.raises(PluginViolationError if again else GuardError, match=r"blocked by|no plugins are running"):
            await request.call_tool("slow", {}, slow)
        assert [(each.outcome, each.error) for each in request.ledger.records] == (
            [("denied", None)] if again else [("failed", "GuardError")]
        )
    await manager.shutdown()


async def test_a_fact_that_a_request_does_not_know_is_an_error() -> None:
    """Dropped in silence, it would keep a guard from knowing whose request it is."""
    manager = manager_of(plugin(allow))
    facts: Any = {"tenant": "acme", "user": "ann"}
    with pytest.raises(TypeError, match=r"a request knows no `tenant`; did you mean `tenant_id`\?"):
        manager.request(**facts)
    wrong: Any = "retrun"
    with pytest.raises(ValueError, match=r"on_denial must be `raise` or `return`, not 'retrun'"):
        manager.request(on_denial=wrong)
    async with manager.request() as request:
        with pytest.raises(ValueError, match=r"on_denial must be `raise` or `return`, not 'retrun'"):
            await request.call_tool("search", {"q": "tea"}, search, on_denial=wrong)
