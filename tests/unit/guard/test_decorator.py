"""Decorated functions: always called through the guard, or refused outside of it."""

from __future__ import annotations

import logging
from typing import Any

import pytest
from support import allow, deny, manager_of, plugin

from cpex.framework.errors import CoverageError, GuardError, PluginViolationError
from cpex.framework.guard import AGENT, PROMPT
from cpex.framework.guard.decorator import covered, guarded
from cpex.framework.models.coverage import CoverageMode
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


def test_arguments_without_names_and_kinds_without_arguments_are_refused_when_decorating() -> None:
    with pytest.raises(TypeError, match=r"argument `rest` of `.*many` has no name in calls"):

        @guarded()
        def many(*rest: int) -> None: ...

    with pytest.raises(TypeError, match="as tool or prompt, not as agent"):
        guarded(kind=AGENT)


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
