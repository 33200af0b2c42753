"""What of a payload goes on record."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, RootModel, SecretStr

from cpex.builtins.observability._records import encode, timestamp
from cpex.builtins.observability._values import MASK, TooLarge, outline, plain, select
from cpex.framework import clock


class Colour(str, Enum):
    RED = "red"


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str


@dataclass
class Point:
    x: int
    y: Any


def test_values_of_all_kinds_become_plain_json() -> None:
    value = {
        "text": "ü",
        "enum": Colour.RED,
        "big": 2**5000,
        "nan": math.nan,
        "bytes": b"abc",
        "when": datetime(2030, 1, 1, tzinfo=UTC),
        "model": Open(name="n", more={"a": (1, 2)}),
        "root": RootModel[dict[str, int]]({"a": 1}),
        "point": Point(1, None),
        "secret_type": SecretStr("hunter2"),
        "object": object(),
        3: {4.5},
    }
    assert plain(value, max_bytes=10_000) == {
        "text": "ü",
        "enum": "red",
        "big": "<int of 5001 bits>",
        "nan": "nan",
        "bytes": "<3 bytes>",
        "when": "2030-01-01 00:00:00+00:00",
        "model": {"name": "n", "more": {"a": [1, 2]}},
        "root": {"a": 1},
        "point": {"x": 1, "y": None},
        "secret_type": MASK,
        "object": "<object>",
        "3": [4.5],
    }


@pytest.mark.parametrize("key", ["password", "Authorization", "Set-Cookie", "API-Key"])
def test_values_under_secret_keys_are_masked_at_any_depth(key: str) -> None:
    assert plain({"a": [{key: {"deep": "s3cret"}}]}, max_bytes=1000) == {"a": [{key: MASK}]}


def test_a_value_beyond_the_bound_is_not_walked_to_its_end() -> None:
    with pytest.raises(TooLarge):
        plain({"text": "x" * 101}, max_bytes=100)
    bomb: Any = ["x"]
    for _ in range(30):
        bomb = [bomb, bomb]
    with pytest.raises(TooLarge):
        plain(bomb, max_bytes=10_000)


def test_a_value_that_contains_itself_ends() -> None:
    loop: dict[str, Any] = {}
    loop["loop"] = loop
    assert "<nested too deeply>" in json.dumps(plain(loop, max_bytes=10_000))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)


@given(json_values)
def test_whatever_is_recorded_is_one_line_of_ascii_json(value: Any) -> None:
    line = encode({"payload": plain(value, max_bytes=1_000_000), "shape": outline({"value": value})})
    assert line.isascii()
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    json.loads(line)


def test_only_chosen_fields_are_kept() -> None:
    tree = {"name": "t", "args": {"a": 1, "b": {"c": 2, "d": 3}, "list": [{"x": 1, "y": 2}, 5]}}
    chosen = [("args", "b", "c"), ("args", "list", "x"), ("args", "nowhere")]
    assert select(tree, chosen) == {"args": {"b": {"c": 2}, "list": [{"x": 1}]}}
    assert select(tree, [("*", "a")]) == {"args": {"a": 1}}
    assert select(tree, [("args", "b")]) == {"args": {"b": {"c": 2, "d": 3}}}
    assert select(tree, [("nothing",)]) is None


def test_an_outline_tells_names_and_types_but_no_values() -> None:
    payload = {
        "name": "secret tool",
        "args": {"city": "Berlin", "n": 1, "on": True, "x": None, "list": [1, 2], "deep": {"ssn": "078-05-1120"}},
    }
    assert outline(payload) == {
        "name": "string",
        "args": {
            "city": "string",
            "n": "number",
            "on": "boolean",
            "x": "null",
            "list": "array[2]",
            "deep": "object[1]",
        },
    }


def test_an_outline_counts_keys_that_may_be_data_themselves() -> None:
    result = {"ann@example.com": 1, "078-05-1120": 2, "status": "ok"}
    assert outline({"result": result}) == {"result": {"status": "string", "*": 2}}
    assert outline({"result": {f"k{n}": 0 for n in range(100)}})["result"]["*"] == 36


def test_a_timestamp_comes_from_the_framework_clock_in_rfc_3339() -> None:
    with clock.use_clock(clock.FixedClock(datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC))):
        assert timestamp() == "2030-01-02T03:04:05.000000Z"


def test_text_under_a_name_that_holds_the_name_of_a_secret_is_masked_and_a_count_is_not() -> None:
    value = {"delegated_token": "abc", "x-auth-token": "abc", "token_count": 7, "tokenizer": "bpe"}
    masked = {"delegated_token": MASK, "x-auth-token": MASK, "token_count": 7, "tokenizer": "bpe"}
    assert plain(value, max_bytes=1000) == masked
