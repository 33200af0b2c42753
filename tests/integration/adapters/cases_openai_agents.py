"""The guard in real agents of the OpenAI Agents SDK with the SDK's own model that follows a script."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from agents import Agent, Runner, WebSearchTool, function_tool, handoff, set_tracing_disabled
from agents.testing import ScriptedModel, assistant_message, function_call
from agents.tool_context import ToolContext
from integration.adapters.handlers import crash, echo_of_asked, mask, rewriting
from support import allow, deny, manager_of, plugin

from cpex.adapters.openai_agents import guard_agent, guard_tools
from cpex.framework import PluginError, PluginResult
from cpex.framework.errors import GuardError

set_tracing_disabled(True)
PRE, POST = "tool_pre_invoke", "tool_post_invoke"


@function_tool
async def search(q: str) -> str:
    return f"found {q}"


@function_tool
def look_up(context: ToolContext[Any], q: str) -> str:
    return f"looked up {q} of {json.loads(context.tool_arguments)['q']}"


def calling(*calls: tuple[str, str]) -> list[Any]:
    return [function_call(name, {"q": q}, call_id=f"{name}-{q}") for name, q in calls]


def agent_of(manager: Any, *said: Any, **options: Any) -> Any:
    steps = [each if isinstance(each, list) else [assistant_message(each)] for each in said]
    agent = Agent(name="helper", model=ScriptedModel(steps), tools=options.pop("tools", [search, look_up]), **options)
    return guard_agent(agent, manager)


async def run(*plugins: Any, said: Any, **options: Any) -> list[Any]:
    result = await asyncio.wait_for(Runner.run(agent_of(manager_of(*plugins), *said, **options), "hi"), 30)
    return [item.output for item in result.new_items if item.type == "tool_call_output_item"]


SEARCH = calling(("search", "tea"))


async def test_what_no_plugin_objects_to_passes_as_it_is() -> None:
    assert await run(plugin(allow, hooks=[PRE, POST]), said=[SEARCH, "done"]) == ["found tea"]


async def test_the_model_reads_why_a_tool_was_denied() -> None:
    assert await run(plugin(deny), said=[SEARCH, "sorry"]) == ["denied: because (NO)"]
    assert await run(plugin(deny, hooks=[POST]), said=[SEARCH, "sorry"]) == ["denied: because (NO)"]


async def test_arguments_and_results_are_rewritten() -> None:
    rewrite = plugin(rewriting(args={"q": "green tea"}), "pre")
    assert await run(rewrite, said=[SEARCH, "done"]) == ["found green tea"]
    assert await run(rewrite, said=[calling(("look_up", "tea")), "done"]) == ["looked up green tea of green tea"]
    masked = plugin(mask, hooks=["cmf.tool_post_invoke"])
    assert await run(masked, said=[calling(("search", "secret")), "done"]) == ["found ***"]


async def test_arguments_that_are_no_object_are_not_left_to_the_tool_to_understand() -> None:
    assert await run(plugin(allow), said=[[function_call("search", "[1]", call_id="1")], "done"]) == [
        "denied: the arguments are no JSON object"
    ]


async def test_state_goes_from_pre_to_post_and_parallel_tools_are_kept_apart() -> None:
    both = echo_of_asked(3)
    assert await run(both, said=[calling(*(("search", q) for q in "abc")), "done"]) == ["a", "b", "c"]


async def test_operations_belong_to_the_request_that_is_open_around_the_run() -> None:
    seen: list[Any] = []

    async def count(payload: Any, context: Any) -> PluginResult[Any]:
        context.set_state("calls", context.get_state("calls", 0) + 1)
        seen.append((context.global_context.user, context.get_state("calls")))
        return PluginResult()

    manager = manager_of(plugin(count))
    async with manager.request(user="ann"):
        await Runner.run(agent_of(manager, SEARCH, calling(("search", "more")), "done"), "hi")
    assert seen == [("ann", 1), ("ann", 2)]


async def test_agents_that_are_handed_over_to_are_guarded_as_well() -> None:
    steps = [calling(("search", "tea")), [assistant_message("done")]]
    other = Agent(name="other", model=ScriptedModel(steps), tools=[search])
    first = Agent(
        name="first", model=ScriptedModel([[function_call("transfer_to_other", {}, call_id="h")]]), handoffs=[other]
    )
    other.handoffs = [first]
    result = await Runner.run(guard_agent(first, manager_of(plugin(deny))), "hi")
    assert [item.output for item in result.new_items if item.type == "tool_call_output_item"] == [
        "denied: because (NO)"
    ]


async def test_a_plugin_that_fails_or_renames_ends_the_run() -> None:
    for handler, error in ((crash, PluginError), (rewriting(name="look_up"), GuardError)):
        with pytest.raises(Exception) as caught:
            await run(plugin(handler), said=[SEARCH, "done"])
        causes = [caught.value, caught.value.__cause__]
        assert any(isinstance(each, error) for each in causes)


def test_what_the_guard_cannot_stand_around_must_be_named() -> None:
    manager = manager_of(plugin(deny))
    with pytest.raises(GuardError, match=r"cannot stand around `web_search.*`: only function tools"):
        guard_tools([search, WebSearchTool()], manager)
    name = WebSearchTool().name
    assert [each.name for each in guard_tools([search, WebSearchTool()], manager, unguarded=[name])] == ["search", name]
    with pytest.raises(GuardError, match="the handoff to `other` leads to an agent that cannot be looked into"):
        guard_agent(Agent(name="first", handoffs=[handoff(Agent(name="other"))]), manager)


def test_the_given_agent_and_its_tools_stay_as_they_are() -> None:
    agent = Agent(name="helper", tools=[search])
    guard_agent(agent, manager_of(plugin(deny)))
    assert agent.tools == [search]
