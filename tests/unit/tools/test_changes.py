from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from cpex.tools.changes import changes, jsonable, same

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "a", "b~/"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["a", "b", "~", "a/b", "1"]), inner),
    max_leaves=12,
)


def applied(document: Any, operations: list[dict[str, Any]]) -> Any:
    """Apply RFC 6902 operations of the kinds that are written."""
    document = copy.deepcopy(document)
    for operation in operations:
        parts = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        if not parts:
            document = operation["value"]
            continue
        target = document
        for part in parts[:-1]:
            target = target[int(part) if isinstance(target, list) else part]
        if isinstance(target, list):
            index = int(parts[-1])
            if operation["op"] == "add":
                target.insert(index, operation["value"])
            elif operation["op"] == "remove":
                del target[index]
            else:
                target[index] = operation["value"]
        elif operation["op"] == "remove":
            del target[parts[-1]]
        else:
            assert (operation["op"] == "add") == (parts[-1] not in target)
            target[parts[-1]] = operation["value"]
    return document


@given(VALUES, VALUES, st.booleans())
def test_the_operations_lead_from_one_value_to_the_other(before: Any, after: Any, show_removed: bool) -> None:
    assert same(applied(before, changes(before, after, show_removed=show_removed)), after)


@given(st.dictionaries(st.sampled_from("abc"), VALUES), st.dictionaries(st.sampled_from("abcd"), VALUES))
def test_parts_that_came_by_default_are_added_when_they_change_and_left_alone_otherwise(
    written: dict[str, Any], changed: dict[str, Any]
) -> None:
    before = {"d": None, **written}
    after = {**before, **changed}
    result = applied(written, changes(before, after, written=written))
    assert same({"d": None, **result}, after)


def test_what_was_replaced_or_removed_is_told_only_on_request() -> None:
    before = {"args": {"q": "card 4111", "password": "hunter2", "tags": ["x", "y"]}}
    after = {"args": {"q": "card [CARD]", "tags": ["x"]}}
    assert changes(before, after) == [
        {"op": "remove", "path": "/args/password"},
        {"op": "replace", "path": "/args/q", "value": "card [CARD]"},
        {"op": "remove", "path": "/args/tags/1"},
    ]
    assert changes(before, after, show_removed=True) == [
        {"op": "remove", "path": "/args/password", "removed": "hunter2"},
        {"op": "replace", "path": "/args/q", "value": "card [CARD]", "removed": "card 4111"},
        {"op": "remove", "path": "/args/tags/1", "removed": "y"},
    ]


@pytest.mark.parametrize(
    "secret", ["ada@example.com", "4111111111111111", "DE89370400440532013000", "+44 20 7946 0127"]
)
def test_a_key_that_may_be_a_secret_is_not_named_when_it_goes(secret: str) -> None:
    before = {"people": {secret: 1, "n": 2}}
    assert changes(before, {"people": {"n": 2}}) == [{"op": "replace", "path": "/people", "value": {"n": 2}}]
    renamed = {"people": {"[REDACTED]": 1, "n": 2}}
    assert changes(before, renamed) == [{"op": "replace", "path": "/people", "value": renamed["people"]}]
    assert secret in json.dumps(changes(before, renamed, show_removed=True))


def test_a_key_that_is_exchanged_for_another_is_not_named_however_harmless_it_looks() -> None:
    assert changes({"a": {"Ada": 1}}, {"a": {"[NAME]": 1}}) == [{"op": "replace", "path": "/a", "value": {"[NAME]": 1}}]


def test_numbers_and_truth_values_of_the_same_size_are_different_values() -> None:
    assert changes([1, 1, True], [1, True, 1.0]) == [
        {"op": "replace", "path": "/1", "value": True},
        {"op": "replace", "path": "/2", "value": 1.0},
    ]


def test_an_element_that_goes_from_the_middle_of_a_list_is_one_operation() -> None:
    assert changes([1, 2, 3, 4], [1, 3, 4]) == [{"op": "remove", "path": "/1"}]
    assert changes([1, 4], [1, 2, 3, 4]) == [
        {"op": "add", "path": "/1", "value": 2},
        {"op": "add", "path": "/2", "value": 3},
    ]


def test_values_too_deep_to_be_compared_are_replaced_whole() -> None:
    before: Any = "a"
    after: Any = "b"
    for _ in range(5000):
        before, after = [before], [after]
    (operation,) = changes(before, after)
    assert (operation["op"], operation["path"]) == ("replace", "")


class Model(BaseModel):
    blob: bytes
    number: float = 1.0


def test_anything_has_a_form_in_json() -> None:
    assert jsonable({"m": Model(blob=b"text"), 1: {2}}) == {"m": {"blob": "text", "number": 1.0}, "1": [2]}
    assert jsonable(Model(blob=b"\xff", number=float("nan"))) == {"blob": "_w==", "number": None}
    loop: list[Any] = []
    loop.append(loop)
    assert jsonable(loop) == "<list that JSON cannot express>"
