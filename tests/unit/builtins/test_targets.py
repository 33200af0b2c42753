from __future__ import annotations

from typing import Any

import pytest

from cpex.builtins.targets import Target, targets_of
from cpex.framework import (
    AgentPreInvokePayload,
    PromptPrehookPayload,
    ResourcePostFetchPayload,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)
from cpex.framework.cmf.message import (
    Message,
    PromptRequest,
    PromptRequestContentPart,
    PromptResult,
    PromptResultContentPart,
    ResourceRefContentPart,
    ResourceReference,
    ResourceType,
    Role,
    TextContent,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)
from cpex.framework.hooks.message import MessagePayload


@pytest.mark.parametrize(
    ("hook", "payload", "target"),
    [
        ("tool_pre_invoke", ToolPreInvokePayload(name="t", args={"q": 1}), Target("tool", "t", args={"q": 1})),
        ("tool_post_invoke", ToolPostInvokePayload(name="t", result=7), Target("tool", "t", answer=7)),
        ("prompt_pre_fetch", PromptPrehookPayload(prompt_id="p", args={}), Target("prompt", "p", args={})),
        ("resource_post_fetch", ResourcePostFetchPayload(uri="u", content="c"), Target("resource", "u")),
        ("agent_pre_invoke", AgentPreInvokePayload(agent_id="a", messages=[]), Target("agent", "a")),
    ],
)
def test_a_payload_of_one_family_has_one_target(hook: str, payload: Any, target: Target) -> None:
    assert list(targets_of(hook, payload)) == [target]


def test_a_message_has_every_target_that_it_names() -> None:
    result = ToolResult(tool_call_id="1", tool_name="get", content="x")
    call = ToolCallContentPart(content=ToolCall(tool_call_id="2", name="put", arguments={"k": 1}, namespace="files"))
    nested = PromptResult(
        prompt_request_id="3", prompt_name="greet", messages=[Message(role=Role.ASSISTANT, content=[call])]
    )
    request = PromptRequest(prompt_request_id="4", name="ask", server_id="s")
    reference = ResourceReference(resource_request_id="5", uri="file:///a", resource_type=ResourceType.FILE)
    message = Message(
        role=Role.ASSISTANT,
        content=[
            TextContent(text="hello"),
            ToolResultContentPart(content=result),
            PromptResultContentPart(content=nested),
            PromptRequestContentPart(content=request),
            ResourceRefContentPart(content=reference),
        ],
    )
    inner = "content[2].content.messages[0].content[0]"
    assert list(targets_of("cmf.llm_input", MessagePayload(message=message))) == [
        Target("tool", "get", answer=result, place="content[1]"),
        Target("prompt", "greet", place="content[2]"),
        Target("tool", "put", server="files", args={"k": 1}, place=inner),
        Target("prompt", "ask", server="s", args={}, place="content[3]"),
        Target("resource", "file:///a", place="content[4]"),
    ]


def test_a_message_without_names_has_no_target() -> None:
    message = Message(role=Role.USER, content=[TextContent(text="hello")])
    assert list(targets_of("evaluate", MessagePayload(message=message))) == []
