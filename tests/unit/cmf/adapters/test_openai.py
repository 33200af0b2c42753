"""Messages of the OpenAI chat completions API, as requests and responses hold them."""

import copy
import json
from typing import Any

import pytest

from cpex.framework.cmf.adapters import AdapterError, from_openai, to_openai
from cpex.framework.cmf.message import (
    AudioContentPart,
    AudioSource,
    ContentPart,
    DocumentContentPart,
    DocumentSource,
    ImageContentPart,
    ImageSource,
    Message,
    Resource,
    ResourceContentPart,
    Role,
    TextContent,
    ThinkingContent,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)
from cpex.framework.cmf.rewrite import rewrite_text

CONVERSATION: list[dict[str, Any]] = [
    {"role": "developer", "content": "You are a weather bot."},
    {
        "role": "user",
        "content": [
            {"type": "text", "text": "What is the weather here?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo=", "detail": "low"}},
            {"type": "image_url", "image_url": {"url": "https://example.com/map.png"}},
            {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
            {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,JVBERi0="}},
            {"type": "file", "file": {"file_id": "file-6F2ksmvXxt4VdoqmHRw6kL"}},
        ],
    },
    {
        "role": "assistant",
        "content": None,
        "reasoning_content": "The map shows Paris.",
        "tool_calls": [
            {
                "id": "call_abc123",
                "type": "function",
                "function": {"name": "get_current_weather", "arguments": '{"location": "Paris", "unit": "°C"}'},
            },
            {"id": "call_def456", "type": "function", "function": {"name": "now", "arguments": "{}"}},
        ],
    },
    {"role": "tool", "tool_call_id": "call_abc123", "content": '{"temperature": 22}'},
    {"role": "tool", "tool_call_id": "call_def456", "content": [{"type": "text", "text": "noon"}]},
    {"role": "assistant", "content": "22 °C in Paris."},
]
RESPONSE = {
    "role": "assistant",
    "content": None,
    "refusal": "I cannot help with that.",
    "annotations": [],
    "audio": None,
    "function_call": None,
    "tool_calls": None,
}


@pytest.mark.conformance("M21")
def test_a_conversation_becomes_messages_and_comes_back_as_it_was() -> None:
    before = copy.deepcopy(CONVERSATION)
    messages = from_openai(CONVERSATION)
    assert to_openai(messages) == CONVERSATION == before
    assert [message.role.value for message in messages] == [message["role"] for message in CONVERSATION]
    kinds = [[view.kind.value for view in message.iter_views()] for message in messages]
    assert kinds == [
        ["text"],
        ["text", "image", "image", "audio", "document", "resource_ref"],
        ["thinking", "tool_call", "tool_call"],
        ["tool_result"],
        ["tool_result"],
        ["text"],
    ]
    assert [view.uri for message in messages[2:5] for view in message.iter_views()] == [
        None,
        "tool://_/get_current_weather",
        "tool://_/now",
        "tool_result://get_current_weather",
        "tool_result://now",
    ]
    assert [view.mime_type for view in messages[1].iter_views()] == [
        None,
        "image/png",
        None,
        "audio/wav",
        "application/pdf",
        None,
    ]


def test_messages_survive_the_way_there_and_back() -> None:
    call = ToolCall(tool_call_id="1", name="get", namespace="hr", arguments={"é": [1, {"a": None}]})
    parts: list[ContentPart] = [
        TextContent(text="a"),
        ImageContentPart(content=ImageSource(type="base64", data="AA==", media_type="image/jpeg")),
        AudioContentPart(content=AudioSource(type="base64", data="AA==", media_type="audio/mp3")),
        DocumentContentPart(content=DocumentSource(type="base64", data="AA==", media_type="a/b", title="T")),
    ]
    messages = [
        Message(role=Role.SYSTEM, content=[TextContent(text="s")]),
        Message(role=Role.USER, content=parts),
        Message(role=Role.ASSISTANT, content=[ThinkingContent(text="t"), ToolCallContentPart(content=call)]),
        Message(
            role=Role.TOOL,
            content=[ToolResultContentPart(content=ToolResult(tool_call_id="1", tool_name="get", content="r"))],
        ),
    ]
    assert from_openai(to_openai(messages, separator="__"), separator="__") == messages


@pytest.mark.conformance("M21")
def test_what_was_rewritten_goes_out_and_the_rest_stays() -> None:
    messages = from_openai(CONVERSATION)
    changed = [rewrite_text(message, lambda leaf: leaf.text.replace("Paris", "[CITY]")) for message in messages]
    written = to_openai(changed)
    assert "Paris" not in json.dumps(written)
    assert written[1] == CONVERSATION[1]
    assert written[5] == {"role": "assistant", "content": "22 °C in [CITY]."}


def test_a_refusal_is_a_text_that_stays_a_refusal() -> None:
    (message,) = from_openai([RESPONSE])
    assert [view.content for view in message.iter_views()] == ["I cannot help with that."]
    written = to_openai([message])
    assert written == [{"role": "assistant", "content": [{"type": "refusal", "refusal": "I cannot help with that."}]}]
    assert from_openai(written) == [message]


def test_results_beside_other_parts_become_messages_before_them() -> None:
    result = ToolResultContentPart(content=ToolResult(tool_call_id="1", tool_name="get", content={"a": 1}))
    nothing = ToolResultContentPart(content=ToolResult(tool_call_id="2", tool_name="get"))
    message = Message(role=Role.USER, content=[TextContent(text="so?"), result, nothing])
    assert to_openai([message]) == [
        {"role": "tool", "tool_call_id": "1", "content": '{"a": 1}'},
        {"role": "tool", "tool_call_id": "2", "content": ""},
        {"role": "user", "content": "so?"},
    ]


CALL = {"id": "1", "type": "function", "function": {"name": "n", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("text", "messages[0]: is no object"),
        ({"role": "robot", "content": "a"}, "messages[0]: does not fit: `role` enum"),
        ({"content": "a"}, "messages[0]: does not fit: `role` enum"),
        ({"role": "user", "content": 1}, "messages[0].content: is no list of objects"),
        ({"role": "user", "content": ["a"]}, "messages[0].content: is no list of objects"),
        ({"role": "user", "content": [{"type": "hologram"}]}, "messages[0].content[0]: is a part of no known type"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0]: does not fit: `text` string_type"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            "messages[0].content[0]: does not fit: `data` string_type",
        ),
        (
            {"role": "user", "content": [{"type": "file", "file": {"file_data": "plain"}}]},
            "messages[0].content[0]: has neither `file_id` nor `file_data` that is a base64 data URL",
        ),
        (
            {"role": "user", "content": "a", "name": "ann", "seen": True},
            "messages[0]: keys without a counterpart: name, seen; list those that may be lost in `drop`",
        ),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "type": "custom"}]},
            "messages[0].tool_calls[0]: is no call of a function",
        ),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "n", "arguments": "{secret"}}]},
            "messages[0].tool_calls[0].function.arguments: is no JSON",
        ),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "function": {"name": "n", "arguments": "[1]"}}]},
            "messages[0].tool_calls[0]: does not fit: `arguments` dict_type",
        ),
        (
            {"role": "assistant", "tool_calls": [{**CALL, "namespace": "hr"}]},
            "messages[0].tool_calls[0]: keys without a counterpart: namespace",
        ),
        (
            {"role": "tool", "tool_call_id": "9", "content": "r"},
            "messages[0]: the call of this result is not among the messages; name its tool in `tool_names`",
        ),
    ],
)
def test_what_is_malformed_or_would_be_lost_is_an_error_with_its_place(message: Any, error: str) -> None:
    with pytest.raises(AdapterError) as caught:
        from_openai([message])
    assert str(caught.value) == error
    assert str(caught.value).startswith(f"{caught.value.place}: ")


def test_what_may_be_lost_is_left_out_and_calls_that_are_not_there_are_named() -> None:
    (message,) = from_openai([{"role": "user", "content": "a", "name": "ann"}], drop=["name"])
    assert to_openai([message]) == [{"role": "user", "content": "a"}]
    result = {"role": "tool", "tool_call_id": "9", "content": "r"}
    for found in (from_openai([result], tool_names={"9": "get"}), from_openai([{**result, "name": "get"}])):
        assert [view.uri for view in found[0].iter_views()] == ["tool_result://get"]


@pytest.mark.parametrize(
    ("role", "part", "error"),
    [
        (
            Role.USER,
            ResourceContentPart(content=Resource(resource_request_id="r", uri="u", resource_type="file", content="c")),
            "messages[0].content[0]: is of a kind that the API has no part for",
        ),
        (
            Role.USER,
            DocumentContentPart(content=DocumentSource(type="url", data="https://x")),
            "messages[0].content[0]: is of a kind that the API has no part for",
        ),
        (
            Role.ASSISTANT,
            ToolCallContentPart(content=ToolCall(tool_call_id="1", name="get", namespace="hr")),
            "messages[0].content[0]: the tool has a namespace; give the `separator` that joins it to the name",
        ),
        (
            Role.TOOL,
            TextContent(text="a"),
            "messages[0]: a tool says something beside results, for which the API has no message",
        ),
    ],
)
def test_a_part_without_a_counterpart_is_an_error_with_its_place(role: Role, part: Any, error: str) -> None:
    with pytest.raises(AdapterError) as caught:
        to_openai([Message(role=role, content=[part])])
    assert str(caught.value) == error
