"""Hooks about messages: their payload, what plugins can and cannot do to it, and for which messages they run."""

import copy
import json
import logging
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError
from support import call, manager_of, plugin

from cpex.framework import HookPayloadPolicy, Plugin, PluginConfig, hook
from cpex.framework.cmf.message import (
    Message,
    PromptResult,
    PromptResultContentPart,
    Role,
    TextContent,
    ToolCall,
    ToolCallContentPart,
)
from cpex.framework.conditions import payload_matches
from cpex.framework.extensions import Extensions, SecurityExtension, SubjectExtension, SubjectType
from cpex.framework.hooks.message import CmfHookType, MessageHookType, MessagePayload, MessageResult
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.models.config import PluginCondition
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.result import PluginResult

HOOK = "cmf.tool_pre_invoke"


def tool_call(name: str = "get", **arguments: Any) -> ToolCallContentPart:
    return ToolCallContentPart(content=ToolCall(tool_call_id="1", name=name, arguments=arguments))


def prompt_result(*messages: Message, name: str = "greet") -> PromptResultContentPart:
    return PromptResultContentPart(
        content=PromptResult(prompt_request_id="1", prompt_name=name, messages=list(messages))
    )


def payload_of(*parts: Any) -> MessagePayload:
    return MessagePayload(message=Message(role=Role.ASSISTANT, content=list(parts)))


def test_hook_names() -> None:
    assert [each.value for each in MessageHookType] == [
        "evaluate",
        "llm_input",
        "llm_output",
        "tool_pre_invoke",
        "tool_post_invoke",
        "prompt_pre_fetch",
        "prompt_post_fetch",
        "resource_pre_fetch",
        "resource_post_fetch",
    ]
    assert {each.value for each in CmfHookType} == {f"cmf.{each.value}" for each in MessageHookType} - {"cmf.evaluate"}


def test_a_payload_holds_a_message_and_where_it_stands() -> None:
    message = Message(role=Role.USER)
    assert MessagePayload(message=message).message is message
    assert MessagePayload(message=message).hook is MessageHookType.EVALUATE
    assert MessagePayload.model_validate({"message": {"role": "user"}, "hook": "llm_input"}).message == message
    assert json.loads(MessagePayload(message=message).model_dump_json()) == {
        "message": {"schema_version": "2.0", "role": "user", "content": [], "channel": None},
        "hook": "evaluate",
    }
    with pytest.raises(ValidationError, match="hook"):
        MessagePayload.model_validate({"message": message, "hook": "cmf.llm_input"})
    assert MessageResult is PluginResult[MessagePayload]


@pytest.mark.parametrize("name", ["evaluate", *(each.value for each in CmfHookType)])
def test_every_message_hook_is_registered(name: str) -> None:
    registry = get_hook_registry()
    assert registry.get_payload_type(name) is MessagePayload
    assert registry.get_result_type(name) is MessageResult
    assert registry.json_to_payload(name, '{"message": {"role": "user"}}') == payload_of().model_copy(
        update={"message": Message(role=Role.USER)}
    )


def test_messages_load_when_their_hooks_are_asked_for() -> None:
    code = (
        "import sys, cpex.framework as f\n"
        "from cpex.framework.hooks.registry import get_hook_registry\n"
        "loaded = lambda: 'cpex.framework.cmf.message' in sys.modules\n"
        "f.Plugin, f.PluginManager, f.ToolPreInvokePayload\n"
        "print(loaded())\n"
        "get_hook_registry().get_payload_type('cmf.llm_input')\n"
        "print(loaded())\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert run.stdout.split() == ["False", "True"]


class Reviewer(Plugin):
    """Bound to several hooks, sees the request, rewrites the text."""

    @hook([CmfHookType.LLM_INPUT, "cmf.llm_output"], MessagePayload, MessageResult)
    async def review(self, payload: MessagePayload, context: Any, extensions: Any = None) -> MessageResult:
        views = list(payload.message.iter_views(payload.hook, extensions))
        message = views[0].replace_text(f"{views[0].role.value}: {sorted(views[0].roles)}")
        return MessageResult(modified_payload=payload.model_copy(update={"message": message}))

    async def evaluate(self, payload: MessagePayload, context: Any) -> MessageResult:
        return MessageResult(metadata={"seen": type(payload).__name__})


async def test_one_handler_serves_several_hooks_and_views_show_what_its_capabilities_open() -> None:
    subject = SubjectExtension(id="ann", type=SubjectType.USER, roles=frozenset({"hr"}))
    extensions = Extensions(security=SecurityExtension(subject=subject))
    names = ["cmf.llm_input", "cmf.llm_output", "evaluate"]
    for capabilities, roles in (({"read_roles"}, "['hr']"), (set(), "[]")):
        config = PluginConfig(name="p", kind="test", hooks=names, capabilities=capabilities)
        manager = manager_of(Reviewer(config))
        for name in names[:2]:
            result, _ = await call(manager, payload_of(TextContent(text="a")), hook=name, extensions=extensions)
            assert result.modified_payload.message.content == [TextContent(text=f"assistant: {roles}")]
        result, _ = await call(manager, payload_of(), hook="evaluate")
        assert result.metadata == {"seen": "MessagePayload"}


# Isolation.


def full_payload() -> MessagePayload:
    inner = Message(role=Role.USER, content=[tool_call(deep={"list": [1, {"key": "old"}]})])
    return payload_of(TextContent(text="a"), tool_call(q={"list": [1, {"key": "old"}]}), prompt_result(inner))


def edit(message: Message) -> None:
    """Everything that a plugin can do in place, at every depth."""
    first: Any = message.content[1]
    first.content.arguments["q"]["list"][1]["key"] = "new"
    first.content.arguments["added"] = True
    result: Any = message.content[2]
    nested: Any = result.content.messages[0].content[0]
    nested.content.arguments["deep"]["list"].append("new")
    result.content.messages.append(Message(role=Role.TOOL))
    # Frozen models keep nobody from writing past them.
    object.__setattr__(nested.content, "name", "forged")
    message.content[0].__dict__["text"] = "forged"
    message.content.reverse()


@pytest.mark.parametrize("mode", ["sequential", "transform", "audit", "concurrent", "fire_and_forget"])
@pytest.mark.parametrize("policy", [None, frozenset(), frozenset({"message"})], ids=["open", "closed", "message"])
async def test_an_edit_in_place_reaches_neither_the_host_nor_another_plugin(
    mode: str, policy: frozenset[str] | None
) -> None:
    seen: list[Any] = []

    async def edits(payload: MessagePayload, context: Any) -> PluginResult[Any]:
        edit(payload.message)
        return PluginResult()

    async def looks(payload: MessagePayload, context: Any) -> PluginResult[Any]:
        seen.append(payload.model_dump())
        return PluginResult()

    policies = {HOOK: HookPayloadPolicy(writable_fields=policy)} if policy is not None else None
    plugins = [plugin(edits, "edits", [HOOK], mode=mode), plugin(looks, "looks", [HOOK], mode=mode, priority=200)]
    manager = manager_of(*plugins, hook_policies=policies)
    payload = full_payload()
    before = copy.deepcopy(payload)
    result, _ = await call(manager, payload, hook=HOOK)
    await result.wait_for_background_tasks()
    await manager.shutdown()
    assert result.modified_payload is None
    assert payload == before == full_payload()
    assert seen == [full_payload().model_dump()]


@pytest.mark.parametrize("policy", [None, frozenset({"message"})], ids=["open", "message"])
async def test_an_edit_in_place_that_is_returned_is_heard(policy: frozenset[str] | None) -> None:
    kept: list[Message] = []

    async def edits(payload: MessagePayload, context: Any) -> PluginResult[Any]:
        edit(payload.message)
        kept.append(payload.message)
        return PluginResult(modified_payload=payload)

    policies = {HOOK: HookPayloadPolicy(writable_fields=policy)} if policy is not None else None
    manager = manager_of(plugin(edits, hooks=[HOOK]), hook_policies=policies)
    payload = full_payload()
    result, _ = await call(manager, payload, hook=HOOK)

    assert payload == full_payload()
    expected = full_payload()
    edit(expected.message)
    assert result.modified_payload == expected
    # What the plugin still holds is not what the host has got.
    kept[0].content.clear()
    assert result.modified_payload == expected


async def test_a_policy_that_does_not_name_the_message_keeps_it(caplog: pytest.LogCaptureFixture) -> None:
    async def rewrites(payload: MessagePayload, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=payload.model_copy(update={"message": Message(role=Role.TOOL)}))

    policies = {HOOK: HookPayloadPolicy(writable_fields=frozenset({"hook"}))}
    manager = manager_of(plugin(rewrites, hooks=[HOOK]), hook_policies=policies)
    with caplog.at_level(logging.WARNING):
        result, _ = await call(manager, full_payload(), hook=HOOK)
    assert result.modified_payload is None
    assert "['message']" in caplog.text


# Conditions.


def runs(condition: dict[str, Any], *parts: Any) -> bool:
    return payload_matches(payload_of(*parts), HOOK, [PluginCondition(**condition)], GlobalContext(request_id="r"))


def test_any_entity_of_a_message_counts_and_none_does_not() -> None:
    assert runs({"tools": ["get"]}, TextContent(text="a"), tool_call("put"), tool_call("get"))
    assert not runs({"tools": ["get"]}, TextContent(text="get"), tool_call("put"))
    assert not runs({"tools": ["get"]})
    assert runs({"prompts": ["greet"]}, prompt_result())
    resource = {"resource_request_id": "1", "uri": "file:///a", "resource_type": "file"}
    assert runs({"resources": ["file:///a"]}, {"content_type": "resource_ref", "content": resource})
    assert not runs({"tools": ["get"], "prompts": ["other"]}, tool_call("get"), prompt_result())


def test_entities_of_messages_inside_a_prompt_s_result_count() -> None:
    inner = Message(role=Role.ASSISTANT, content=[tool_call("get")])
    nested = prompt_result(Message(role=Role.USER, content=[prompt_result(inner, name="inner")]))
    assert runs({"tools": ["get"]}, nested)
    assert runs({"prompts": ["inner"]}, nested)
    assert not runs({"tools": ["put"]}, nested)
    nested.content.messages.append(Message(role=Role.USER, content=[nested]))
    assert not runs({"tools": ["put"]}, nested)


async def test_a_plugin_runs_for_the_tools_that_the_message_then_calls() -> None:
    async def renames(payload: MessagePayload, context: Any) -> PluginResult[Any]:
        message = payload.message.model_copy(update={"content": [tool_call("renamed")]})
        return PluginResult(modified_payload=payload.model_copy(update={"message": message}))

    async def says(payload: MessagePayload, context: Any) -> PluginResult[Any]:
        return PluginResult(metadata={"said": True})

    for tool, said in (("renamed", True), ("get", False)):
        conditional = plugin(says, "says", [HOOK], priority=200, conditions=[PluginCondition(tools={tool})])
        manager = manager_of(plugin(renames, "renames", [HOOK]), conditional)
        result, _ = await call(manager, payload_of(tool_call("get")), hook=HOOK)
        assert ("said" in result.metadata) is said
