"""What a redactor can replace in a message, and what stays as it was."""

import base64
import dataclasses
from collections import namedtuple
from datetime import date
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel

from cpex.framework.cmf.leaves import TextLeaf
from cpex.framework.cmf.message import (
    ImageContentPart,
    ImageSource,
    Message,
    PromptResult,
    PromptResultContentPart,
    Resource,
    ResourceContentPart,
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
from cpex.framework.cmf.rewrite import rewrite_text


def hide(leaf: TextLeaf) -> str:
    return leaf.text.replace("secret", "***")


def encoded(data: bytes | str) -> str:
    return base64.b64encode(data.encode() if isinstance(data, str) else data).decode()


def result_of(value: Any) -> ToolResultContentPart:
    return ToolResultContentPart(content=ToolResult(tool_call_id="c", tool_name="t", content=value))


def rewritten(value: Any, **choices: bool) -> Any:
    """What becomes of a tool's answer."""
    return rewrite_text(result_of(value), hide, **choices).content.content


def resource(**fields: Any) -> ResourceContentPart:
    fields = {"resource_request_id": "r", "uri": "file:///secret", "resource_type": ResourceType.FILE, **fields}
    return ResourceContentPart(content=Resource(**fields))


@pytest.mark.conformance("M1")
def test_texts_are_replaced_at_any_depth_and_what_lies_beside_is_shared() -> None:
    nested = Message(role=Role.USER, content=[TextContent(text="a secret")])
    call = ToolCall(tool_call_id="secret", name="get", arguments={"q": ["a secret", {"deep": "secret"}], "n": 1})
    message = Message(
        role=Role.USER,
        content=[
            TextContent(text="clean"),
            ToolCallContentPart(content=call),
            PromptResultContentPart(
                content=PromptResult(prompt_request_id="p", prompt_name="p", messages=[nested], error_message="secret")
            ),
        ],
    )
    before = message.model_dump()
    changed = rewrite_text(message, hide)
    assert changed.model_dump() == {
        **before,
        "content": [
            before["content"][0],
            {
                **before["content"][1],
                "content": {
                    **before["content"][1]["content"],
                    "arguments": {"q": ["a ***", {"deep": "***"}], "n": 1},
                },
            },
            {
                **before["content"][2],
                "content": {
                    **before["content"][2]["content"],
                    "messages": [{**nested.model_dump(), "content": [{"content_type": "text", "text": "a ***"}]}],
                    "error_message": "***",
                },
            },
        ],
    }
    assert changed.content[0] is message.content[0]
    assert message.model_dump() == before


def test_a_message_with_nothing_to_replace_comes_back_itself() -> None:
    message = Message(role=Role.USER, content=[TextContent(text="clean"), result_of({"a": [1, 2.5, None, b"b"]})])
    assert rewrite_text(message, lambda leaf: str(leaf.text)) is message


def test_names_and_addresses_are_shown_only_to_those_who_ask_for_them() -> None:
    reference = ResourceReference(
        resource_request_id="r", uri="secret:a", selector="$.secret", resource_type=ResourceType.URI, range_start=1
    )
    message = Message(
        role=Role.USER,
        content=[
            ToolCallContentPart(content=ToolCall(tool_call_id="c", name="secret", namespace="secret")),
            ResourceRefContentPart(content=reference),
            ImageContentPart(content=ImageSource(type="url", data="https://x/secret", media_type="secret")),
        ],
    )
    assert rewrite_text(message, hide) is message
    changed = rewrite_text(message, hide, names=True)
    assert [view.uri for view in changed.iter_views()] == ["tool://***/***", "***:a", None]
    last: Any = changed.content[2]
    assert (last.content.data, last.content.media_type) == ("https://x/***", "***")


@pytest.mark.parametrize(
    ("kind", "data", "changed"),
    [
        ("base64", encoded("a secret é"), encoded("a *** é")),
        ("base64", encoded(b"\xff\xd8 secret"), None),
        ("base64", encoded(b"\xe9t\xe9, a longer secret"), encoded(b"\xe9t\xe9, a longer ***")),
        ("url", "data:,%E9t%E9%20%20a%20longer%20%73ecret", "data:,%E9t%E9%20%20a%20longer%20%2A%2A%2A"),
        ("base64", "secret is no base64!", "*** is no base64!"),
        ("url", f"data:text/plain;base64,{encoded('secret')}", f"data:text/plain;base64,{encoded('***')}"),
        ("url", "data:,a%20secret", "data:,a%20***"),
        ("url", "data:,a%20secr%65t", "data:,a%20%2A%2A%2A"),
        ("url", "data:secret, without a comma".replace(",", ""), "data:*** without a comma"),
    ],
)
def test_text_in_media_is_replaced_in_its_encoding(kind: Any, data: str, changed: str | None) -> None:
    image = ImageContentPart(content=ImageSource(type=kind, data=data))
    assert rewrite_text(image, hide).content.data == (data if changed is None else changed)


def test_a_few_bytes_of_another_encoding_are_kept() -> None:
    changed = rewrite_text(resource(blob="Müller, a longer secret".encode("latin-1")), hide).content
    assert changed.blob == b"M\xfcller, a longer ***"


def test_a_resource_keeps_bytes_bytes_and_loses_its_size() -> None:
    changed = rewrite_text(resource(blob=b"a secret", size_bytes=8, annotations={"by": "me"}), hide).content
    assert (changed.blob, changed.size_bytes, changed.uri) == (b"a ***", None, "file:///secret")
    annotated = rewrite_text(resource(blob=b"\xff", size_bytes=1, annotations={"by": "secret"}), hide).content
    assert (annotated.blob, annotated.size_bytes, annotated.annotations) == (b"\xff", 1, {"by": "***"})


class Note(BaseModel, frozen=True, extra="allow"):
    note: str


@dataclasses.dataclass(frozen=True)
class Record:
    note: str
    more: list[str]


Pair = namedtuple("Pair", "left right")


def test_values_of_any_type_are_replaced_by_values_of_the_same_type() -> None:
    old = {
        "tuple": ("secret", 1),
        "pair": Pair("secret", 1),
        "set": {"secret"},
        "frozenset": frozenset({"secret"}),
        "bytes": bytearray(b"secret"),
        "model": Note.model_validate({"note": "secret", "extra": "secret"}),
        "record": Record("n", ["secret"]),
        "space": SimpleNamespace(x="secret", y=1),
    }
    assert rewritten(old) == {
        "tuple": ("***", 1),
        "pair": Pair("***", 1),
        "set": {"***"},
        "frozenset": frozenset({"***"}),
        "bytes": b"***",
        "model": Note.model_validate({"note": "***", "extra": "***"}),
        "record": Record("n", ["***"]),
        "space": SimpleNamespace(x="***", y=1),
    }
    assert isinstance(rewritten(old)["pair"], Pair)
    assert old["record"] == Record("n", ["secret"])


def test_numbers_and_dates_are_shown_as_text_and_replaced_by_text() -> None:
    value = {"card": 4111111111111111, "day": date(2024, 1, 2), "yes": True, "none": None}
    shown: dict[str, Any] = {}

    def change(leaf: TextLeaf) -> str:
        shown[leaf.key] = leaf.value
        return "[CARD]" if leaf.value == 4111111111111111 else leaf.text

    changed = rewrite_text(result_of(value), change, keys=False).content.content
    assert changed == {**value, "card": "[CARD]"}
    assert shown == {"card": 4111111111111111, "day": date(2024, 1, 2)}


def test_keys_are_replaced_and_told_apart_when_they_become_the_same() -> None:
    assert rewritten({"secret": 1, "***": 2}) == {"***#2": 1, "***": 2}
    assert rewritten({"secret": "secret"}, keys=False) == {"secret": "***"}


def test_a_container_under_two_keys_is_shown_under_both() -> None:
    shared = ["secret"]
    keys: list[str] = []
    rewrite_text(
        result_of({"a": shared, "b": shared, "c": [shared, shared]}), lambda leaf: keys.append(leaf.key) or leaf.text
    )
    assert [key for key in keys if key] == ["a", "b", "c"]


def test_structures_of_shared_containers_take_no_more_time_than_they_have_containers() -> None:
    value: Any = ["secret"]
    for _ in range(100):
        value = [value, value]
    changed = rewritten(value)
    for _ in range(100):
        assert changed[0] is changed[1]
        changed = changed[0]
    assert changed == ["***"]


def test_nesting_may_be_deeper_than_calls_may_be() -> None:
    value: Any = ["secret"]
    for _ in range(10_000):
        value = [value]
    changed = rewritten(value)
    for _ in range(10_000):
        (changed,) = changed
    assert changed == ["***"]


def test_a_structure_that_contains_itself_cannot_be_rewritten_but_can_be_left_alone() -> None:
    value: dict[str, Any] = {"a": "clean"}
    value["self"] = value
    assert rewritten(value) is value
    value["b"] = "secret"
    with pytest.raises(ValueError, match=r"^`content.content.self` contains itself, so its texts cannot be replaced"):
        rewritten(value)


def test_an_answer_that_is_no_text_is_an_error_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"^the change of `text` must be a text, got NoneType$"):
        rewrite_text(TextContent(text="a"), lambda leaf: None)
