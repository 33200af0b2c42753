"""Messages of the Anthropic messages API, as requests and responses hold them."""

import copy
import json
from typing import Any

import pytest

from cpex.framework.cmf.adapters import AdapterError, from_anthropic, to_anthropic
from cpex.framework.cmf.message import (
    AudioContentPart,
    AudioSource,
    ContentPart,
    DocumentContentPart,
    DocumentSource,
    ImageContentPart,
    ImageSource,
    Message,
    OpaqueContentPart,
    Role,
    TextContent,
    ThinkingContent,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)
from cpex.framework.cmf.rewrite import rewrite_text

SYSTEM = [{"type": "text", "text": "You are a weather bot.", "cache_control": {"type": "ephemeral"}}]
CONVERSATION: list[dict[str, Any]] = [
    {
        "role": "user",
        "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgo="}},
            {"type": "image", "source": {"type": "url", "url": "https://example.com/map.png"}},
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
                "title": "Report",
                "citations": {"enabled": True},
            },
            {"type": "text", "text": "What is the weather here?"},
        ],
    },
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "The map shows Paris.", "signature": "EqQBCgIYAhIM"},
            {"type": "redacted_thinking", "data": "EmwKAhgBEgy3"},
            {"type": "text", "text": "I look it up."},
            {"type": "tool_use", "id": "toolu_01A09q", "name": "get_weather", "input": {"location": "Paris"}},
            {"type": "tool_use", "id": "toolu_01B10r", "name": "now", "input": {}},
        ],
    },
    {
        "role": "user",
        "content": [
            {
                "type": "tool_result",
                "tool_use_id": "toolu_01A09q",
                "content": [
                    {"type": "text", "text": "15 degrees in Paris"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA=="}},
                ],
            },
            {"type": "tool_result", "tool_use_id": "toolu_01B10r", "content": "no clock", "is_error": True},
            {"type": "text", "text": "And now?"},
        ],
    },
    {"role": "assistant", "content": "15 degrees."},
]
SEARCH = {
    "role": "assistant",
    "content": [
        {"type": "server_tool_use", "id": "srvtoolu_01", "name": "web_search", "input": {"query": "bluebird"}},
        {
            "type": "web_search_tool_result",
            "tool_use_id": "srvtoolu_01",
            "content": [{"type": "web_search_result", "url": "https://example.com", "title": "Bluebird"}],
        },
    ],
}


@pytest.mark.conformance("M21")
def test_a_conversation_becomes_messages_and_comes_back_as_it_was() -> None:
    before = copy.deepcopy(CONVERSATION)
    messages = from_anthropic(CONVERSATION, system=SYSTEM)
    assert to_anthropic(messages) == {"system": SYSTEM, "messages": CONVERSATION}
    assert before == CONVERSATION
    assert [[view.kind.value for view in message.iter_views()] for message in messages] == [
        ["text"],
        ["image", "image", "document", "text"],
        ["thinking", "thinking", "text", "tool_call", "tool_call"],
        ["tool_result", "tool_result", "text"],
        ["text"],
    ]
    result, failed, _ = messages[3].iter_views()
    assert (result.uri, result.get_property("is_error")) == ("tool_result://get_weather", False)
    assert (failed.uri, failed.get_property("is_error"), failed.content) == ("tool_result://now", True, "no clock")


def test_a_plain_system_prompt_is_told_as_text_and_none_not_at_all() -> None:
    asked = [{"role": "user", "content": "a"}]
    assert to_anthropic(from_anthropic(asked, system="be brief")) == {"system": "be brief", "messages": asked}
    assert to_anthropic(from_anthropic(asked)) == {"messages": asked}
    developer = Message(role=Role.DEVELOPER, content=[TextContent(text="and kind")])
    told = to_anthropic([*from_anthropic([], system="be brief"), developer, *from_anthropic(asked)])
    assert told["system"] == [{"type": "text", "text": "be brief"}, {"type": "text", "text": "and kind"}]


def test_messages_survive_the_way_there_and_back() -> None:
    call = ToolCall(tool_call_id="1", name="get", namespace="hr", arguments={"é": [1, {"a": None}]})
    parts: list[ContentPart] = [
        TextContent(text="a"),
        ImageContentPart(content=ImageSource(type="base64", data="AA==", media_type="image/jpeg")),
        DocumentContentPart(content=DocumentSource(type="url", data="https://x", title="T")),
    ]
    result = ToolResult(tool_call_id="1", tool_name="get", content="r", is_error=True)
    messages = [
        Message(role=Role.SYSTEM, content=[TextContent(text="s")]),
        Message(role=Role.USER, content=parts),
        Message(role=Role.ASSISTANT, content=[ThinkingContent(text="t"), ToolCallContentPart(content=call)]),
        Message(role=Role.USER, content=[ToolResultContentPart(content=result)]),
    ]
    assert from_anthropic(**to_anthropic(messages, separator="__"), separator="__") == messages


def test_what_a_tool_says_is_said_by_the_user_and_other_answers_become_json() -> None:
    result = ToolResultContentPart(content=ToolResult(tool_call_id="1", tool_name="get", content={"é": 1}))
    nothing = ToolResultContentPart(content=ToolResult(tool_call_id="2", tool_name="get"))
    assert to_anthropic([Message(role=Role.TOOL, content=[result, nothing])])["messages"] == [
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "1", "content": '{"é": 1}'},
                {"type": "tool_result", "tool_use_id": "2"},
            ],
        }
    ]


@pytest.mark.conformance("M21")
def test_what_was_rewritten_goes_out_and_the_rest_stays() -> None:
    messages = from_anthropic(CONVERSATION)
    changed = [rewrite_text(message, lambda leaf: leaf.text.replace("Paris", "[CITY]")) for message in messages]
    written = to_anthropic(changed)["messages"]
    assert "Paris" not in json.dumps(written)
    assert written[1]["content"][0] == {
        "type": "thinking",
        "thinking": "The map shows [CITY].",
        "signature": "EqQBCgIYAhIM",
    }
    assert written[0] == CONVERSATION[0]


def test_blocks_without_a_counterpart_are_kept_and_their_texts_are_seen() -> None:
    (message,) = from_anthropic([SEARCH])
    assert all(isinstance(part, OpaqueContentPart) for part in message.content)
    assert to_anthropic([message]) == {"messages": [SEARCH]}
    changed = rewrite_text(message, lambda leaf: leaf.text.lower().replace("bluebird", "***"))
    assert "luebird" not in json.dumps(to_anthropic([changed]))
    with pytest.raises(ValueError, match=r"unknown content type `anthropic.server_tool_use`"):
        list(message.iter_views())


USE = {"type": "tool_use", "id": "1", "name": "n", "input": {}}


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ("text", "messages[0]: is no message of a user or an assistant"),
        ({"role": "system", "content": "a"}, "messages[0]: is no message of a user or an assistant"),
        ({"role": "user", "content": "a", "name": "x"}, "messages[0]: keys without a counterpart: name"),
        ({"role": "user"}, "messages[0].content: is neither text nor a list of blocks"),
        ({"role": "user", "content": {"type": "text"}}, "messages[0].content: is neither text nor a list of blocks"),
        ({"role": "user", "content": ["a"]}, "messages[0].content[0]: is no object"),
        ({"role": "user", "content": [{"text": "a"}]}, "messages[0].content[0]: has no `type`"),
        ({"role": "user", "content": [{"type": "text"}]}, "messages[0].content[0]: does not fit: `text` string_type"),
        (
            {"role": "assistant", "content": [{**USE, "input": "secret"}]},
            "messages[0].content[0]: does not fit: `arguments` dict_type",
        ),
        (
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "9", "content": "r"}]},
            "messages[0].content[0]: the call of this result is not among the messages; name its tool in `tool_names`",
        ),
    ],
)
def test_what_is_malformed_is_an_error_with_its_place(message: Any, error: str) -> None:
    with pytest.raises(AdapterError) as caught:
        from_anthropic([message])
    assert str(caught.value) == error


def test_calls_that_are_not_among_the_messages_are_named() -> None:
    message = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "9", "content": "r"}]}
    (found,) = from_anthropic([message], tool_names={"9": "hr__get"}, separator="__")
    assert next(found.iter_views()).name == "get"


def test_a_part_without_a_counterpart_is_an_error_with_its_place() -> None:
    said = Message(role=Role.USER, content=[TextContent(text="a")])
    sound = AudioContentPart(content=AudioSource(type="base64", data="AA=="))
    foreign = OpaqueContentPart(content_type="mcp.hologram")
    for part in (sound, foreign):
        with pytest.raises(
            AdapterError, match=r"^messages\[1\].content\[0\]: is of a kind that the API has no block for$"
        ):
            to_anthropic([said, Message(role=Role.USER, content=[part])])
    with pytest.raises(
        AdapterError, match=r"^messages\[1\]: the API takes a system prompt before the conversation only$"
    ):
        to_anthropic([said, Message(role=Role.SYSTEM, content=[TextContent(text="a")])])
