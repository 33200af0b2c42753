from __future__ import annotations

import dataclasses
from collections import UserList, UserString, deque, namedtuple
from enum import Enum
from ipaddress import IPv4Address
from pathlib import PurePosixPath
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import AnyUrl, BaseModel, ConfigDict, PostgresDsn

from cpex.builtins.text import MAX_DEPTH, StructureTooLargeError, leaves, rewrite


class Upper:
    """Capital letters, and numbers doubled, except under the key `keep`."""

    def text(self, text: str, key: str) -> str:
        return text if key == "keep" or text == text.upper() else text.upper()

    def number(self, number: int, key: str) -> int | str:
        return number if key == "keep" else number * 2


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    text: str
    parts: list[Part] = []


@dataclasses.dataclass(frozen=True)
class Record:
    note: str
    size: int = 1


Pair = namedtuple("Pair", "left right")

NESTED = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=20,
)


def paths(value: Any) -> list[tuple[str, str]]:
    return [(leaf.path, leaf.text) for leaf in leaves(value, "args")]


def test_every_string_is_found_with_its_path() -> None:
    value = {"query": "a", "odd key": [1, ("b", None)], 3: {"x": Part(text="c", extra="d")}}
    assert paths(value) == [
        ("args[key]", "query"),
        ("args[key]", "odd key"),
        ("args.query", "a"),
        ("args['odd key'][1][0]", "b"),
        ("args[3][key]", "x"),
        ("args[3].x.text", "c"),
        ("args[3].x.extra", "d"),
    ]


def test_text_in_bytes_dataclasses_namespaces_and_sets_is_found() -> None:
    found = [leaf.text for leaf in leaves([b"one", Record("two"), SimpleNamespace(a="three"), {"four"}, b"\xff"], "x")]
    assert found == ["one", "two", "three", "four"]


def test_a_few_bytes_of_another_encoding_hide_no_text() -> None:
    latin, stray = "Müller, a secret".encode("latin-1"), b"\xffa longer secret \xd0\xbf\xd1"
    found = paths([latin, bytearray(stray)])
    assert [text.encode(errors="surrogateescape") for _, text in found] == [latin, stray]
    assert rewrite([latin, bytearray(stray)], Upper()) == [
        b"M\xfcLLER, A SECRET",
        bytearray(b"\xffA LONGER SECRET \xd0\x9f\xd1"),
    ]
    image = bytes(range(256)) + b"secret"
    assert paths([image]) == []
    assert rewrite([image], Upper())[0] is image


def test_objects_that_stand_for_a_text_are_read_and_replaced_by_text() -> None:
    class Colour(Enum):
        RED = "red"
        BLUE = 1

    value = {
        "path": PurePosixPath("/a"),
        "url": AnyUrl("https://x.example/a"),
        "dsn": PostgresDsn("postgres://u:p@db/x"),
        "address": IPv4Address("10.0.0.1"),
        "text": UserString("a"),
        "colour": Colour.RED,
        "number": Colour.BLUE,
        "rows": UserList(["a", "B"]),
        "values": {"k": "a"}.values(),
    }
    texts = [text for path, text in paths(value) if not path.endswith("[key]")]
    assert texts == ["/a", "https://x.example/a", "postgres://u:p@db/x", "10.0.0.1", "a", "red", "a", "B", "a"]
    new = rewrite(value, Upper())
    assert (new["path"], new["url"], new["dsn"]) == ("/A", "HTTPS://X.EXAMPLE/A", "POSTGRES://U:P@DB/X")
    assert new["address"] is value["address"]
    assert (new["text"], new["colour"], new["number"]) == ("A", "RED", Colour.BLUE)
    assert (new["rows"], new["values"]) == (["A", "B"], ["A"])


def test_what_the_exceptions_in_a_group_say_is_found_and_rewritten() -> None:
    group = ExceptionGroup("two", [ValueError("a"), ExceptionGroup("more", [KeyError("b")])])
    said = str(group), str(group.exceptions[1])
    assert paths(group) == [("args", f"{said[0]}\na\n{said[1]}\n'b'")]
    new = rewrite(group, Upper())
    assert (type(new), str(new)) == (
        RuntimeError,
        f"ExceptionGroup: {said[0]}\na\n{said[1]}\n'b'".upper().replace("EXCEPTIONGROUP", "ExceptionGroup"),
    )
    for _ in range(MAX_DEPTH + 1):
        group = ExceptionGroup("deeper", [group])
    with pytest.raises(StructureTooLargeError):
        paths(group)


def test_what_an_exception_says_is_found_and_rewritten() -> None:
    error = ConnectionError("no answer from a")
    error.add_note("asked twice")
    assert paths({"e": error}) == [("args[key]", "e"), ("args.e", "no answer from a\nasked twice")]
    new = rewrite(error, Upper())
    assert (type(new), str(new)) == (ConnectionError, "NO ANSWER FROM A\nASKED TWICE")
    assert str(error) == "no answer from a"
    assert repr(rewrite(KeyError("a"), Upper())) == repr(RuntimeError("KeyError: 'A'")), "it would quote its text anew"
    same = ValueError("SAME")
    assert rewrite(same, Upper()) is same


def test_text_in_views_of_bytes_and_queues_is_found_and_rewritten() -> None:
    value = {"view": memoryview(b"a"), "odd": memoryview(b"\xff"), "queue": deque(["b", "C"], maxlen=2)}
    assert [text for path, text in paths(value) if "[key]" not in path] == ["a", "b", "C"]
    new = rewrite(value, Upper())
    assert (bytes(new["view"]), new["odd"], new["queue"]) == (b"A", value["odd"], deque(["B", "C"], maxlen=2))
    assert new["queue"].maxlen == 2


def test_a_path_shows_only_the_beginning_of_a_long_key() -> None:
    (_, leaf) = leaves({"k" * 500: "v"}, "args")
    assert leaf.path == "args." + "k" * 64


def test_a_structure_that_contains_itself_is_refused_rather_than_walked_for_ever() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(StructureTooLargeError, match="nested deeper than 100 levels or contains itself"):
        list(leaves(loop, "x"))
    with pytest.raises(StructureTooLargeError, match="nested deeper than 100 levels or contains itself"):
        rewrite(loop, Upper())


def test_what_is_referred_to_again_and_again_counts_each_time() -> None:
    value: Any = "x"
    for _ in range(40):
        value = [value, value]
    with pytest.raises(StructureTooLargeError, match="more than 1000000 values"):
        rewrite(value, Upper())
    with pytest.raises(StructureTooLargeError, match="more than 1000000 values"):
        for _ in leaves(value, "x"):
            pass


def test_the_greatest_depth_is_walked() -> None:
    value: Any = "x"
    for _ in range(MAX_DEPTH):
        value = [value]
    assert len(list(leaves(value, "x"))) == 1
    assert rewrite(value, Upper()) != value


def test_rewriting_reaches_every_kind_of_container() -> None:
    value = {
        "list": ["a", {"b": ("c", 1)}],
        "set": frozenset({"d"}),
        "pair": Pair("e", "F"),
        "bytes": b"g",
        "record": Record("h"),
        "space": SimpleNamespace(i="j"),
        "part": Part(text="k", parts=[Part(text="l")], extra={"m": "n"}),
    }
    assert rewrite(value, Upper()) == {
        "list": ["A", {"b": ("C", 2)}],
        "set": frozenset({"D"}),
        "pair": Pair("E", "F"),
        "bytes": b"G",
        "record": Record("H", 2),
        "space": SimpleNamespace(i="J"),
        "part": Part(text="K", parts=[Part(text="L")], extra={"m": "N"}),
    }


def test_rewriting_tells_the_change_under_which_key_a_value_stands() -> None:
    assert rewrite({"keep": ["a", 1], "x": "a"}, Upper()) == {"keep": ["a", 1], "x": "A"}


def test_keys_are_rewritten_on_request_and_stay_apart() -> None:
    value = {"a": 0.5, "A": 1.5, "b": Part(text="X", extra_key="Y")}
    assert rewrite(value, Upper()) is value
    changed = rewrite(value, Upper(), keys=True)
    assert list(changed) == ["A#2", "A", "B"]
    assert changed["B"].model_extra == {"EXTRA_KEY": "Y"}


@settings(max_examples=60)
@given(value=NESTED)
def test_what_needs_no_change_comes_back_as_the_same_object(value: Any) -> None:
    once = rewrite(value, Upper(), keys=True)
    assert rewrite(once, Upper(), keys=True) is once


@settings(max_examples=60)
@given(value=NESTED)
def test_rewriting_leaves_its_input_alone(value: Any) -> None:
    before = repr(value)
    rewrite(value, Upper(), keys=True)
    assert repr(value) == before
