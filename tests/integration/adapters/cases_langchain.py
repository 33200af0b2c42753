"""The guard in real LangChain agents with a model that says what it is told to."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from integration.adapters.handlers import (
    counting,
    crash,
    echo_of_agent,
    echo_of_asked,
    hooks_of,
    mask,
    recorders,
    rewriting,
)
from langchain.agents import create_agent
from langchain_core.language_models.fake_chat_models import GenericFakeChatModel
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from support import allow, deny, manager_of, plugin

from cpex.adapters.langchain import GuardMiddleware
from cpex.framework import PluginError, PluginResult
from cpex.framework.cmf.adapters import AdapterError
from cpex.framework.errors import CoverageError, GuardError
from cpex.framework.guard.sync import SyncGuard
from cpex.framework.models.coverage import CoverageConfig, CoverageMode

PRE, POST = "tool_pre_invoke", "tool_post_invoke"
MODEL_HOOKS = ["cmf.llm_input", "cmf.llm_output"]
AGENT_HOOKS = ["agent_pre_invoke", "agent_post_invoke"]
HEARD: list[list[Any]] = []


class Model(GenericFakeChatModel):
    """Says the prepared messages, and keeps what it was asked."""

    def bind_tools(self, tools: Any, **options: Any) -> Model:
        return self

    def _generate(self, messages: list[Any], *args: Any, **kwargs: Any) -> Any:
        HEARD.append(messages)
        return super()._generate(messages, *args, **kwargs)


@pytest.fixture(autouse=True)
def nothing_heard() -> None:
    HEARD.clear()


async def search(q: str) -> str:
    """Search."""
    return f"found {q}"


def look_up(q: str) -> str:
    """Look up."""
    return f"looked up {q}"


async def remember(q: str) -> Command[Any]:
    """Remember."""
    return Command(update={"messages": [ToolMessage(f"remembered {q}", tool_call_id="1")]})


def calling(*calls: tuple[str, dict[str, Any]]) -> AIMessage:
    listed = [{"name": name, "args": args, "id": str(number)} for number, (name, args) in enumerate(calls, start=1)]
    return AIMessage(content="", tool_calls=listed)


def agent_of(guard: Any, *said: Any, **options: Any) -> Any:
    tools = options.pop("tools", [search, look_up, remember])
    return create_agent(Model(messages=iter(said)), tools=tools, middleware=[GuardMiddleware(guard)], **options)


async def run(*plugins: Any, said: Any, ask: str = "hi", **options: Any) -> list[Any]:
    agent = agent_of(manager_of(*plugins, coverage=options.pop("coverage", None)), *said, **options)
    result = await asyncio.wait_for(agent.ainvoke({"messages": [HumanMessage(ask)]}), 60)
    return list(result["messages"])


SEARCH = calling(("search", {"q": "tea"}))


async def test_what_no_plugin_objects_to_passes_as_it_is() -> None:
    messages = await run(plugin(allow, hooks=[PRE, POST, *MODEL_HOOKS]), said=[SEARCH, "done"])
    assert [each.content for each in messages] == ["hi", "", "found tea", "done"]
    assert messages[1].tool_calls[0]["args"] == {"q": "tea"}


async def test_a_denied_tool_answers_with_an_error_that_the_model_reads() -> None:
    messages = await run(plugin(deny), said=[SEARCH, "sorry"])
    assert (messages[2].content, messages[2].status, messages[2].tool_call_id) == ("denied: because (NO)", "error", "1")
    assert messages[3].content == "sorry"
    assert HEARD[-1][-1].content == "denied: because (NO)"


async def test_arguments_and_results_of_tools_are_rewritten() -> None:
    seen: list[Any] = []

    async def post(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(payload.result)
        return PluginResult(modified_payload=payload.model_copy(update={"result": "masked"}))

    messages = await run(
        plugin(rewriting(args={"q": "green tea"}), "pre"), plugin(post, "post", hooks=[POST]), said=[SEARCH, "done"]
    )
    assert (seen, messages[2].content) == (["found green tea"], "masked")


async def test_what_a_command_updates_is_seen_as_well() -> None:
    messages = await run(
        plugin(mask, hooks=["cmf.tool_pre_invoke"]), said=[calling(("remember", {"q": "secret"})), "done"]
    )
    assert messages[2].content == "remembered ***"
    with_denial = await run(plugin(deny, hooks=[POST]), said=[calling(("remember", {"q": "secret"})), "done"])
    assert with_denial[2].content == "denied: because (NO)"


async def test_a_rewritten_name_is_an_error() -> None:
    with pytest.raises(GuardError, match="rewrote tool `search` to `look_up`"):
        await run(plugin(rewriting(name="look_up")), said=[SEARCH, "done"])


async def test_what_goes_to_the_model_and_comes_from_it_is_rewritten() -> None:
    answer = AIMessage(content="my secret", id="kept", response_metadata={"a": 1})
    messages = await run(
        plugin(mask, hooks=MODEL_HOOKS), said=[answer], ask="a secret", system_prompt="the secret of the house"
    )
    assert [type(each) for each in HEARD[0]] == [SystemMessage, HumanMessage]
    assert [each.content for each in HEARD[0]] == ["the *** of the house", "a ***"]
    # What the user said stays in the conversation; the model never reads it.
    assert [each.content for each in messages] == ["a secret", "my ***"]
    assert (messages[1].id, messages[1].response_metadata["a"]) == ("kept", 1)


async def test_calls_in_a_models_words_are_rewritten() -> None:
    messages = await run(plugin(mask, hooks=MODEL_HOOKS), said=[calling(("search", {"q": "secret"})), "done"])
    assert messages[2].content == "found ***"


@pytest.mark.parametrize("said", [{"reasoning_content": "a secret"}, {"refusal": "a secret"}])
async def test_what_a_model_says_beside_its_content_is_rewritten_too(said: dict[str, str]) -> None:
    logprobs = {"content": [{"token": "secret", "logprob": -0.1}]}
    answer = AIMessage(
        "my secret", additional_kwargs={**said, "kept": 1}, response_metadata={"a": 1, "logprobs": logprobs}
    )
    [_, message] = await run(plugin(mask, hooks=["cmf.llm_output"]), said=[answer])
    assert "secret" not in message.model_dump_json()
    assert "a ***" in message.model_dump_json()
    assert (message.additional_kwargs["kept"], message.response_metadata["a"]) == (1, 1)


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        (AIMessage("", additional_kwargs={"audio": {"transcript": "a secret"}}), "additional_kwargs.audio"),
        (AIMessage("", additional_kwargs={"function_call": {"name": "f"}}), "additional_kwargs.function_call"),
        (
            AIMessage("", invalid_tool_calls=[{"name": "f", "args": '{"a', "id": "1", "error": None}]),
            "invalid_tool_calls",
        ),
    ],
    ids=["audio", "function_call", "invalid_tool_calls"],
)
async def test_an_answer_that_plugins_are_not_shown_is_an_error(answer: AIMessage, place: str) -> None:
    with pytest.raises(AdapterError, match=re.escape(f"messages[0].{place}")):
        await run(plugin(mask, hooks=["cmf.llm_output"]), said=[answer])
    assert (await run(plugin(allow, hooks=[PRE]), said=[answer]))[-1].content == ""


@pytest.mark.parametrize("hook", MODEL_HOOKS)
async def test_a_denied_model_call_ends_the_turn_and_says_why(hook: str) -> None:
    messages = await run(plugin(deny, hooks=[hook]), said=[SEARCH])
    assert [each.content for each in messages] == ["hi", "denied: because (NO)"]
    assert len(HEARD) == (1 if hook == "cmf.llm_output" else 0)


async def test_state_goes_from_pre_to_post_and_parallel_tools_are_kept_apart() -> None:
    both = echo_of_asked(3)
    messages = await run(both, said=[calling(*(("search", {"q": q}) for q in "abc")), "done"])
    assert [each.content for each in messages[2:5]] == ["a", "b", "c"]


async def test_what_an_agent_is_asked_and_answers_is_rewritten() -> None:
    seen: list[Any] = []

    async def judge(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append((payload.agent_id, [(each.role, each.content) for each in payload.messages]))
        *others, last = payload.messages
        masked = last.model_copy(update={"content": last.content.replace("secret", "***")})
        return PluginResult(modified_payload=payload.model_copy(update={"messages": [*others, masked]}))

    said = [SEARCH, AIMessage("my secret", id="kept")]
    messages = await run(plugin(judge, hooks=AGENT_HOOKS), said=said, ask="a secret")
    assert seen == [("agent", [("user", "a secret")]), ("agent", [("assistant", "my secret")])]
    assert HEARD[0][0].content == "a ***"
    assert [each.content for each in messages] == ["a ***", "", "found tea", "my ***"]
    assert messages[-1].id == "kept"


async def test_a_denied_run_ends_at_once_and_a_denied_answer_is_not_in_the_conversation() -> None:
    before = await run(plugin(deny, hooks=["agent_pre_invoke"]), said=["my secret"])
    assert ([each.content for each in before], HEARD) == (["hi", "denied: because (NO)"], [])
    after = await run(plugin(deny, hooks=["agent_post_invoke"]), said=["my secret"])
    assert [each.content for each in after] == ["hi", "denied: because (NO)"]


async def test_state_of_runs_goes_from_pre_to_post_and_parallel_runs_are_kept_apart() -> None:
    manager = manager_of(plugin(echo_of_agent(3), hooks=AGENT_HOOKS))
    agent = create_agent(Model(messages=iter("xyz")), middleware=[GuardMiddleware(manager)])
    async with manager.request():
        results = await asyncio.gather(*(agent.ainvoke({"messages": [HumanMessage(text)]}) for text in "abc"))
    assert [result["messages"][-1].content for result in results] == ["a", "b", "c"]


async def test_a_conversation_that_goes_on_is_judged_run_by_run() -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append([each.content for each in payload.messages])
        return PluginResult()

    agent = agent_of(manager_of(plugin(look, hooks=AGENT_HOOKS)), "one", "two", checkpointer=InMemorySaver())
    thread = {"configurable": {"thread_id": "1"}}
    for text in ("first", "second"):
        await agent.ainvoke({"messages": [HumanMessage(text)]}, thread)
    assert seen == [["first"], ["one"], ["first", "one", "second"], ["two"]]


async def test_mandatory_hooks_around_runs_and_models_that_no_plugin_handles_stop_the_agent() -> None:
    for hook in ("agent_pre_invoke", "agent_post_invoke", "cmf.llm_input", PRE):
        coverage = CoverageConfig(mode=CoverageMode.RAISE, mandatory=[hook])
        with pytest.raises(CoverageError, match=f"went past mandatory hook `{re.escape(hook)}`"):
            await run(said=[SEARCH, "done"], coverage=coverage)


async def test_a_gap_in_the_coverage_can_be_an_alarm(caplog: pytest.LogCaptureFixture) -> None:
    coverage = CoverageConfig(mode=CoverageMode.ALARM, mandatory=[POST])
    messages = await run(plugin(allow), said=[SEARCH, "done"], coverage=coverage)
    assert messages[-1].content == "done"
    assert [record.getMessage().partition(":")[0] for record in caplog.records if record.name.startswith("cpex")] == [
        "tool `search` went past mandatory hook `tool_post_invoke`"
    ]


async def test_operations_belong_to_the_request_that_is_open_around_the_agent() -> None:
    seen: list[Any] = []

    manager = manager_of(plugin(counting(seen)))
    again = AIMessage("", tool_calls=[{"name": "search", "args": {"q": "more"}, "id": "again"}])
    agent = agent_of(manager, calling(("search", {"q": "tea"})), again, "done")
    async with manager.request(user="ann"):
        await agent.ainvoke({"messages": [HumanMessage("hi")]})
    assert seen == [("ann", 1), ("ann", 2)]


async def test_a_plugin_that_fails_stops_the_agent() -> None:
    with pytest.raises(PluginError):
        await run(plugin(crash), said=[SEARCH, "done"])


def test_agents_without_an_event_loop_are_guarded_as_well() -> None:
    masked = plugin(mask, hooks=MODEL_HOOKS)
    with SyncGuard(manager_of(masked, plugin(rewriting(args={"q": "green tea"}), "pre"))) as guard:
        said = [calling(("look_up", {"q": "tea"})), "my secret"]
        result = agent_of(guard, *said).invoke({"messages": [HumanMessage("hi")]})
    assert [each.content for each in result["messages"]][2:] == ["looked up green tea", "my ***"]
    with SyncGuard(manager_of(plugin(deny))) as guard:
        result = agent_of(guard, calling(("look_up", {"q": "tea"})), "sorry").invoke({"messages": [HumanMessage("hi")]})
    assert result["messages"][2].content == "denied: because (NO)"


def test_runs_without_an_event_loop_have_agent_hooks_as_well() -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append((context.global_context.user, [each.content for each in payload.messages], context.get_state("n")))
        context.set_state("n", 1)
        return PluginResult()

    ask = {"messages": [HumanMessage("hi")]}
    with SyncGuard(manager_of(plugin(look, hooks=AGENT_HOOKS))) as guard, guard.request(user="ann"):
        agent_of(guard, "done").invoke(ask)
    assert seen == [("ann", ["hi"], None), ("ann", ["done"], 1)]
    with SyncGuard(manager_of(plugin(deny, hooks=["agent_post_invoke"]))) as guard:
        assert agent_of(guard, "done").invoke(ask)["messages"][-1].content == "denied: because (NO)"


def test_a_guard_of_the_wrong_kind_is_an_error() -> None:
    ask = {"messages": [HumanMessage("hi")]}
    with pytest.raises(GuardError, match="the agent runs without an event loop"):
        agent_of(manager_of(plugin(deny)), "hi").invoke(ask)
    with SyncGuard(manager_of(plugin(deny))) as guard:
        agent = agent_of(guard, "hi")
        with pytest.raises(GuardError, match="the agent runs on an event loop"):
            asyncio.run(agent.ainvoke(ask))


async def test_the_hooks_that_fire_are_those_of_the_table() -> None:
    seen: set[str] = set()
    await run(*recorders(seen), said=[SEARCH, "done"])
    assert seen == hooks_of("LangChain")
