"""Which texts of a message a scanner gets to see."""

import base64
import dataclasses
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest

from cpex.framework.cmf.message import (
    DocumentContentPart,
    DocumentSource,
    ImageContentPart,
    ImageSource,
    Message,
    PromptResult,
    PromptResultContentPart,
    Resource,
    ResourceContentPart,
    ResourceType,
    Role,
    TextContent,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)
from cpex.framework.cmf.text import iter_text


def texts(value: Any) -> dict[str, str]:
    return {leaf.path: leaf.text for leaf in iter_text(value)}


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


@pytest.mark.conformance("M1")
def test_every_text_of_a_message_is_found_with_its_path() -> None:
    nested = Message(role=Role.USER, content=[TextContent(text="nested")])
    message = Message(
        role=Role.USER,
        content=[
            TextContent(text="hello"),
            ToolCallContentPart(
                content=ToolCall(tool_call_id="c", name="get", namespace="hr", arguments={"q": ["x", {"odd key": "y"}]})
            ),
            ResourceContentPart(
                content=Resource(
                    resource_request_id="r",
                    uri="file:///a",
                    description="what it is",
                    resource_type=ResourceType.FILE,
                    blob="bytes",
                    annotations={"by": "ann"},
                )
            ),
            PromptResultContentPart(
                content=PromptResult(
                    prompt_request_id="p", prompt_name="greet", messages=[nested], error_message="failed"
                )
            ),
        ],
    )
    assert texts(message) == {
        "content[0].text": "hello",
        "content[1].content.name": "get",
        "content[1].content.arguments[key]": "q",
        "content[1].content.arguments.q[0]": "x",
        "content[1].content.arguments.q[1][key]": "odd key",
        "content[1].content.arguments.q[1]['odd key']": "y",
        "content[1].content.namespace": "hr",
        "content[2].content.uri": "file:///a",
        "content[2].content.description": "what it is",
        "content[2].content.blob": "bytes",
        "content[2].content.annotations[key]": "by",
        "content[2].content.annotations.by": "ann",
        "content[3].content.prompt_name": "greet",
        "content[3].content.messages[0].content[0].text": "nested",
        "content[3].content.error_message": "failed",
    }


def test_a_view_gives_the_texts_of_its_part_with_paths_from_the_message() -> None:
    nested = Message(role=Role.USER, content=[TextContent(text="a"), TextContent(text="b")])
    result = PromptResult(prompt_request_id="p", prompt_name="greet", messages=[nested])
    message = Message(role=Role.TOOL, content=[PromptResultContentPart(content=result)])
    *_, last = message.iter_views(recursive=True)
    assert [leaf[:2] for leaf in last.iter_text()] == [("content[0].content.messages[0].content[1].text", "b")]


@pytest.mark.conformance("M1")
@pytest.mark.parametrize(
    ("kind", "data", "found"),
    [
        ("base64", encoded("secret é"), "secret é"),
        ("base64", encoded("secret??>").replace("/", "_").rstrip("="), "secret??>"),
        ("base64", f"{encoded('sec')}\n {encoded('ret')}", "secret"),
        ("base64", base64.b64encode(b"\xff\xd8").decode(), None),
        ("base64", base64.b64encode(b"one \xe9 in ten").decode(), "one \udce9 in ten"),
        ("base64", "?", None),
        ("base64", "é", None),
        ("url", "https://x/y", None),
        ("url", f"DATA:text/plain;base64,{encoded('secret')}", "secret"),
        ("url", "data:,a%20secret", "a secret"),
        ("url", "data:no comma", None),
    ],
)
def test_media_are_looked_into_where_they_hold_text(kind: Any, data: str, found: str | None) -> None:
    image = Message(role=Role.USER, content=[ImageContentPart(content=ImageSource(type=kind, data=data))])
    path = "content[0].content.data"
    expected = {path: data} if found is None else {path: data, f"{path}[decoded]": found}
    assert texts(image) == expected


def test_titles_and_types_of_documents_are_texts() -> None:
    source = DocumentSource(type="url", data="u", title="T", media_type="a/b")
    found = texts(DocumentContentPart(content=source))
    assert found == {"content.data": "u", "content.media_type": "a/b", "content.title": "T"}


@dataclasses.dataclass
class Record:
    note: str


class Opaque:
    def __str__(self) -> str:
        return "opaque"


def test_results_of_any_type_are_walked() -> None:
    value = {
        "number": 4111111111111111,
        "float": 1.5,
        "nothing": [None, True],
        "tuple": ("a",),
        "set": {"s"},
        "bytes": bytearray(b"b"),
        "binary": b"\xff",
        "record": Record("r"),
        "space": SimpleNamespace(x="n"),
        "date": date(2024, 1, 2),
        "object": Opaque(),
        5: "five",
    }
    part = ToolResultContentPart(content=ToolResult(tool_call_id="c", tool_name="t", content=value))
    found = {path.removeprefix("content.content"): text for path, text in texts(part).items() if "[key]" not in path}
    assert found == {
        "content.tool_name": "t",
        ".number": "4111111111111111",
        ".float": "1.5",
        ".tuple[0]": "a",
        ".set[0]": "s",
        ".bytes": "b",
        ".record.note": "r",
        ".space.x": "n",
        ".date": "2024-01-02",
        ".object": "opaque",
        "[5]": "five",
    }


def test_containers_are_entered_once_at_any_depth() -> None:
    value: dict[str, Any] = {"a": "b"}
    value["self"] = value
    assert [leaf.text for leaf in iter_text(value)] == ["a", "b", "self"]
    deep: list[Any] = ["bottom"]
    for _ in range(10_000):
        deep = [deep]
    assert [leaf.text for leaf in iter_text(deep)] == ["bottom"]


def test_a_text_tells_its_key_its_value_and_whether_it_names_something() -> None:
    call = ToolCall(tool_call_id="c", name="get", arguments={"cards": [4111]})
    found = {leaf.path.removeprefix("content."): leaf[2:] for leaf in iter_text(ToolCallContentPart(content=call))}
    assert found == {
        "name": ("get", "name", True),
        "arguments[key]": ("cards", "", False),
        "arguments.cards[0]": (4111, "cards", False),
    }


def test_long_keys_are_cut_in_paths_but_not_in_texts() -> None:
    key = "k" * 1000
    found = list(iter_text({key: "v"}))
    assert [leaf.text for leaf in found] == [key, "v"]
    assert found[1].path == f"['{'k' * 64}']"
