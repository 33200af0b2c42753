"""The guard in real agents of the OpenAI Agents SDK with the SDK's own model that follows a script."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
from typing import Any

import pytest
from agents import (
    Agent,
    AgentHooks,
    GuardrailFunctionOutput,
    InputGuardrailTripwireTriggered,
    ModelProvider,
    OutputGuardrailTripwireTriggered,
    RunConfig,
    Runner,
    RunState,
    UserError,
    WebSearchTool,
    function_tool,
    handoff,
    output_guardrail,
    set_tracing_disabled,
)
from agents.testing import ModelStep, ScriptedModel, assistant_message, function_call
from agents.tool_context import ToolContext
from integration.adapters.handlers import (
    counting,
    crash,
    echo_of_asked,
    echo_of_prompt,
    hooks_of,
    mask,
    recorders,
    rewriting,
)
from support import allow, deny, manager_of, plugin

from cpex.adapters.openai_agents import guard_agent, guard_model, guard_tools
from cpex.framework import PluginError, PluginResult
from cpex.framework.errors import CoverageError, GuardError
from cpex.framework.models.coverage import CoverageConfig, CoverageMode

set_tracing_disabled(True)
PRE, POST = "tool_pre_invoke", "tool_post_invoke"
MODEL_HOOKS = ["cmf.llm_input", "cmf.llm_output"]
AGENT_HOOKS = ["agent_pre_invoke", "agent_post_invoke"]


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


async def answered(agent: Any, text: str, streamed: bool = False, heard: list[Any] | None = None) -> Any:
    async with asyncio.timeout(60):
        if not streamed:
            return await Runner.run(agent, text)
        result = Runner.run_streamed(agent, text)
        async for event in result.stream_events():
            if heard is not None:
                heard.append(event)
        return result


def outputs(result: Any) -> list[Any]:
    return [item.output for item in result.new_items if item.type == "tool_call_output_item"]


def texts(items: Any) -> list[Any]:
    return [items] if isinstance(items, str) else [each["content"] for each in items]


async def run(*plugins: Any, said: Any, **options: Any) -> list[Any]:
    result = await asyncio.wait_for(Runner.run(agent_of(manager_of(*plugins), *said, **options), "hi"), 60)
    return outputs(result)


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

    manager = manager_of(plugin(counting(seen)))
    async with manager.request(user="ann"):
        await Runner.run(agent_of(manager, SEARCH, calling(("search", "more")), "done"), "hi")
    assert seen == [("ann", 1), ("ann", 2)]


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_goes_to_the_model_and_comes_from_it_is_rewritten(streamed: bool) -> None:
    model = ScriptedModel([calling(("search", "secret")), [assistant_message("my secret")]])
    agent = Agent(name="helper", model=model, tools=[search], instructions="the secret of the house")
    result = await answered(guard_agent(agent, manager_of(plugin(mask, hooks=MODEL_HOOKS))), "a secret", streamed)
    assert (model.first_call.system_instructions, texts(model.first_call.input)) == ("the *** of the house", ["a ***"])
    assert (outputs(result), result.final_output) == (["found ***"], "my ***")
    assert model.last_call.streamed is streamed


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_model_that_no_plugin_objects_to_is_asked_and_heard_as_it_is(streamed: bool) -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append((payload.hook.value, payload.message.role.value))
        return PluginResult()

    agent = agent_of(manager_of(plugin(look, hooks=MODEL_HOOKS)), SEARCH, "done", instructions="be kind")
    result = await answered(agent, "hi", streamed)
    assert (outputs(result), result.final_output) == (["found tea"], "done")
    first = [("llm_input", "system"), ("llm_input", "user"), ("llm_output", "assistant")]
    second = [*first[:2], ("llm_input", "assistant"), ("llm_input", "tool"), ("llm_output", "assistant")]
    assert seen == [*first, *second]


@pytest.mark.parametrize("streamed", [False, True])
async def test_a_denied_model_call_trips_a_guardrail_that_says_why(streamed: bool) -> None:
    model = ScriptedModel([[assistant_message("my secret")]])
    agent = guard_agent(Agent(name="helper", model=model), manager_of(plugin(deny, hooks=["cmf.llm_input"])))
    with pytest.raises(InputGuardrailTripwireTriggered) as asked:
        await answered(agent, "hi", streamed)
    assert (asked.value.guardrail_result.output.output_info.code, model.calls) == ("NO", ())
    agent = guard_agent(Agent(name="helper", model=model), manager_of(plugin(deny, hooks=["cmf.llm_output"])))
    heard: list[Any] = []
    with pytest.raises(OutputGuardrailTripwireTriggered) as said:
        await answered(agent, "hi", streamed, heard)
    assert (said.value.guardrail_result.output.output_info.code, len(model.calls)) == ("NO", 1)
    assert "secret" not in str(heard)


async def test_no_piece_of_a_rewritten_answer_streams_to_anybody() -> None:
    agent = agent_of(manager_of(plugin(mask, hooks=MODEL_HOOKS)), "my secret")
    heard: list[Any] = []
    assert (await answered(agent, "hi", True, heard)).final_output == "my ***"
    assert heard != []
    assert "secret" not in str(heard)


async def test_state_of_model_calls_goes_from_before_to_after_and_parallel_runs_are_kept_apart() -> None:
    manager = manager_of(plugin(echo_of_prompt(3), hooks=MODEL_HOOKS))
    agents = {text: agent_of(manager, "done") for text in "abc"}
    results = await asyncio.gather(*(answered(agent, text, text == "b") for text, agent in agents.items()))
    assert [result.final_output for result in results] == ["a", "b", "c"]


async def test_models_are_found_by_name_and_an_answer_of_one_that_nothing_guards_is_refused() -> None:
    class House(ModelProvider):
        def get_model(self, model_name: str | None) -> Any:
            asked.append(model_name)
            return ScriptedModel([[assistant_message("my secret")]])

    asked: list[str | None] = []
    manager = manager_of(plugin(mask, hooks=MODEL_HOOKS))
    agent = guard_agent(Agent(name="helper", model="house"), manager, model_provider=House())
    assert (await answered(agent, "hi")).final_output == "my ***"
    assert asked == ["house"]
    other = ScriptedModel([[assistant_message("my secret")], [assistant_message("my secret")]])
    with pytest.raises(GuardError, match=r"was answered by a model that nothing guards; `RunConfig\(model=\.\.\.\)`"):
        await Runner.run(agent, "hi", run_config=RunConfig(model=other))
    result = await Runner.run(agent, "hi", run_config=RunConfig(model=guard_model(other, manager)))
    assert result.final_output == "my ***"


async def test_an_unguarded_model_is_a_gap_in_the_coverage() -> None:
    coverage = CoverageConfig(mode=CoverageMode.RAISE, mandatory=["cmf.llm_input"])
    manager = manager_of(plugin(allow, hooks=MODEL_HOOKS), coverage=coverage)
    agent = agent_of(manager, "done")
    other = ScriptedModel([[assistant_message("my secret")]])
    async with manager.request() as request:
        with pytest.raises(CoverageError, match=r"model `helper` went past mandatory hook `cmf\.llm_input`"):
            await Runner.run(agent, "hi", run_config=RunConfig(model=other))
    assert [(each.outcome, each.missing) for each in request.ledger.records] == [("bypassed", ["cmf.llm_input"])]
    with pytest.raises(CoverageError):
        await answered(agent_of(manager_of(coverage=coverage), "done"), "hi")


@pytest.mark.parametrize("streamed", [False, True])
async def test_agent_hooks_stand_around_a_run_and_trip_guardrails(streamed: bool) -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append((payload.agent_id, [each.content for each in payload.messages], context.get_state("n")))
        context.set_state("n", 1)
        return PluginResult()

    agent = agent_of(manager_of(plugin(look, hooks=AGENT_HOOKS)), SEARCH, "done")
    await answered(agent, "hi", streamed)
    assert seen == [("helper", ["hi"], None), ("helper", ["done"], 1)]
    for hook, error in (
        ("agent_pre_invoke", InputGuardrailTripwireTriggered),
        ("agent_post_invoke", OutputGuardrailTripwireTriggered),
    ):
        agent = agent_of(manager_of(plugin(deny, hooks=[hook])), SEARCH, "done")
        with pytest.raises(error) as caught:
            await answered(agent, "hi", streamed)
        assert caught.value.guardrail_result.output.output_info.code == "NO"


async def test_what_guardrails_cannot_rewrite_is_an_error_that_says_where_to() -> None:
    for hook, where in (("agent_pre_invoke", "cmf.llm_input"), ("agent_post_invoke", "cmf.llm_output")):
        agent = agent_of(manager_of(plugin(rewriting(messages=[]), hooks=[hook])), "done")
        with pytest.raises(GuardError, match=f"rewrite it in `{where}`"):
            await answered(agent, "hi")


async def test_parallel_runs_keep_their_agent_state_apart_and_one_that_fails_leaves_nothing_behind() -> None:
    arrived = asyncio.Barrier(3)
    seen: list[Any] = []

    async def judge(payload: Any, context: Any) -> PluginResult[Any]:
        if (asked := context.get_state("asked")) is not None:
            seen.append((asked, payload.messages[0].content))
            return PluginResult()
        context.set_state("asked", payload.messages[0].content)
        await asyncio.wait_for(arrived.wait(), 60)
        return PluginResult()

    manager = manager_of(plugin(judge, hooks=AGENT_HOOKS))
    await asyncio.gather(*(answered(agent_of(manager, text), text) for text in "abc"))
    assert sorted(seen) == [("a", "a"), ("b", "b"), ("c", "c")]


@function_tool(needs_approval=True)
async def order(q: str) -> str:
    return f"ordered {q}"


async def resumed(*plugins: Any, stored: bool = False, **options: Any) -> Any:
    """A run that waited for somebody's approval, and goes on; `stored` in between, as for another process."""
    agent = agent_of(manager_of(*plugins, **options), calling(("order", "tea")), "a secret", tools=[order])
    state = (await asyncio.wait_for(Runner.run(agent, "hi"), 60)).to_state()
    if stored:
        state = await RunState.from_json(agent, state.to_json())
    for each in state.get_interruptions():
        state.approve(each)
    return await asyncio.wait_for(Runner.run(agent, state), 60)


@pytest.mark.parametrize("stored", [False, True])
async def test_the_answer_of_a_run_that_was_interrupted_is_judged_as_well(stored: bool) -> None:
    with pytest.raises(OutputGuardrailTripwireTriggered) as caught:
        await resumed(plugin(deny, hooks=["agent_post_invoke"]), stored=stored)
    assert caught.value.guardrail_result.output.output_info.code == "NO"
    assert (await resumed(plugin(allow, hooks=AGENT_HOOKS), stored=stored)).final_output == "a secret"
    wanted = CoverageConfig(mode=CoverageMode.RAISE, mandatory=["agent_pre_invoke"])
    with pytest.raises(CoverageError, match="agent_pre_invoke"):
        await resumed(plugin(allow, hooks=AGENT_HOOKS), stored=stored, coverage=wanted)


async def test_a_run_that_fails_is_a_failure_and_no_gap() -> None:
    coverage = CoverageConfig(mode=CoverageMode.RAISE, mandatory=["agent_post_invoke"])
    manager = manager_of(plugin(allow, hooks=AGENT_HOOKS), coverage=coverage)
    async with manager.request() as request:
        with contextlib.suppress(KeyError):
            model = ScriptedModel([ModelStep.raise_error(KeyError("gone"))])
            await Runner.run(guard_agent(Agent(name="helper", model=model), manager), "hi")
        gc.collect()
    assert [each.outcome for each in request.ledger.records] == ["failed"]


async def test_the_agents_own_hooks_and_guardrails_are_called_as_before() -> None:
    called: list[str] = []

    class Own(AgentHooks[Any]):
        async def on_start(self, context: Any, agent: Any) -> None:
            called.append("start")

        async def on_llm_end(self, context: Any, agent: Any, response: Any) -> None:
            called.append("llm")

    @output_guardrail
    async def own(context: Any, agent: Any, output: Any) -> GuardrailFunctionOutput:
        called.append("guardrail")
        return GuardrailFunctionOutput(output_info=None, tripwire_triggered=False)

    agent = agent_of(manager_of(plugin(allow, hooks=MODEL_HOOKS)), "done", hooks=Own(), output_guardrails=[own])
    await answered(agent, "hi")
    assert called == ["start", "llm", "guardrail"]


async def test_a_conversation_that_the_server_keeps_goes_without_agent_hooks() -> None:
    agent = Agent(name="helper", model=ScriptedModel([[assistant_message("done")]]))
    manager = manager_of(plugin(deny, hooks=AGENT_HOOKS))
    with pytest.raises(UserError, match="Output guardrails cannot be combined with conversation_id"):
        await Runner.run(guard_agent(agent, manager), "hi", conversation_id="c")
    result = await Runner.run(guard_agent(agent, manager, runs=False), "hi", conversation_id="c")
    assert result.final_output == "done"


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


async def test_an_agent_that_is_a_tool_is_one_call_and_is_guarded_inside_where_it_was_guarded_before() -> None:
    seen: list[str] = []

    async def look(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(payload.name)
        return PluginResult()

    manager = manager_of(plugin(look))
    for guarded, names in ((True, ["helper", "search"]), (False, ["helper"])):
        seen.clear()
        inner = Agent(name="inner", model=ScriptedModel([SEARCH, [assistant_message("done")]]), tools=[search])
        inner = guard_agent(inner, manager) if guarded else inner
        tool = inner.as_tool(tool_name="helper", tool_description="helps")
        steps = [[function_call("helper", {"input": "tea"}, call_id="1")], [assistant_message("done")]]
        await answered(guard_agent(Agent(name="outer", model=ScriptedModel(steps), tools=[tool]), manager), "hi")
        assert seen == names


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


async def test_the_hooks_that_fire_are_those_of_the_table() -> None:
    seen: set[str] = set()
    await run(*recorders(seen), said=[SEARCH, "done"])
    assert seen == hooks_of("OpenAI Agents")
