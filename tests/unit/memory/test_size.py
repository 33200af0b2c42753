"""How large a payload is."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from cpex.framework.memory.size import content_bytes, fits


@dataclass
class Declared:
    text: str
    more: list[str]


@dataclass(slots=True)
class DeclaredInSlots:
    text: str


class Model(BaseModel):
    model_config = {"extra": "allow"}
    text: str = "abc"


SIZES: list[tuple[Any, int]] = [
    ("", 0),
    ("abc", 3),
    ("ß€😀", 9),
    ("\ud800", 3),
    (b"abc", 3),
    (bytearray(b"abc"), 3),
    (None, 8),
    (True, 8),
    (10**100, 8),
    (1.5, 8),
    (Decimal("1.5"), 8),
    (object(), 8),
    (Declared("abc", ["de"]), 5),
    (DeclaredInSlots("abc"), 3),
    (Declared, 8),
    (SimpleNamespace(text="abc"), 3),
    (deque(["abc", 1]), 11),
    (SecretStr("secret"), 6),
    ([], 0),
    ({}, 0),
    ({"key": "value"}, 8),
    ({1: 2}, 16),
    ([1, "a", None], 17),
    (("ab", {"cd"}), 4),
    (frozenset({"ab"}), 2),
    ({"a": [{"b": ("c", 1)}]}, 11),
    (Model(), 3),
    (Model(more="xyz"), 6),
]


@pytest.mark.parametrize(("content", "size"), SIZES, ids=lambda each: repr(each).partition(" at 0x")[0][:30])
def test_content_is_the_bytes_of_texts_and_eight_for_everything_else(content: Any, size: int) -> None:
    assert content_bytes(content) == size


@pytest.mark.parametrize(("content", "size"), SIZES, ids=lambda each: repr(each).partition(" at 0x")[0][:30])
def test_the_quick_answer_agrees_with_the_exact_count(content: Any, size: int) -> None:
    assert fits(content, size)
    assert size == 0 or not fits(content, size - 1)


def test_a_container_that_appears_twice_counts_once() -> None:
    shared = ["abc"]
    assert content_bytes([shared, shared]) == 3


def test_cycles_end() -> None:
    cyclic: list[Any] = ["abc"]
    cyclic.append(cyclic)
    assert content_bytes(cyclic) == 3
    assert fits(cyclic, 3)
    assert not fits(cyclic, 2)


def test_nesting_may_be_deeper_than_the_stack() -> None:
    deep: Any = ["abc"]
    for _ in range(50_000):
        deep = [deep]
    assert content_bytes(deep) == 3
    assert fits(deep, 3)


def test_counting_may_stop_as_soon_as_it_is_too_much() -> None:
    class Poisoned(dict[str, Any]):
        def values(self) -> Any:
            raise AssertionError("nobody may look in here")

    assert content_bytes(["x" * 10, [Poisoned(a=1)]], stop_after=5) > 5


def test_structure_that_repeats_itself_is_measured_by_its_objects_and_not_by_its_paths() -> None:
    value: Any = ["abc"]
    for _ in range(200):
        value = [value, value, {"k": value}]
    assert content_bytes(value) == 203
    assert fits(value, 203)
    assert not fits(value, 202)


def test_a_text_that_is_repeated_counts_each_time() -> None:
    text = "x" * 1000
    assert not fits([text] * 101, 100_999)
    assert fits([text] * 101, 101_000)


def test_the_code_of_foreign_objects_is_not_run() -> None:
    class Foreign:
        def __reduce_ex__(self, protocol: Any) -> Any:
            raise AssertionError("nobody may ask")

    assert fits({"o": Foreign()}, 9)
    assert not fits({"o": Foreign()}, 8)
