"""Laws of messages, views and address patterns, over generated ones."""

import json
import re
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from cpex.framework.cmf.jsontext import json_ready, json_text
from cpex.framework.cmf.leaves import TextLeaf
from cpex.framework.cmf.message import (
    ContentPart,
    DocumentContentPart,
    DocumentSource,
    ImageContentPart,
    ImageSource,
    Message,
    PromptRequest,
    PromptRequestContentPart,
    PromptResult,
    PromptResultContentPart,
    Resource,
    ResourceContentPart,
    ResourceRefContentPart,
    ResourceReference,
    ResourceType,
    Role,
    TextContent,
    ThinkingContent,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)
from cpex.framework.cmf.rewrite import rewrite_text
from cpex.framework.cmf.text import iter_text
from cpex.framework.cmf.uri import UriPattern, normal_uri, resource_pattern
from cpex.framework.memory.grafting import graft
from cpex.framework.models.copying import copy_tree

texts = st.text(max_size=8)
ids = st.just("id")
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
arguments = st.dictionaries(texts, json_values, max_size=3)
odd_values = st.recursive(
    json_values | st.floats() | st.binary(max_size=4) | st.datetimes() | st.just(object()),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(st.integers() | texts, inner),
    max_leaves=6,
)
resource_types = st.sampled_from(ResourceType)
sources: dict[str, Any] = {"type": st.sampled_from(["url", "base64"]), "data": texts}


def part_of(cls: type[BaseModel], holds: type[BaseModel], **fields: Any) -> st.SearchStrategy[Any]:
    return st.builds(cls, content=st.builds(holds, **fields))


resources = st.fixed_dictionaries(
    {"resource_request_id": ids, "uri": texts, "resource_type": resource_types},
    optional={"name": texts, "annotations": arguments, "size_bytes": st.integers(0, 9)},
).flatmap(
    lambda fields: st.builds(
        lambda content: Resource(**fields, **content),
        st.sampled_from(["content", "blob"]).flatmap(
            lambda name: st.fixed_dictionaries({name: texts if name == "content" else st.binary(max_size=6)})
        ),
    )
)
plain_parts: st.SearchStrategy[Any] = st.one_of(
    st.builds(TextContent, text=texts),
    st.builds(ThinkingContent, text=texts),
    part_of(ToolCallContentPart, ToolCall, tool_call_id=ids, name=texts, arguments=arguments, namespace=texts),
    part_of(ToolResultContentPart, ToolResult, tool_call_id=ids, tool_name=texts, content=json_values),
    st.builds(ResourceContentPart, content=resources),
    part_of(
        ResourceRefContentPart, ResourceReference, resource_request_id=ids, uri=texts, resource_type=resource_types
    ),
    part_of(PromptRequestContentPart, PromptRequest, prompt_request_id=ids, name=texts, arguments=arguments),
    part_of(ImageContentPart, ImageSource, **sources),
    part_of(DocumentContentPart, DocumentSource, **sources, title=texts),
)


def messages_of(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Message]:
    return st.builds(Message, role=st.sampled_from(Role), content=st.lists(parts, max_size=3))


messages = st.recursive(
    messages_of(plain_parts),
    lambda inner: messages_of(
        plain_parts
        | part_of(
            PromptResultContentPart,
            PromptResult,
            prompt_request_id=ids,
            prompt_name=texts,
            messages=st.lists(inner, max_size=2),
        )
    ),
    max_leaves=4,
)


def parts_of(message: Message) -> list[ContentPart]:
    """Every part at every depth, outer ones first."""
    found: list[ContentPart] = []
    for part in message.content:
        found.append(part)
        if isinstance(part, PromptResultContentPart):
            found.extend(inner for nested in part.content.messages for inner in parts_of(nested))
    return found


@given(messages)
def test_reading_undoes_writing(message: Message) -> None:
    assert Message.model_validate(message.model_dump()) == message
    assert Message.model_validate_json(message.model_dump_json()) == message


@given(messages)
def test_there_is_one_view_for_each_part_in_order(message: Message) -> None:
    views = list(message.iter_views(recursive=True))
    assert [id(view.raw) for view in views] == [id(part) for part in parts_of(message)]
    assert [id(view.raw) for view in message.iter_views()] == [id(part) for part in message.content]
    assert len({view.path for view in views}) == len(views)
    for view in views:
        assert view.is_pre is not view.is_post
        assert [view.is_tool, view.is_prompt, view.is_resource, view.is_text, view.is_media].count(True) == 1


def is_text(leaf: TextLeaf) -> bool:
    return isinstance(leaf.value, str | bytes)


@given(messages)
def test_rewriting_shows_the_texts_that_iterating_shows(message: Message) -> None:
    shown = []

    def look(leaf: TextLeaf) -> str:
        shown.append(leaf)
        return leaf.text

    assert rewrite_text(message, look, names=True) is message
    assert sorted(filter(is_text, shown)) == sorted(filter(is_text, iter_text(message)))


@given(messages)
def test_rewriting_every_text_leaves_no_old_one_and_does_not_touch_the_message(message: Message) -> None:
    before = message.model_dump()
    changed = rewrite_text(message, lambda leaf: "<new>", names=True)
    assert message.model_dump() == before
    assert {leaf.text.partition("#")[0] for leaf in iter_text(changed) if is_text(leaf)} <= {"<new>"}
    assert Message.model_validate(changed.model_dump()) == changed


@given(messages, st.data())
def test_replacing_one_part_changes_that_part_alone(message: Message, data: st.DataObject) -> None:
    views = list(message.iter_views(recursive=True))
    if not views:
        return
    chosen = data.draw(st.sampled_from(views))
    before = message.model_dump()
    changed = chosen.replace(TextContent(text="new"))

    assert message.model_dump() == before
    inside = len(parts_of(Message(role="user", content=[chosen.raw]))) - 1
    at = [view.path for view in views].index(chosen.path)
    after = list(changed.iter_views(recursive=True))
    assert after[at].raw == TextContent(text="new")
    outer = {view.path for view in views if chosen.path.startswith(f"{view.path}.")}
    rest = views[:at] + views[at + 1 + inside :]
    assert [view.path for view in rest] == [view.path for view in after[:at] + after[at + 1 :]]
    for old, new in zip(rest, after[:at] + after[at + 1 :], strict=True):
        assert old.path in outer or old.raw is new.raw


@given(messages)
def test_a_copy_is_equal_and_shares_nothing_that_can_be_edited(message: Message) -> None:
    copied = copy_tree(message)
    assert copied == message
    assert graft(message, copied) is message
    assert {id(part) for part in parts_of(copied)}.isdisjoint(id(part) for part in parts_of(message))


@given(messages)
def test_every_text_that_a_view_shows_is_among_the_texts_of_the_message(message: Message) -> None:
    leaves = {leaf.text for leaf in iter_text(message)}
    for view in message.iter_views(recursive=True):
        assert {leaf.text for leaf in view.iter_text()} <= leaves
        assert not view.name or view.name in leaves
        if view.content and view.args is None and view.kind.value != "tool_result":
            assert view.content in leaves


@given(odd_values)
def test_anything_becomes_text_and_json(value: Any) -> None:
    assert isinstance(json_text(value), str)
    call = {"content_type": "tool_result", "content": {"tool_call_id": "1", "tool_name": "t", "content": value}}
    (view,) = Message(role="tool", content=[call]).iter_views()
    json.dumps(json_ready(value), allow_nan=False)
    json.dumps(view.to_opa_input(), allow_nan=False)


@given(json_values)
def test_json_stays_as_it_is(value: Any) -> None:
    assert json_ready(value) == value
    assert json.loads(json_text(value)) == json.loads(json_text(value, ensure_ascii=False)) == value


# Patterns.

alphabet = st.sampled_from("ab/\n")
patterns = st.lists(alphabet | st.just("*") | st.just("**"), max_size=8).map("".join)


def expression(pattern: str) -> str:
    """The same pattern as a regular expression; slow on long addresses, which these are not."""
    pieces = re.split(r"(\*+)", pattern)
    return "".join(
        {"*": "[^/]*"}.get(piece, "(?s:.*)") if piece.startswith("*") else re.escape(piece) for piece in pieces
    )


@given(patterns, st.text(alphabet, max_size=8))
def test_a_pattern_matches_what_its_regular_expression_matches(pattern: str, text: str) -> None:
    assert UriPattern(pattern).matches(text) is (re.fullmatch(expression(pattern), text) is not None)


uri_pieces = st.sampled_from(
    [
        "file:",
        "HTTP:",
        "x:",
        "//",
        "/",
        "Host",
        ":80",
        "..",
        ".",
        "%2e",
        "%2F",
        "%25",
        "%",
        "a",
        "é",
        "?",
        "#",
        " ",
        "\n",
    ]
)
uris = st.lists(uri_pieces, max_size=9).map("".join) | st.text(max_size=9)


@given(uris)
def test_the_normal_form_is_a_fixed_point_without_steps_up(uri: str) -> None:
    normal = normal_uri(uri)
    assert normal_uri(normal) == normal
    path = re.sub(r"^([a-z]*:)?(//[^/?#]*)?|[?#].*", "", normal)
    assert ".." not in path.split("/")
    assert not re.search(r"[\s\x00-\x1f]", normal)


@given(uris.filter(lambda uri: "*" not in uri))
def test_an_address_matches_itself_and_everything(uri: str) -> None:
    normal = normal_uri(uri)
    assert resource_pattern(uri).matches(normal)
    assert resource_pattern("**").matches(normal)
