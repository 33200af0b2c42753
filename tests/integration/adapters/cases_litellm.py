"""The guard as a guardrail of the real LiteLLM, whose provider is LiteLLM's own stand-in."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from typing import Any

# Before it is imported: it would fetch a list of prices.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import pytest
from integration.adapters.handlers import crash, echo_of_prompt, hooks_of, mask, recorders
from litellm.exceptions import GuardrailRaisedException
from support import allow, deny, manager_of, plugin

from cpex.adapters.litellm import GuardGuardrail
from cpex.framework import PluginError, PluginResult
from cpex.framework.errors import CoverageError
from cpex.framework.models.coverage import CoverageConfig, CoverageMode

INPUT, OUTPUT = "cmf.llm_input", "cmf.llm_output"


@pytest.fixture(autouse=True)
def no_callbacks_left() -> Iterator[None]:
    yield
    litellm.callbacks = []


def guard(*plugins: Any, **options: Any) -> GuardGuardrail:
    guardrail = GuardGuardrail(manager_of(*plugins), **options)
    litellm.callbacks = [guardrail]
    return guardrail


async def ask(text: str = "hi", answer: Any = "hello", **options: Any) -> Any:
    messages = options.pop("messages", None) or [{"role": "user", "content": text}]
    return await asyncio.wait_for(
        litellm.acompletion(model="gpt-4o", messages=messages, mock_response=answer, guardrails=["cpex"], **options), 60
    )


def keeping(seen: list[Any]) -> Any:
    async def keep(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append((payload.hook.value, payload.message.role.value, payload.message.content[0].text))
        return PluginResult()

    return keep


async def test_what_no_plugin_objects_to_passes_as_it_is() -> None:
    seen: list[Any] = []
    guard(plugin(keeping(seen), hooks=[INPUT, OUTPUT]))
    messages = [{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}]
    response = await ask(messages=messages)
    assert response.choices[0].message.content == "hello"
    assert seen == [
        ("llm_input", "system", "be kind"),
        ("llm_input", "user", "hi"),
        ("llm_output", "assistant", "hello"),
    ]


@pytest.mark.parametrize("hook", [INPUT, OUTPUT])
async def test_a_denial_is_a_guardrails_exception(hook: str) -> None:
    guard(plugin(deny, hooks=[hook]))
    with pytest.raises(GuardrailRaisedException, match=r"denied: because \(NO\)"):
        await ask()


async def test_what_goes_to_the_model_is_rewritten() -> None:
    seen: list[Any] = []

    class Provider(litellm.CustomLLM):
        async def acompletion(self, *args: Any, **kwargs: Any) -> Any:
            seen.extend(kwargs["messages"])
            return litellm.mock_completion(model="m", messages=[], mock_response="fine")

    litellm.custom_provider_map = [{"provider": "house", "custom_handler": Provider()}]
    guard(plugin(mask, hooks=[INPUT]))
    given = [{"role": "user", "content": "a secret wish"}, {"role": "user", "content": "and hello"}]
    await litellm.acompletion(model="house/m", messages=given, guardrails=["cpex"])
    assert [each["content"] for each in seen] == ["a *** wish", "and hello"]


async def test_what_comes_from_the_model_is_rewritten_calls_of_tools_included() -> None:
    guard(plugin(mask, hooks=[OUTPUT]))
    assert (await ask(answer="my secret")).choices[0].message.content == "my ***"
    call = {"id": "1", "type": "function", "function": {"name": "search", "arguments": '{"q": "secret"}'}}
    response = await ask(answer="", mock_tool_calls=[call])
    assert "***" in response.choices[0].message.tool_calls[0].function.arguments


async def test_state_goes_from_pre_to_post_and_parallel_calls_are_kept_apart() -> None:
    guard(plugin(echo_of_prompt(3), hooks=[INPUT, OUTPUT]))
    responses = await asyncio.gather(*(ask(text) for text in "abc"))
    assert [each.choices[0].message.content for each in responses] == ["a", "b", "c"]


async def test_streams_that_plugins_could_not_judge_are_denied() -> None:
    guard(plugin(allow, hooks=[OUTPUT]))
    with pytest.raises(GuardrailRaisedException, match="a stream would go past plugins"):
        await ask(stream=True)


async def test_answers_that_are_no_chat_completions_are_denied() -> None:
    guard(plugin(allow, hooks=[OUTPUT]))
    with pytest.raises(GuardrailRaisedException, match="chat completions only"):
        await litellm.atext_completion(
            model="gpt-3.5-turbo-instruct", prompt="hi", mock_response="hello", guardrails=["cpex"]
        )


def answered(**words: Any) -> Any:
    message = litellm.Message(**{"role": "assistant", "content": None, **words})
    return litellm.ModelResponse(choices=[litellm.Choices(message=message)])


@pytest.mark.parametrize(
    "words",
    [
        {"function_call": {"name": "search", "arguments": '{"q": "secret"}'}},
        {"audio": {"id": "1", "data": "AA==", "expires_at": 1, "transcript": "a secret"}},
        {"images": [{"type": "image_url", "index": 0, "image_url": {"url": "data:image/png;base64,AA=="}}]},
    ],
    ids=["function_call", "audio", "images"],
)
async def test_what_an_answer_says_beside_texts_and_calls_of_tools_is_denied(words: dict[str, Any]) -> None:
    with pytest.raises(GuardrailRaisedException, match=f"denied: .* the answer has `{next(iter(words))}`"):
        await guard(plugin(mask, hooks=[OUTPUT])).async_post_call_success_hook(
            {"messages": []}, None, answered(**words)
        )
    unjudged = answered(**words)
    unwatched = guard(plugin(mask, hooks=[INPUT]))
    assert await unwatched.async_post_call_success_hook({"messages": []}, None, unjudged) is unjudged


async def test_what_repeats_words_goes_with_those_that_are_rewritten() -> None:
    thought = {"type": "thinking", "thinking": "a secret", "signature": "s"}
    more = {"reasoning_content": "a secret", "thinking_blocks": [thought], "provider_specific_fields": {"x": "secret"}}
    given = answered(content="fine", **more)
    given.choices[0].logprobs = {"content": [{"token": "secret", "logprob": -0.1, "top_logprobs": []}]}
    guardrail = guard(plugin(mask, hooks=[OUTPUT]))
    rewritten = await guardrail.async_post_call_success_hook({"messages": []}, None, given)
    assert rewritten.choices[0].message.reasoning_content == "a ***"
    assert "secret" not in rewritten.model_dump_json()
    harmless = answered(content="fine", thinking_blocks=[{**thought, "thinking": "fine"}])
    assert await guardrail.async_post_call_success_hook({"messages": []}, None, harmless) is harmless


async def test_a_refusal_of_the_model_is_judged_like_its_words() -> None:
    guardrail = guard(plugin(mask, hooks=[INPUT, OUTPUT]))
    for content, left in ((None, None), ("fine", "fine"), ("secret", "***")):
        given = answered(content=content, refusal="no secret")
        rewritten = (await guardrail.async_post_call_success_hook({"messages": []}, None, given)).choices[0].message
        assert (rewritten.content, rewritten.refusal) == (left, "no ***")
    history = {"messages": [{"role": "assistant", "content": None, "refusal": "no secret"}]}
    asked = await guardrail.async_pre_call_hook(None, None, history, "acompletion")
    assert asked["messages"] == [{"role": "assistant", "content": None, "refusal": "no ***"}]


async def test_by_default_it_stands_around_calls_that_do_not_name_it() -> None:
    guard(plugin(mask, hooks=[INPUT, OUTPUT]), default_on=True)
    messages = [{"role": "user", "content": "hi"}]
    answer = await litellm.acompletion(model="gpt-4o", messages=messages, mock_response="my secret")
    assert answer.choices[0].message.content == "my ***"
    assert (await ask(answer="my secret")).choices[0].message.content == "my ***"
    guard(plugin(deny, hooks=[INPUT]), default_on=True)
    with pytest.raises(GuardrailRaisedException, match=r"denied: because \(NO\)"):
        await litellm.acompletion(model="gpt-4o", messages=messages, mock_response="hello")


async def test_by_default_each_call_is_judged_once() -> None:
    seen: list[Any] = []
    guard(plugin(keeping(seen), hooks=[INPUT, OUTPUT]), default_on=True)
    router = litellm.Router(
        model_list=[{"model_name": "house", "litellm_params": {"model": "gpt-4o", "mock_response": "hello"}}]
    )
    await router.acompletion(model="house", messages=[{"role": "user", "content": "hi"}])
    assert [(hook, text) for hook, _, text in seen] == [("llm_input", "hi"), ("llm_output", "hello")]


async def test_what_litellm_itself_lets_past_its_guardrails_is_what_the_page_says() -> None:
    messages = [{"role": "user", "content": "hi"}]
    guard(plugin(deny, hooks=[INPUT]))
    unnamed = await litellm.acompletion(model="gpt-4o", messages=messages, mock_response="hello")
    guard(plugin(deny, hooks=[INPUT]), default_on=True)
    waiting = litellm.completion(model="gpt-4o", messages=messages, mock_response="hello", guardrails=["cpex"])
    assert [each.choices[0].message.content for each in (unnamed, waiting)] == ["hello", "hello"]


async def test_the_hooks_of_the_proxy_judge_and_rewrite_what_the_proxy_hands_over() -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append((context.global_context.user, context.global_context.tenant_id))
        return await mask(payload, context)

    guardrail = guard(plugin(look, hooks=[INPUT]))

    class Key:
        user_id = "ann"
        team_id = "acme"

    data = {"messages": [{"role": "user", "content": "a secret"}], "litellm_call_id": "1"}
    changed = await guardrail.async_pre_call_hook(Key(), None, data, "completion")
    assert changed["messages"] == [{"role": "user", "content": "a ***"}]
    assert seen == [("ann", "acme")]
    with pytest.raises(GuardrailRaisedException, match="chat completions only, and this is `embeddings`"):
        await guardrail.async_pre_call_hook(Key(), None, {"input": "a secret"}, "embeddings")


async def test_a_call_that_the_provider_failed_is_no_gap_in_the_coverage() -> None:
    manager = manager_of(
        plugin(allow, hooks=[INPUT, OUTPUT]), coverage=CoverageConfig(mode=CoverageMode.RAISE, mandatory=[OUTPUT])
    )
    litellm.callbacks = [GuardGuardrail(manager)]
    async with manager.request() as request:
        with pytest.raises(litellm.RateLimitError):
            await ask(answer="litellm.RateLimitError")
    assert [(each.outcome, each.error) for each in request.ledger.records] == [("failed", "RateLimitError")]


async def test_calls_that_end_leave_nothing_behind() -> None:
    guardrail = guard(plugin(allow, hooks=[INPUT, OUTPUT]))
    await ask()
    assert len(guardrail._open) == 0


async def test_an_answer_that_nothing_was_asked_for_through_the_guard_is_a_gap() -> None:
    manager = manager_of(
        plugin(allow, hooks=[INPUT, OUTPUT]), coverage=CoverageConfig(mode=CoverageMode.RAISE, mandatory=[INPUT])
    )
    litellm.callbacks = [GuardGuardrail(manager, event_hook="post_call")]
    with pytest.raises(CoverageError, match=r"went past mandatory hook `cmf\.llm_input`"):
        await ask()
    litellm.callbacks = [GuardGuardrail(manager)]
    assert (await ask()).choices[0].message.content == "hello"


def test_a_guardrail_whose_rewrites_litellm_would_drop_is_an_error() -> None:
    with pytest.raises(ValueError, match="cannot have `run_in_parallel`"):
        GuardGuardrail(manager_of(), run_in_parallel=True)


async def test_a_plugin_that_fails_fails_the_call() -> None:
    guard(plugin(crash, hooks=[INPUT]))
    with pytest.raises(PluginError):
        await ask()


async def test_the_hooks_that_fire_are_those_of_the_table() -> None:
    seen: set[str] = set()
    guard(*recorders(seen))
    await ask()
    assert seen == hooks_of("LiteLLM and its proxy")
