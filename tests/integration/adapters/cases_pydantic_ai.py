"""The guard in real agents of pydantic-ai with a model that says what it is told to."""

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
from pydantic import BaseModel
from pydantic_ai import Agent, ImageUrl
from pydantic_ai.messages import ModelResponse, TextPart, ThinkingPart, ToolCallPart, ToolReturnPart
from pydantic_ai.models.function import FunctionModel
from support import allow, deny, manager_of, plugin

from cpex.adapters.pydantic_ai import GuardCapability
from cpex.framework import PluginError, PluginResult, PluginViolationError
from cpex.framework.errors import CoverageError, GuardError
from cpex.framework.models.coverage import CoverageConfig, CoverageMode

PRE, POST = "tool_pre_invoke", "tool_post_invoke"
MODEL_HOOKS = ["cmf.llm_input", "cmf.llm_output"]
AGENT_HOOKS = ["agent_pre_invoke", "agent_post_invoke"]


class Weight(BaseModel):
    grams: int


def calling(*calls: tuple[str, dict[str, Any]]) -> ModelResponse:
    return ModelResponse([ToolCallPart(name, args, tool_call_id=f"{name}-{args['q']}") for name, args in calls])


class House:
    """An agent, and what its model was asked."""

    def __init__(self, manager: Any, *said: Any, **options: Any) -> None:
        self.heard: list[Any] = []
        self.instructions: list[Any] = []
        left = iter(said)

        async def speak(messages: Any, info: Any) -> ModelResponse:
            self.heard.append(messages)
            self.instructions.append(info.instructions)
            words = next(left)
            return words if isinstance(words, ModelResponse) else ModelResponse([TextPart(words)])

        self.agent = Agent(FunctionModel(speak), capabilities=[GuardCapability(manager)], **options)

        @self.agent.tool_plain
        async def search(q: str) -> str:
            return f"found {q}"

        @self.agent.tool_plain
        def look_up(q: str) -> dict[str, str]:
            return {"looked up": q}

    async def ask(self, prompt: Any = "hi") -> Any:
        return await asyncio.wait_for(self.agent.run(prompt), 60)


def returned(result: Any) -> list[Any]:
    parts = [part for message in result.all_messages() for part in message.parts]
    return [part for part in parts if isinstance(part, ToolReturnPart)]


SEARCH = calling(("search", {"q": "tea"}))


async def test_what_no_plugin_objects_to_passes_as_it_is() -> None:
    house = House(manager_of(plugin(allow, hooks=[PRE, POST, *MODEL_HOOKS])), SEARCH, "done")
    result = await house.ask()
    assert (result.output, [each.content for each in returned(result)]) == ("done", ["found tea"])


async def test_a_denied_tool_is_a_failure_that_the_model_reads() -> None:
    house = House(manager_of(plugin(deny)), SEARCH, "sorry")
    result = await house.ask()
    (failure,) = returned(result)
    assert (result.output, failure.content, failure.outcome) == ("sorry", "denied: because (NO)", "failed")


async def test_arguments_and_results_of_tools_are_rewritten() -> None:
    manager = manager_of(
        plugin(rewriting(args={"q": "green tea"}), "pre"),
        plugin(mask, "common", hooks=["cmf.tool_post_invoke"], conditions=[{"tools": ["look_up"]}]),
    )
    result = await House(manager, calling(("search", {"q": "tea"})), "done").ask()
    assert returned(result)[0].content == "found green tea"
    manager = manager_of(plugin(mask, hooks=["cmf.tool_post_invoke"]))
    result = await House(manager, calling(("look_up", {"q": "secret"})), "done").ask()
    assert returned(result)[0].content == {"looked up": "***"}


async def test_a_rewritten_name_is_an_error() -> None:
    with pytest.raises(GuardError, match="rewrote tool `search` to `look_up`"):
        await House(manager_of(plugin(rewriting(name="look_up"))), SEARCH, "done").ask()


async def test_what_goes_to_the_model_and_comes_from_it_is_rewritten() -> None:
    answer = ModelResponse([ThinkingPart("a secret thought"), ToolCallPart("search", '{"q": "secret"}', "1")])
    house = House(
        manager_of(plugin(mask, hooks=MODEL_HOOKS)),
        answer,
        "my secret",
        instructions="the secret of the house",
        system_prompt="a secret rule",
    )
    result = await house.ask("a secret wish")
    assert [part.content for part in house.heard[0][0].parts] == ["a *** rule", "a *** wish"]
    assert house.instructions[0] == "the *** of the house"
    assert result.output == "my ***"
    assert returned(result)[0].content == "found ***"
    assert [part.content for part in result.all_messages()[1].parts if isinstance(part, ThinkingPart)] == [
        "a *** thought"
    ]


async def test_what_the_common_format_cannot_say_is_kept_beside_what_is_rewritten() -> None:
    house = House(manager_of(plugin(mask, hooks=MODEL_HOOKS)), "done")
    image = ImageUrl(url="https://example.com/a.png")
    await house.ask(["a secret picture", image])
    assert list(house.heard[0][0].parts[0].content) == ["a *** picture", image]


async def test_what_a_provider_keeps_beside_a_text_goes_with_the_text_that_is_rewritten() -> None:
    said = ModelResponse(
        [
            ThinkingPart("a secret", provider_details={"raw_content": ["a secret"]}),
            TextPart("my secret", provider_details={"logprobs": [{"token": "secret"}]}),
            TextPart(" is fine", provider_details={"kept": 1}),
        ]
    )
    house = House(manager_of(plugin(mask, hooks=["cmf.llm_output"])), said)
    parts = (await house.ask()).all_messages()[-1].parts
    assert [(part.content, part.provider_details) for part in parts] == [
        ("a ***", None),
        ("my ***", None),
        (" is fine", {"kept": 1}),
    ]


@pytest.mark.parametrize("hook", MODEL_HOOKS)
async def test_a_denied_model_call_ends_the_run(hook: str) -> None:
    house = House(manager_of(plugin(deny, hooks=[hook])), SEARCH)
    with pytest.raises(PluginViolationError) as caught:
        await house.ask()
    assert caught.value.violation is not None
    assert caught.value.violation.code == "NO"
    assert len(house.heard) == (1 if hook == "cmf.llm_output" else 0)


async def test_state_goes_from_pre_to_post_and_parallel_tools_are_kept_apart() -> None:
    both = echo_of_asked(3)
    result = await House(manager_of(both), calling(*(("search", {"q": q}) for q in "abc")), "done").ask()
    assert [each.content for each in returned(result)] == ["a", "b", "c"]


async def rewrite_content(payload: Any, context: Any) -> PluginResult[Any]:
    """Replaces the word `secret` in the first message of an agent."""
    (message,) = payload.messages
    if isinstance(message.content, str):
        content: Any = message.content.replace("secret", "***")
    else:
        text, *others = message.content
        content = [text.model_copy(update={"text": text.text.replace("secret", "***")}), *others]
    masked = message.model_copy(update={"content": content})
    return PluginResult(modified_payload=payload.model_copy(update={"messages": [masked]}))


async def test_what_an_agent_is_asked_and_answers_is_rewritten_also_for_the_next_run() -> None:
    house = House(manager_of(plugin(rewrite_content, hooks=AGENT_HOOKS)), SEARCH, "my secret", "again")
    result = await house.ask("a secret")
    assert house.heard[0][0].parts[0].content == "a ***"
    assert result.output == "my ***"
    await house.agent.run("more", message_history=result.all_messages())
    assert "secret" not in str(house.heard[-1])


async def test_texts_of_a_prompt_with_pictures_are_rewritten_and_the_pictures_kept() -> None:
    image = ImageUrl(url="https://example.com/a.png")
    house = House(manager_of(plugin(rewrite_content, hooks=["agent_pre_invoke"])), "done")
    await house.ask(["a secret picture", image])
    assert list(house.heard[0][0].parts[0].content) == ["a *** picture", image]


async def test_an_output_that_is_no_text_is_seen_and_a_rewrite_of_it_is_an_error() -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(payload.messages[0].content.model_dump())
        return PluginResult()

    said = ModelResponse([ToolCallPart("final_result", {"grams": 5}, tool_call_id="1")])
    house = House(manager_of(plugin(look, hooks=["agent_post_invoke"])), said, output_type=Weight)
    assert (await house.ask()).output == Weight(grams=5)
    assert seen == [{"grams": 5}]
    other = [{"role": "assistant", "content": {"grams": 6}}]
    manager = manager_of(plugin(rewriting(messages=other), hooks=["agent_post_invoke"]))
    with pytest.raises(GuardError, match=r"rewrite it in `cmf\.llm_output`"):
        await House(manager, said, output_type=Weight).ask()


@pytest.mark.parametrize("hook", AGENT_HOOKS)
async def test_a_denied_run_ends_with_the_denial(hook: str) -> None:
    house = House(manager_of(plugin(deny, hooks=[hook])), "my secret")
    with pytest.raises(PluginViolationError) as caught:
        await house.ask()
    assert caught.value.violation is not None
    assert (caught.value.violation.code, len(house.heard)) == ("NO", int(hook == "agent_post_invoke"))


async def test_state_of_runs_goes_from_pre_to_post_and_parallel_runs_are_kept_apart() -> None:
    manager = manager_of(plugin(echo_of_agent(3), hooks=AGENT_HOOKS))
    house = House(manager, *"xyz")
    async with manager.request():
        results = await asyncio.gather(*(house.ask(text) for text in "abc"))
    assert [result.output for result in results] == ["a", "b", "c"]


async def test_a_run_whose_answer_streams_is_judged_when_it_ends() -> None:
    async def speak(messages: Any, info: Any) -> Any:
        yield "my "
        yield "secret"

    seen: list[Any] = []

    async def look(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(payload.messages[0].content)
        return PluginResult()

    agent = Agent(
        FunctionModel(stream_function=speak),
        capabilities=[GuardCapability(manager_of(plugin(look, hooks=AGENT_HOOKS)))],
    )
    async with asyncio.timeout(60), agent.run_stream("hi") as result:
        assert await result.get_output() == "my secret"
    assert seen == ["hi", "my secret"]


async def test_a_cancelled_run_is_recorded_as_one() -> None:
    reached = asyncio.Event()

    async def wait(messages: Any, info: Any) -> ModelResponse:
        reached.set()
        await asyncio.Event().wait()
        raise AssertionError

    coverage = CoverageConfig(mode=CoverageMode.RAISE, mandatory=["agent_post_invoke"])
    manager = manager_of(plugin(allow, hooks=AGENT_HOOKS), coverage=coverage)
    agent = Agent(FunctionModel(wait), capabilities=[GuardCapability(manager)])
    async with manager.request() as request:
        task = asyncio.create_task(agent.run("hi"))
        await asyncio.wait_for(reached.wait(), 60)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert [each.outcome for each in request.ledger.records] == ["cancelled"]


async def test_mandatory_hooks_that_no_plugin_handles_stop_the_agent() -> None:
    for hook in ("agent_pre_invoke", "agent_post_invoke", "cmf.llm_output", PRE):
        coverage = CoverageConfig(mode=CoverageMode.RAISE, mandatory=[hook])
        with pytest.raises(CoverageError, match=f"went past mandatory hook `{re.escape(hook)}`"):
            await House(manager_of(coverage=coverage), SEARCH, "done").ask()


async def test_operations_belong_to_the_request_that_is_open_around_the_agent() -> None:
    seen: list[Any] = []

    manager = manager_of(plugin(counting(seen)))
    async with manager.request(user="ann"):
        await House(manager, SEARCH, calling(("search", {"q": "more"})), "done").ask()
    assert seen == [("ann", 1), ("ann", 2)]


async def test_a_plugin_that_fails_ends_the_run() -> None:
    with pytest.raises(PluginError):
        await House(manager_of(plugin(crash)), SEARCH, "done").ask()


async def test_the_hooks_that_fire_are_those_of_the_table() -> None:
    seen: set[str] = set()
    await House(manager_of(*recorders(seen)), SEARCH, "done").ask()
    assert seen == hooks_of("pydantic-ai")
