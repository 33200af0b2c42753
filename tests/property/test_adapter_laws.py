"""Laws of the adapters: nothing is lost on the way there and back, and no input makes them fail in another way."""

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cpex.framework.cmf.adapters import (
    AdapterError,
    from_anthropic,
    from_mcp_content,
    from_mcp_prompt,
    from_mcp_tool_call,
    from_mcp_tool_result,
    from_openai,
    to_anthropic,
    to_mcp_content,
    to_mcp_prompt,
    to_mcp_tool_call,
    to_mcp_tool_result,
    to_openai,
)
from cpex.framework.cmf.message import (
    ImageContentPart,
    ImageSource,
    Message,
    Role,
    TextContent,
    ThinkingContent,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)

words = st.text(max_size=6)
names = st.text("abc_", min_size=1, max_size=4)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)
texts = st.builds(TextContent, text=words)
images = st.builds(
    ImageContentPart,
    content=st.builds(ImageSource, type=st.just("base64"), data=st.just("AA=="), media_type=st.just("image/png")),
)
calls = st.builds(
    ToolCallContentPart,
    content=st.builds(
        ToolCall, tool_call_id=st.just("1"), name=names, arguments=st.dictionaries(words, values, max_size=2)
    ),
)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    """A turn of a user, one of an assistant who may call a tool, and the tool's answer."""
    asked = draw(st.lists(texts | images, min_size=1, max_size=3))
    called = draw(calls)
    thoughts = draw(st.lists(st.builds(ThinkingContent, text=words), max_size=1))
    said = draw(st.lists(texts, max_size=2))
    answer = ToolResult(tool_call_id="1", tool_name=called.content.name, content=draw(words))
    return [
        Message(role=Role.SYSTEM, content=draw(st.lists(texts, min_size=1, max_size=2))),
        Message(role=Role.USER, content=asked),
        Message(role=Role.ASSISTANT, content=[*thoughts, *said, called]),
        Message(role=Role.TOOL, content=[ToolResultContentPart(content=answer)]),
    ]


@given(conversations())
def test_a_conversation_survives_the_way_to_openai_and_back(messages: list[Message]) -> None:
    assert from_openai(to_openai(messages)) == messages


@given(conversations())
def test_a_conversation_survives_the_way_to_anthropic_and_back(messages: list[Message]) -> None:
    by_the_user = messages[3].model_copy(update={"role": Role.USER})
    assert from_anthropic(**to_anthropic(messages)) == [*messages[:3], by_the_user]


@given(st.lists(texts | images, max_size=4))
def test_parts_survive_the_way_to_mcp_and_back(parts: list[Any]) -> None:
    assert from_mcp_content(to_mcp_content(parts)) == parts


TYPES = ["text", "image", "image_url", "input_audio", "file", "refusal", "thinking", "tool_use", "tool_result"]
TYPES += ["document", "audio", "resource_link", "resource", "redacted_thinking", "function", "url", "base64"]
KEYS = ["type", "text", "data", "mimeType", "uri", "name", "resource", "blob", "source", "url", "id", "input"]
KEYS += ["tool_use_id", "content", "image_url", "file", "file_data", "input_audio", "format", "role", "messages"]
KEYS += ["tool_calls", "function", "arguments", "tool_call_id", "params", "isError", "content_type", "media_type"]
things: Any = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | words | st.sampled_from([*TYPES, "user", "assistant", "tool"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS) | words, inner, max_size=5),
    max_leaves=12,
)
blocks = st.dictionaries(st.sampled_from(KEYS), things, max_size=4).flatmap(
    lambda rest: st.sampled_from(TYPES).map(lambda kind: {**rest, "type": kind})
)
wires = st.lists(
    things
    | st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "tool"]), "content": st.lists(blocks)})
)


@pytest.mark.parametrize(
    ("read", "write"),
    [
        (from_openai, to_openai),
        (from_anthropic, lambda messages: to_anthropic(messages)["messages"]),
        (from_mcp_content, to_mcp_content),
    ],
    ids=["openai", "anthropic", "mcp"],
)
@given(wire=wires | st.lists(blocks))
def test_whatever_comes_is_read_and_written_or_refused(read: Any, write: Any, wire: Any) -> None:
    with suppress(AdapterError):
        found = read(wire)
        written = write(found)
        # What was written once is what is written ever after.
        assert write(read(written)) == written


@given(wire=st.dictionaries(st.sampled_from(KEYS), things))
def test_whatever_a_server_answers_is_read_and_written_or_refused(wire: Any) -> None:
    for read, write, ids in [
        (from_mcp_tool_call, to_mcp_tool_call, {"call_id": "1"}),
        (from_mcp_tool_result, to_mcp_tool_result, {"call_id": "1", "tool_name": "t"}),
        (from_mcp_prompt, to_mcp_prompt, {"request_id": "1", "name": "p"}),
    ]:
        with suppress(AdapterError):
            written = write(read(wire, **ids))
            assert write(read(written, **ids)) == written
