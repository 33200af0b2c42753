"""What messages and their parts take, refuse and write."""

import json
import subprocess
import sys
from typing import Any, Literal

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from cpex.framework.cmf.message import (
    AudioContentPart,
    AudioSource,
    Channel,
    ContentPart,
    ContentPartUnion,
    ContentType,
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
    VideoContentPart,
    VideoSource,
)
from cpex.framework.cmf.view import ViewAction, ViewKind

REFERENCE = {"resource_request_id": "r1", "uri": "file:///a", "resource_type": "file"}
PARTS: list[ContentPart] = [
    TextContent(text="hello"),
    ThinkingContent(text="hm"),
    ToolCallContentPart(content=ToolCall(tool_call_id="c1", name="get", arguments={"q": ["é", 1]}, namespace="hr")),
    ToolResultContentPart(content=ToolResult(tool_call_id="c1", tool_name="get", content={"rows": [1.5, None]})),
    ResourceContentPart(content=Resource(**REFERENCE, content="text", annotations={"a": 1})),
    ResourceContentPart(content=Resource(**REFERENCE, blob=b"\x00text")),
    ResourceContentPart(content=Resource(**REFERENCE, blob=b"\xff\x00\xfe")),
    ResourceRefContentPart(content=ResourceReference(**REFERENCE, range_start=1, range_end=1)),
    PromptRequestContentPart(content=PromptRequest(prompt_request_id="p1", name="greet", server_id="s")),
    PromptResultContentPart(
        content=PromptResult(
            prompt_request_id="p1",
            prompt_name="greet",
            messages=[Message(role=Role.USER, content=[TextContent(text="inner")])],
        )
    ),
    ImageContentPart(content=ImageSource(type="url", data="https://x/y.png", media_type="image/png")),
    VideoContentPart(content=VideoSource(type="base64", data="AAAA", duration_ms=3)),
    AudioContentPart(content=AudioSource(type="base64", data="AAAA")),
    DocumentContentPart(content=DocumentSource(type="url", data="https://x/y.pdf", title="Y")),
]


def test_every_kind_of_part_survives_both_round_trips() -> None:
    assert {part.content_type for part in PARTS} == set(ContentType)
    message = Message(role=Role.ASSISTANT, content=PARTS, channel=Channel.FINAL)

    assert Message.model_validate(message.model_dump()) == message
    assert Message.model_validate(message.model_dump(mode="json")) == message
    assert Message.model_validate_json(message.model_dump_json()) == message
    assert json.loads(message.model_dump_json()) == message.model_dump(mode="json")


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.content_type.value)
def test_a_part_is_read_from_a_dict_by_its_kind_given_as_text_or_member(part: ContentPart) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(ContentPartUnion)
    data = part.model_dump()

    assert adapter.validate_python(data) == part
    assert adapter.validate_python({**data, "content_type": part.content_type.value}) == part
    assert type(adapter.validate_python(data)) is type(part)
    assert adapter.validate_python(part) is part
    assert type(type(part)(**data).content_type) is ContentType


def test_the_keys_of_a_dump_stand_in_the_order_of_the_format() -> None:
    message = Message(role=Role.USER, content=[PARTS[2]])

    assert list(message.model_dump()) == ["schema_version", "role", "content", "channel"]
    assert list(message.model_dump()["content"][0]) == ["content_type", "content"]
    assert message.model_dump()["role"] is Role.USER
    assert list(Resource(**REFERENCE).model_dump()) == [
        "resource_request_id",
        "uri",
        "name",
        "description",
        "resource_type",
        "content",
        "blob",
        "mime_type",
        "size_bytes",
        "annotations",
        "version",
    ]


def test_defaults_are_fresh() -> None:
    one, other = (ToolCall(tool_call_id="1", name="n") for _ in "ab")
    assert one.arguments == {}
    assert one.arguments is not other.arguments
    message = Message(role="system")
    assert (message.schema_version, message.content, message.channel) == ("2.0", [], None)
    assert ToolResult(tool_call_id="1", tool_name="n").model_dump() == {
        "tool_call_id": "1",
        "tool_name": "n",
        "content": None,
        "is_error": False,
    }


@pytest.mark.parametrize(
    ("enum", "count"),
    [(Role, 5), (Channel, 3), (ContentType, 12), (ResourceType, 7), (ViewKind, 12), (ViewAction, 7)],
)
def test_enums_have_lower_case_values(enum: Any, count: int) -> None:
    assert len(enum) == count
    assert all(member.value == member.name.lower() and isinstance(member, str) for member in enum)


def test_everything_is_frozen_and_changed_by_copy() -> None:
    message = Message(role=Role.USER, content=[PARTS[0]])
    with pytest.raises(ValidationError, match="frozen"):
        message.role = Role.TOOL
    with pytest.raises(ValidationError, match="frozen"):
        message.content[0].text = "x"
    assert message.model_copy(update={"role": Role.TOOL}).role is Role.TOOL
    assert message.role is Role.USER


def test_a_message_refuses_unknown_keys_and_its_parts_ignore_them() -> None:
    with pytest.raises(ValidationError, match="extensions"):
        Message.model_validate({"role": "user", "extensions": {}})
    with pytest.raises(ValidationError, match="content"):
        Message(role="user", content="text")
    assert TextContent(text="a", other=1) == TextContent(text="a")
    assert ToolCall(tool_call_id="1", name="n", other=1) == ToolCall(tool_call_id="1", name="n")


class Loud(TextContent):
    volume: int = 11


def test_parts_keep_their_identity_in_a_list_of_the_message_s_own() -> None:
    given = [Loud(text="a")]
    message = Message(role="user", content=given)

    assert message.content[0] is given[0]
    assert message.content is not given
    assert message.model_dump()["content"] == [{"content_type": ContentType.TEXT, "text": "a"}]
    assert Message(role="user", content=tuple(given)).content == given


class Impostor(BaseModel):
    content_type: str = "text"
    text: str = "a"


@pytest.mark.conformance("M12")
@pytest.mark.parametrize(
    "element",
    [
        {},
        {"text": "a"},
        {"content_type": None, "text": "a"},
        {"content_type": "hologram", "text": "a"},
        {"content_type": 5, "text": "a"},
        {"content_type": ["text"], "text": "a"},
        None,
        5,
        "text",
        ContentPart(content_type=ContentType.TEXT),
        Impostor(),
        {"content_type": "tool_call", "tool_call_id": "1", "name": "n"},
    ],
    ids=repr,
)
def test_what_is_no_part_is_refused_with_its_place(element: Any) -> None:
    with pytest.raises(ValidationError) as error:
        Message(role="user", content=[TextContent(text="a"), element])
    (first, *_) = error.value.errors()
    assert first["loc"][:2] == ("content", 1)


@pytest.mark.parametrize(("content", "blob"), [("a", b"b"), ("", b""), ("a", b"")])
def test_a_resource_has_text_or_bytes_but_not_both(content: str, blob: bytes) -> None:
    with pytest.raises(ValidationError, match="a resource has either `content` or `blob`, not both"):
        Resource(**REFERENCE, content=content, blob=blob)


@pytest.mark.conformance("M15")
def test_a_blob_is_written_as_text_where_it_is_text_and_marked_where_it_is_not() -> None:
    def written(blob: bytes | str) -> Any:
        return json.loads(Resource(**REFERENCE, blob=blob).model_dump_json())["blob"]

    assert written("é") == "é"
    assert written(b"\xc3\xa9") == "é"
    assert written(b"\xff\x00") == {"base64": "/wA="}
    assert Resource(**REFERENCE, blob="é").blob == b"\xc3\xa9"
    assert Resource(**REFERENCE, blob={"base64": "/wA="}).model_dump()["blob"] == b"\xff\x00"


@pytest.mark.parametrize("blob", [{"base64": "?"}, {"base64": 5}, {"hex": "ff"}, 5])
def test_a_blob_that_is_neither_is_refused(blob: Any) -> None:
    with pytest.raises(ValidationError, match="blob"):
        Resource(**REFERENCE, blob=blob)


@pytest.mark.parametrize(("start", "end"), [(None, None), (3, None), (None, 3), (3, 3), (-2, -1)])
def test_a_range_may_be_open_or_empty(start: int | None, end: int | None) -> None:
    assert ResourceReference(**REFERENCE, range_start=start, range_end=end).range_end == end


def test_a_range_does_not_run_backwards() -> None:
    with pytest.raises(ValidationError, match=r"`range_end` \(2\) is before `range_start` \(3\)"):
        ResourceReference(**REFERENCE, range_start=3, range_end=2)


@pytest.mark.parametrize("cls", [ImageSource, VideoSource, AudioSource, DocumentSource])
def test_a_source_is_an_address_or_base64(cls: type[BaseModel]) -> None:
    assert cls(type="base64", data="not checked").model_dump()["data"] == "not checked"
    with pytest.raises(ValidationError, match="type"):
        cls(type="file", data="x")


def test_a_kind_of_part_takes_no_other_kind() -> None:
    with pytest.raises(ValidationError, match="content_type"):
        TextContent(content_type="thinking", text="a")


def test_messages_nest_in_the_result_of_a_prompt_by_the_rules_of_messages() -> None:
    data = {"prompt_request_id": "1", "prompt_name": "p", "messages": [{"role": "user", "extra": 1}]}
    with pytest.raises(ValidationError, match=r"messages\.0\.extra"):
        PromptResult(**data)


def test_loading_messages_does_not_load_views() -> None:
    code = "import sys, cpex.framework.cmf.message as m; print('cpex.framework.cmf.view' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert run.stdout.strip() == "False"


def test_a_message_has_a_json_schema() -> None:
    modes: tuple[Literal["validation", "serialization"], ...] = ("validation", "serialization")
    for mode in modes:
        schema = Message.model_json_schema(mode=mode)
        assert "ToolCallContentPart" in schema["$defs"]
