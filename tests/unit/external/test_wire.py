"""What crosses to another process, and what is refused."""

from __future__ import annotations

import dataclasses
import enum
import threading
from typing import Any

import pytest
from pydantic import SecretStr

from cpex.framework import GlobalContext, PluginContext, ToolPreInvokePayload
from cpex.framework.external.wire import WireError, dumps, encode, loads, plain


class Colour(enum.Enum):
    """A closed set."""

    RED = "red"


@dataclasses.dataclass
class Point:
    """A plain record."""

    x: int
    tags: set[str]


def test_models_enums_and_dataclasses_cross_as_what_they_hold() -> None:
    payload = ToolPreInvokePayload(name="t", args={"c": Colour.RED, "p": Point(1, {"a"}), "n": None})
    assert loads(dumps(payload)) == {"name": "t", "args": {"c": "red", "p": {"x": 1, "tags": {"a"}}, "n": None}}


def test_a_secret_crosses_only_when_it_may() -> None:
    assert loads(dumps(SecretStr("hunter2"))) == SecretStr("**********")
    assert loads(dumps(SecretStr("hunter2"), reveal=True)) == SecretStr("hunter2")
    assert b"hunter2" not in dumps({"a": [SecretStr("hunter2")]})


def test_what_cannot_cross_is_named_with_its_place() -> None:
    with pytest.raises(WireError) as raised:
        encode({"args": {"list": [1, threading.Lock()]}})
    assert str(raised.value) == (
        "args.list[1] holds a `_thread.lock`, which cannot cross to another process; send plain data in its place"
    )


def test_a_value_that_contains_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(WireError, match="nested too deep, or contains itself"):
        encode(loop)


@pytest.mark.parametrize(
    "text",
    [
        b'{"$cpex": "pickle", "v": "x"}',
        b'{"$cpex": "set"}',
        b'{"$cpex": "set", "v": [1], "w": 1}',
        b'{"$cpex": "set", "v": [[]]}',
        b'{"$cpex": "date", "v": "tomorrow"}',
        b'{"$cpex": ["set"], "v": []}',
        b'{"a": ',
        b"\xff\xfe",
        b"[" * 100_000,
    ],
)
def test_broken_frames_are_refused(text: bytes) -> None:
    with pytest.raises(WireError):
        loads(text)


def test_the_plain_form_leaves_null_fields_out_and_keeps_nulls_in_dictionaries() -> None:
    context = PluginContext(global_context=GlobalContext(request_id="r", state={"n": None}))
    assert plain(context) == {
        "global_context": {"request_id": "r", "state": {"n": None}, "metadata": {}},
        "state": {},
        "metadata": {},
    }


def test_the_plain_form_masks_secrets_and_says_what_it_cannot_write() -> None:
    assert plain(ToolPreInvokePayload(name="t", args={"s": SecretStr("hunter2")}))["args"] == {"s": "**********"}
    with pytest.raises(WireError, match="a ToolPreInvokePayload cannot be written as JSON"):
        plain(ToolPreInvokePayload(name="t", args={"lock": threading.Lock()}))
