"""Decorated functions: always called through the guard, or refused outside of it."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from support import allow, deny, manager_of, other_tasks, plugin

from cpex.framework.cmf.message import Message, Role, TextContent
from cpex.framework.errors import CoverageError, GuardError, PluginViolationError
from cpex.framework.guard import AGENT, HTTP, MODEL, PROMPT, RESOURCE
from cpex.framework.guard.decorator import covered, guarded
from cpex.framework.models.coverage import CoverageConfig, CoverageMode
from cpex.framework.models.result import PluginResult


async def doubled(payload: Any, context: Any) -> PluginResult[Any]:
    """Doubles every number among the arguments."""
    args = {key: value * 2 if isinstance(value, int) else value for key, value in payload.args.items()}
    return PluginResult(modified_payload=payload.model_copy(update={"args": args}))


async def test_a_decorated_function_is_called_with_what_plugins_made_of_its_arguments() -> None:
    manager = manager_of(plugin(doubled))

    @guarded(manager)
    async def add(x: int, y: int = 1, **more: int) -> int:
        return x + y + sum(more.values())

    assert await add(1, y=2, z=3) == 12
    assert add.__name__ == "add"
    with pytest.raises(TypeError):
        await add()


async def test_it_runs_in_the_open_request_and_by_itself_only_with_a_manager() -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append((payload.name, context.global_context.user))
        return PluginResult()

    manager = manager_of(plugin(look))

    @guarded(name="plus")
    def add(x: int) -> int:
        return x + 1

    async with manager.request(user="ann"):
        assert await add(1) == 2
    assert seen == [("plus", "ann")]
    with pytest.raises(GuardError, match="`plus` was called outside of a request"):
        await add(1)


async def test_the_object_of_a_method_is_not_shown_to_plugins() -> None:
    manager = manager_of(plugin(doubled))

    class Shop:
        price = 5

        @guarded(manager)
        async def buy(self, count: int) -> int:
            return self.price * count

    assert await Shop().buy(2) == 20


async def test_a_denial_reaches_the_caller() -> None:
    @guarded(manager_of(plugin(deny, hooks=["prompt_pre_fetch"])), PROMPT)
    async def greet(name: str) -> str:
        return name

    with pytest.raises(PluginViolationError):
        await greet("ann")


def test_functions_that_do_not_fit_are_refused_when_decorating() -> None:
    with pytest.raises(TypeError, match=r"argument `rest` of `.*many` has no name in calls"):

        @guarded()
        def many(*rest: int) -> None: ...

    async def read(uri: str, encoding: str) -> str:
        return uri

    with pytest.raises(TypeError, match="as tool, prompt, resource, agent, model, not as http"):
        guarded(kind=HTTP)(read)
    with pytest.raises(TypeError, match=r"as resource: it must take an address as its first argument alone"):
        guarded(kind=RESOURCE)(read)
    with pytest.raises(
        TypeError, match="as agent: it must take messages as its first argument, and beside it any of mo"
    ):
        guarded(kind=AGENT)(read)
    with pytest.raises(TypeError, match="as model: it must take messages as its first argument alone"):
        guarded(kind=MODEL)(lambda: None)


async def test_functions_of_every_kind_are_called_between_their_hooks() -> None:
    seen: set[str] = set()

    def of(hook: str) -> Any:
        async def record(payload: Any, context: Any) -> PluginResult[Any]:
            seen.add(hook)
            return PluginResult()

        return plugin(record, hook, hooks=[hook])

    kinds = (PROMPT, RESOURCE, AGENT, MODEL)
    hooks = {step.hook for kind in kinds for step in (*kind.before, *kind.after)}
    manager = manager_of(*map(of, sorted(hooks)))
    said = Message(role=Role.USER, content=[TextContent(text="hi")])

    class House:
        @guarded(manager, PROMPT)
        def greet(self, name: str) -> str:
            return f"hello {name}"

        @guarded(manager, RESOURCE)
        async def read(self, uri: str) -> str:
            return f"content of {uri}"

        @guarded(manager, AGENT)
        async def helper(self, messages: list[Any], model: str | None = None) -> list[Any]:
            return [*messages, model]

        @guarded(manager, MODEL)
        async def ask(self, messages: list[Message]) -> Message:
            return messages[0]

    house = House()
    assert await house.greet("ann") == "hello ann"
    assert await house.read("file:///a") == "content of file:///a"
    assert await house.helper(["hi"], model="small") == ["hi", "small"]
    assert await house.ask([said]) == said
    assert seen == hooks


async def test_a_decorated_resource_reads_the_address_that_plugins_left() -> None:
    async def elsewhere(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=payload.model_copy(update={"uri": "file:///b"}))

    @guarded(manager_of(plugin(elsewhere, hooks=["resource_pre_fetch"])), RESOURCE)
    async def read(uri: str) -> str:
        return f"content of {uri}"

    assert await read("file:///a") == "content of file:///b"


async def test_a_covered_function_runs_inside_of_an_operation_only(caplog: pytest.LogCaptureFixture) -> None:
    @covered()
    async def query(sql: str) -> str:
        return sql

    @covered(mode=CoverageMode.ALARM)
    def count(sql: str) -> int:
        return len(sql)

    async with manager_of(plugin(allow)).request() as request:
        assert await request.call_tool("query", {"sql": "a"}, query) == "a"
        assert await request.call_tool("count", {"sql": "a"}, count) == 1
        with pytest.raises(CoverageError, match="tool `query` went past mandatory hook `tool_pre_invoke`"):
            await query("a")
        with caplog.at_level(logging.WARNING):
            assert count("a") == 1
    assert "tool `count` went past" in caplog.text


async def test_an_exception_in_a_decorated_function_goes_through_and_is_entered() -> None:
    called: list[str] = []

    async def after(payload: Any, context: Any) -> PluginResult[Any]:
        called.append(payload.name)
        return PluginResult()

    manager = manager_of(plugin(allow, "pre"), plugin(after, "post", hooks=["tool_post_invoke"]))

    @guarded(manager)
    async def divide(x: int) -> float:
        return 1 / x

    async with manager.request() as request:
        with pytest.raises(ZeroDivisionError) as caught:
            await divide(0)
        assert await divide(2) == 0.5
    assert "divide" in str(caught.traceback[-1])
    assert called == ["divide"]
    assert [(each.outcome, each.error) for each in request.ledger.records] == [
        ("failed", "ZeroDivisionError"),
        ("completed", None),
    ]
    with pytest.raises(ZeroDivisionError):
        await divide(0)


@pytest.mark.parametrize("where", ["before", "inside", "after"])
async def test_cancelling_a_decorated_function_reaches_whatever_runs_and_leaves_nothing_running(where: str) -> None:
    reached, ended = asyncio.Event(), asyncio.Event()

    async def wait() -> None:
        reached.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def hang(payload: Any, context: Any) -> PluginResult[Any]:
        await wait()
        return PluginResult()

    hooks = {"before": "tool_pre_invoke", "after": "tool_post_invoke"}
    manager = manager_of(plugin(hang, hooks=[hooks[where]]) if where in hooks else plugin(allow))

    @guarded(manager)
    async def search(q: str) -> str:
        if where == "inside":
            await wait()
        return q

    async with manager.request() as request:
        task = asyncio.create_task(search("tea"))
        await asyncio.wait_for(reached.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert ended.is_set()
    assert other_tasks() == set()
    assert [each.outcome for each in request.ledger.records] == ["cancelled"]


async def test_a_timeout_of_the_host_around_a_decorated_function_ends_it() -> None:
    manager = manager_of(plugin(allow))

    @guarded(manager)
    async def hang() -> None:
        await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await hang()
    assert other_tasks() == set()


async def test_a_decorated_function_that_bypassed_a_mandatory_hook_raises_or_alarms(
    caplog: pytest.LogCaptureFixture,
) -> None:
    called: list[str] = []

    async def search(q: str) -> str:
        called.append(q)
        return q

    strict = guarded(manager_of(coverage=CoverageConfig(mandatory=["tool_pre_invoke"])))(search)
    with pytest.raises(CoverageError, match="tool `search` went past mandatory hook `tool_pre_invoke`"):
        await strict("a")
    assert called == []
    alarming = CoverageConfig(mode=CoverageMode.ALARM, mandatory=["tool_pre_invoke"])
    with caplog.at_level(logging.WARNING):
        assert await guarded(manager_of(coverage=alarming))(search)("b") == "b"
    assert "tool `search` went past mandatory hook `tool_pre_invoke`" in caplog.text


def test_functions_that_give_their_results_one_by_one_are_refused_when_decorating() -> None:
    async def stream() -> Any:
        yield 1

    def steps() -> Any:
        yield 1

    for each in (stream, steps):
        with pytest.raises(TypeError, match=r"`.*` gives its results one by one, and plugins judge the whole"):
            guarded()(each)
