"""Content blocks, tool calls and prompts of the Model Context Protocol, as servers send them."""

import copy
import json
from typing import Any

import pytest

from cpex.framework.cmf.adapters import (
    AdapterError,
    from_mcp_content,
    from_mcp_prompt,
    from_mcp_tool_call,
    from_mcp_tool_result,
    to_mcp_content,
    to_mcp_prompt,
    to_mcp_tool_call,
    to_mcp_tool_result,
)
from cpex.framework.cmf.message import (
    ImageContentPart,
    ImageSource,
    Message,
    OpaqueContentPart,
    Resource,
    ResourceContentPart,
    Role,
    TextContent,
    ToolResult,
    ToolResultContentPart,
)
from cpex.framework.cmf.rewrite import rewrite_text

BLOCKS: list[dict[str, Any]] = [
    {"type": "text", "text": "Tool result", "annotations": {"audience": ["user"], "priority": 0.9}},
    {"type": "image", "data": "iVBORw0KGgo=", "mimeType": "image/png"},
    {"type": "audio", "data": "UklGRg==", "mimeType": "audio/wav", "_meta": {"a": 1}},
    {
        "type": "resource_link",
        "uri": "file:///project/src/main.rs",
        "name": "main.rs",
        "description": "Primary application entry point",
        "mimeType": "text/x-rust",
        "size": 120,
    },
    {
        "type": "resource",
        "resource": {"uri": "file:///a.rs", "mimeType": "text/x-rust", "text": "fn main() {}", "_meta": {"b": 2}},
        "annotations": {"lastModified": "2025-05-03T14:30:00Z"},
    },
    {"type": "resource", "resource": {"uri": "db://x", "mimeType": "image/png", "blob": "iVBORw0KGgo="}},
    {"type": "hologram", "beam": {"label": "secret"}},
]
CALL = {"name": "get_weather", "arguments": {"location": "New York"}, "_meta": {"progressToken": 1}}
RESULT = {
    "content": [{"type": "text", "text": '{"temperature": 22.5}'}],
    "structuredContent": {"temperature": 22.5},
    "isError": True,
}
PROMPT = {
    "description": "Code review prompt",
    "messages": [
        {"role": "user", "content": {"type": "text", "text": "Please review the secret"}},
        {"role": "assistant", "content": BLOCKS[4]},
    ],
}


@pytest.mark.conformance("M21")
def test_content_blocks_become_parts_and_come_back_as_they_were() -> None:
    before = copy.deepcopy(BLOCKS)
    parts = from_mcp_content(BLOCKS)
    assert to_mcp_content(parts) == BLOCKS == before
    assert isinstance(parts.pop(), OpaqueContentPart)
    views = list(Message(role=Role.TOOL, content=parts).iter_views())
    assert [(view.kind.value, view.uri, view.name, view.mime_type) for view in views] == [
        ("text", None, None, None),
        ("image", None, None, "image/png"),
        ("audio", None, None, "audio/wav"),
        ("resource_ref", "file:///project/src/main.rs", "main.rs", None),
        ("resource", "file:///a.rs", None, "text/x-rust"),
        ("resource", "db://x", None, "image/png"),
    ]
    assert views[4].content == "fn main() {}"
    assert (views[5].content, views[5].measured_bytes) == (None, 8)


@pytest.mark.conformance("M21")
def test_a_call_a_result_and_a_prompt_become_messages_and_come_back_as_they_were() -> None:
    call = from_mcp_tool_call(CALL, call_id="1", server="weather")
    assert [view.uri for view in call.iter_views()] == ["tool://weather/get_weather"]
    assert to_mcp_tool_call(call) == CALL
    result = from_mcp_tool_result(RESULT, call_id="1", tool_name="get_weather")
    (view,) = result.iter_views()
    assert (view.uri, view.get_property("is_error")) == ("tool_result://get_weather", True)
    assert to_mcp_tool_result(result) == RESULT
    prompt = from_mcp_prompt(PROMPT, request_id="2", name="review")
    assert [(view.role.value, view.kind.value) for view in prompt.iter_views(recursive=True)] == [
        ("user", "prompt_result"),
        ("user", "text"),
        ("assistant", "resource"),
    ]
    assert to_mcp_prompt(prompt) == PROMPT


@pytest.mark.conformance("M21")
def test_what_was_rewritten_goes_out_and_the_rest_stays() -> None:
    result = from_mcp_tool_result(RESULT, call_id="1", tool_name="get_weather")
    changed = rewrite_text(result, lambda leaf: leaf.text.replace("22.5", "***"))
    assert to_mcp_tool_result(changed) == {
        "content": [{"type": "text", "text": '{"temperature": ***}'}],
        "structuredContent": {"temperature": "***"},
        "isError": True,
    }
    prompt = from_mcp_prompt(PROMPT, request_id="2", name="review")
    written = to_mcp_prompt(rewrite_text(prompt, lambda leaf: leaf.text.replace("secret", "***")))
    assert "secret" not in json.dumps(written)
    assert written["messages"][1] == PROMPT["messages"][1]


def test_a_call_without_arguments_has_none_and_an_error_less_result_says_nothing_of_errors() -> None:
    assert to_mcp_tool_call(from_mcp_tool_call({"name": "now"}, call_id="1")) == {"name": "now", "arguments": {}}
    plain = {"content": []}
    assert to_mcp_tool_result(from_mcp_tool_result(plain, call_id="1", tool_name="t")) == plain


@pytest.mark.parametrize(("answer", "text"), [("done", "done"), ({"é": 1}, '{"é": 1}'), (None, "")])
def test_an_answer_of_another_shape_becomes_one_text(answer: Any, text: str) -> None:
    result = ToolResultContentPart(content=ToolResult(tool_call_id="1", tool_name="t", content=answer))
    written = to_mcp_tool_result(Message(role=Role.TOOL, content=[result]))
    assert written == {"content": [{"type": "text", "text": text}]}


@pytest.mark.parametrize(
    ("block", "error"),
    [
        ("text", "content[0]: is no object"),
        ({"text": "a"}, "content[0]: has no `type`"),
        ({"type": "text", "text": 1}, "content[0]: does not fit: `text` string_type"),
        ({"type": "image", "mimeType": "a/b"}, "content[0]: does not fit: `data` string_type"),
        (
            {"type": "resource_link", "name": "a"},
            "content[0]: does not fit: `resource_request_id` string_type, `uri` string_type",
        ),
        ({"type": "resource", "resource": {"uri": "u", "blob": "?"}}, "content[0].resource.blob: is no base64"),
        (
            {"type": "resource", "resource": {"uri": "u", "text": "a", "blob": "AA=="}},
            "content[0].resource: does not fit: `` value_error",
        ),
    ],
)
def test_what_is_malformed_is_an_error_with_its_place(block: Any, error: str) -> None:
    with pytest.raises(AdapterError) as caught:
        from_mcp_content([block])
    assert str(caught.value) == error


def test_malformed_results_and_prompts_are_errors() -> None:
    with pytest.raises(AdapterError, match=r"^result.content: is no list of blocks$"):
        from_mcp_tool_result({}, call_id="1", tool_name="t")
    with pytest.raises(AdapterError, match=r"^messages\[0\]: is no object$"):
        from_mcp_prompt({"messages": ["a"]}, request_id="1", name="p")
    with pytest.raises(AdapterError, match=r"^messages\[0\].content: is no object$"):
        from_mcp_prompt({"messages": [{"role": "user"}]}, request_id="1", name="p")
    with pytest.raises(AdapterError, match=r"^params: does not fit: `name` string_type$"):
        from_mcp_tool_call({}, call_id="1")


@pytest.mark.parametrize(
    ("part", "error"),
    [
        (
            ImageContentPart(content=ImageSource(type="url", data="https://x")),
            "content[0]: is of a kind that the protocol has no content block for",
        ),
        (
            ResourceContentPart(content=Resource(resource_request_id="r", uri="u", resource_type="file")),
            "content[0]: is a resource without content",
        ),
    ],
)
def test_a_part_without_a_counterpart_is_an_error_with_its_place(part: Any, error: str) -> None:
    with pytest.raises(AdapterError) as caught:
        to_mcp_content([part])
    assert str(caught.value) == error


@pytest.mark.parametrize("write", [to_mcp_tool_call, to_mcp_tool_result, to_mcp_prompt])
def test_a_message_of_another_kind_is_refused(write: Any) -> None:
    with pytest.raises(AdapterError, match=r"^message: is not one "):
        write(Message(role=Role.USER, content=[TextContent(text="a")]))
