"""What becomes of keys, kinds and versions that are unknown."""

import json
from typing import Any

import pytest
from pydantic import ValidationError
from support import call, manager_of, plugin

from cpex.framework.cmf.edit import checked_copy
from cpex.framework.cmf.message import (
    Message,
    OpaqueContentPart,
    PromptResultContentPart,
    Resource,
    Role,
    TextContent,
    Unknown,
)
from cpex.framework.cmf.rewrite import rewrite_text
from cpex.framework.cmf.text import iter_text
from cpex.framework.hooks.message import MessagePayload
from cpex.framework.models.result import PluginResult

KNOWN = {"content_type": "text", "text": "a"}
STRANGE_KEYS = {
    "schema_version": "2.3",
    "role": "user",
    "content": [
        {**KNOWN, "tone": "dry"},
        {"content_type": "tool_call", "content": {"tool_call_id": "1", "name": "n", "argumets": {"a": 1}}},
    ],
}
HOLOGRAM = {"content_type": "hologram", "beam": {"label": "secret"}, "text": "secret"}
STRANGE_KIND = {"role": "user", "content": [KNOWN, HOLOGRAM]}
KEEP = {"unknown": "keep"}


@pytest.mark.conformance("M14")
def test_unknown_keys_of_parts_are_dropped_refused_or_kept_as_the_context_says() -> None:
    dropped = Message.model_validate(STRANGE_KEYS)
    assert "tone" not in dropped.model_dump_json()
    assert dropped.content[0] == TextContent(text="a")
    with pytest.raises(ValidationError) as caught:
        Message.model_validate(STRANGE_KEYS, context={"unknown": "refuse"})
    assert [(each["loc"], each["msg"]) for each in caught.value.errors()] == [
        (("content", 0, "text"), "Value error, unknown `tone`; known: `content_type`, `text`"),
        (
            ("content", 1, "tool_call", "content"),
            "Value error, unknown `argumets`; known: `tool_call_id`, `name`, `arguments`, `namespace`",
        ),
    ]
    kept = Message.model_validate(STRANGE_KEYS, context={"unknown": Unknown.KEEP})
    assert kept.content[0].model_extra == {"tone": "dry"}
    written = json.loads(kept.model_dump_json(exclude_unset=True))
    assert written == STRANGE_KEYS
    assert Message.model_validate(written, context=KEEP) == kept != dropped


def test_what_was_kept_stays_when_a_finished_part_is_put_elsewhere() -> None:
    part = TextContent.model_validate({"text": "a", "tone": "dry"}, context=KEEP)
    opaque = OpaqueContentPart(content_type="hologram", beam=1)
    assert opaque.model_extra == {"beam": 1}
    for context in (None, {"unknown": "refuse"}):
        message = Message.model_validate({"role": "user", "content": [part, opaque]}, context=context)
        assert message.content[0] is part
        assert part.model_extra == {"tone": "dry"}
    assert part.model_copy(update={"text": "b"}).model_extra == {"tone": "dry"}


@pytest.mark.conformance("M14")
@pytest.mark.parametrize("word", [None, *Unknown])
def test_a_message_itself_never_takes_unknown_keys(word: Any) -> None:
    with pytest.raises(ValidationError, match="extensions"):
        Message.model_validate({"role": "user", "extensions": {}}, context={"unknown": word} if word else None)


@pytest.mark.conformance("M14")
def test_a_word_that_is_none_of_the_three_is_an_error() -> None:
    with pytest.raises(ValueError, match="'keeep' is not a valid Unknown"):
        Message.model_validate(STRANGE_KEYS, context={"unknown": "keeep"})


@pytest.mark.conformance("M13")
def test_a_part_of_an_unknown_kind_is_refused_unless_it_is_to_be_kept() -> None:
    for context in (None, {"unknown": "refuse"}, {"other": 1}, "keep"):
        with pytest.raises(ValidationError, match="Input tag 'hologram'"):
            Message.model_validate(STRANGE_KIND, context=context)
    kept = Message.model_validate(STRANGE_KIND, context=KEEP)
    part = kept.content[1]
    assert isinstance(part, OpaqueContentPart)
    assert (part.content_type, part.model_extra) == ("hologram", {"beam": {"label": "secret"}, "text": "secret"})
    for written in (kept.model_dump(mode="json"), json.loads(kept.model_dump_json())):
        assert written["content"] == [KNOWN, HOLOGRAM]
        assert Message.model_validate(written, context=KEEP) == kept
    assert Message.model_validate(kept) == kept


@pytest.mark.conformance("M13")
def test_the_texts_of_an_unknown_part_are_found_and_replaced_and_views_refuse_it() -> None:
    kept = Message.model_validate(STRANGE_KIND, context=KEEP)
    assert {leaf.path: leaf.text for leaf in iter_text(kept)} == {
        "content[0].text": "a",
        "content[1].beam[key]": "label",
        "content[1].beam.label": "secret",
        "content[1].text": "secret",
    }
    changed = rewrite_text(kept, lambda leaf: leaf.text.replace("secret", "***"))
    assert changed.model_dump(mode="json")["content"][1] == {
        "content_type": "hologram",
        "beam": {"label": "***"},
        "text": "***",
    }
    with pytest.raises(ValueError, match="unknown content type `hologram`"):
        list(kept.iter_views())


@pytest.mark.conformance("M13")
def test_a_known_kind_cannot_come_as_an_unknown_one() -> None:
    with pytest.raises(ValidationError, match="`text` is a known kind of part; use its own class"):
        OpaqueContentPart.model_validate(KNOWN)
    for context in (None, {"unknown": "refuse"}):
        with pytest.raises(ValidationError, match=r"content\.0"):
            Message.model_validate({"role": "user", "content": [{**KNOWN, "content_type": "opaque"}]}, context=context)


async def test_what_a_plugin_does_to_an_unknown_part_in_place_stays_with_the_plugin() -> None:
    async def edits(payload: Any, context: Any) -> PluginResult[Any]:
        payload.message.content[1].model_extra["beam"]["label"] = "edited"
        return PluginResult()

    message = Message.model_validate(STRANGE_KIND, context=KEEP)
    result, _ = await call(
        manager_of(plugin(edits, hooks=["evaluate"])), MessagePayload(message=message), hook="evaluate"
    )
    assert result.modified_payload is None
    assert message.model_dump(mode="json")["content"] == [KNOWN, HOLOGRAM]


def test_unknown_things_are_kept_in_the_messages_of_a_prompt_as_well() -> None:
    result = {"prompt_request_id": "p", "prompt_name": "p", "messages": [STRANGE_KIND]}
    outer = {"role": "user", "content": [{"content_type": "prompt_result", "content": result}]}
    kept = Message.model_validate(outer, context=KEEP).content[0]
    assert isinstance(kept, PromptResultContentPart)
    assert isinstance(kept.content.messages[0].content[1], OpaqueContentPart)
    with pytest.raises(ValidationError, match="hologram"):
        Message.model_validate(outer)


@pytest.mark.conformance("M16")
@pytest.mark.parametrize("version", ["2", "2.0", "2.17", "2.0.1"])
def test_a_later_version_of_the_same_format_is_understood(version: str) -> None:
    assert Message(role=Role.USER, schema_version=version).schema_version == version


@pytest.mark.conformance("M16")
@pytest.mark.parametrize("version", ["1.0", "3.0", "20", "2.", "2.x", "", "two", "2.0\n"])
def test_another_version_of_the_format_is_refused(version: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Message(role=Role.USER, schema_version=version)
    (error,) = caught.value.errors()
    assert error["loc"] == ("schema_version",)
    assert error["msg"] == f"Value error, schema version `{version}` is not understood; known: 2.0 and later 2.x"


@pytest.mark.conformance("M17")
def test_a_checked_copy_is_checked_and_keeps_the_rest() -> None:
    fields = {"resource_request_id": "r", "uri": "u", "resource_type": "file", "content": "a", "etag": "x"}
    resource = Resource.model_validate(fields, context=KEEP)
    with pytest.raises(ValidationError, match="either `content` or `blob`, not both"):
        checked_copy(resource, blob=b"b")
    with pytest.raises(TypeError, match=r"^`Resource` has no `contnet`$"):
        checked_copy(resource, contnet="b")
    changed = checked_copy(resource, content=None, blob=b"b")
    assert (changed.blob, changed.uri, changed.model_extra) == (b"b", "u", {"etag": "x"})
    assert resource.content == "a"
