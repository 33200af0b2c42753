"""Private copies, and taking a changed copy back."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import datetime
import enum
import functools
import logging
import threading
import types
import weakref
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, PrivateAttr, RootModel, SecretStr

from cpex.framework.memory import _safe_deepcopy, _wrap_value
from cpex.framework.memory.containers import CopyOnWriteDict, CopyOnWriteList
from cpex.framework.memory.grafting import graft
from cpex.framework.models import copying
from cpex.framework.models.copying import copy_tree
from cpex.framework.models.payload import PluginPayload


class Colour(enum.Enum):
    RED = "red"


class Inner(BaseModel):
    items: list[int] = []


class Outer(BaseModel):
    model_config = ConfigDict(extra="allow", arbitrary_types_allowed=True)
    inner: Inner = Inner()
    anything: Any = None
    _private: list[int] = PrivateAttr(default_factory=list)


class Root(RootModel[dict[str, list[int]]]):
    pass


class Frozen(PluginPayload):
    args: dict[str, Any] = {}


@dataclasses.dataclass
class Point:
    at: list[int]


class Pair(collections.namedtuple("Pair", "a b")):  # the shape that authors write
    pass


class Plain:
    def __init__(self) -> None:
        self.items = [1]


IMMUTABLE = [
    None,
    True,
    1,
    1.5,
    "text",
    b"bytes",
    Colour.RED,
    ...,
    datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC),
    SecretStr("s"),
    ValueError("v"),
    int,
    (1, "a", (2,)),
    frozenset({1}),
    range(3),
]


@pytest.mark.parametrize("value", IMMUTABLE, ids=lambda value: type(value).__name__)
def test_what_nobody_can_change_is_shared(value: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert copy_tree(value) is value
    assert copy_tree([value])[0] is value
    assert caplog.text == ""


MUTABLE = {
    "dict": {"a": {"b": [1]}},
    "list": [[1], {"a": [2]}],
    "tuple": ([1], {"a": 1}),
    "set": {1, 2},
    "frozenset_of_tuples": frozenset({(1, 2)}),
    "bytearray": bytearray(b"ab"),
    "deque": collections.deque([[1]]),
    "ordered": collections.OrderedDict(a=[1]),
    "default": collections.defaultdict(list, a=[1]),
    "counter": collections.Counter("aab"),
    "dataclass": Point(at=[1]),
    "namedtuple": Pair([1], 2),
    "namespace": types.SimpleNamespace(a=[1]),
    "array": memoryview(bytearray(b"ab")).tolist(),
    "model": Outer(inner=Inner(items=[1]), anything={"a": [1]}, more={"b": [2]}),
    "root": Root({"a": [1]}),
    "frozen": Frozen(args={"a": [1]}),
    "tracked_dict": CopyOnWriteDict({"a": [1]}),
    "tracked_list": CopyOnWriteList([[1]]),
}


@pytest.mark.parametrize("value", MUTABLE.values(), ids=MUTABLE)
def test_a_copy_is_equal_of_the_same_type_and_shares_no_container(value: Any) -> None:
    copied = copy_tree(value)
    assert type(copied) is type(value)
    assert copied == value
    # Immutable shells over immutable contents are the only containers that both may hold.
    assert not (containers_in(copied) & containers_in(value))


def containers_in(value: Any) -> set[int]:
    """Identities of all that could be changed inside a value."""
    found: set[int] = set()
    todo = [value]
    while todo:
        item = todo.pop()
        if id(item) in found or isinstance(item, type):
            continue
        if isinstance(item, dict | list | set | bytearray | collections.deque) or hasattr(item, "__dict__"):
            found.add(id(item))
        if isinstance(item, dict):
            todo.extend(item.values())
        elif isinstance(item, list | tuple | collections.deque):
            todo.extend(item)
        if hasattr(item, "__dict__"):
            todo.extend(vars(item).values())
            todo.extend((getattr(item, "__pydantic_extra__", None) or {}).values())
            todo.extend((getattr(item, "__pydantic_private__", None) or {}).values())
    return found


def test_a_model_s_extras_private_attributes_and_fields_set_are_kept_and_its_own() -> None:
    model = Outer(inner=Inner(items=[1]), extra=[1])
    model._private.append(1)
    copied = copy_tree(model)
    assert copied == model
    assert copied.model_fields_set == {"inner", "extra"}
    copied._private.append(2)
    copied.extra.append(2)
    copied.model_fields_set.add("x")
    assert (model._private, model.extra, model.model_fields_set) == (
        [1],
        [1],
        {"inner", "extra"},
    )


def test_a_copied_root_model_is_like_a_new_one() -> None:
    copied = copy_tree(Root({"a": [1]}))
    assert vars(copied) == {"root": {"a": [1]}}
    assert copied.model_dump() == {"a": [1]}
    assert copied == Root({"a": [1]})


def test_shared_references_stay_shared_and_cycles_stay_cycles() -> None:
    shared = [1]
    value: dict[str, Any] = {"a": shared, "b": [shared], "t": (shared,)}
    value["self"] = value
    value["list"] = [value]
    copied = copy_tree(value)
    assert copied["a"] is copied["b"][0] is copied["t"][0]
    assert copied["a"] is not shared
    assert copied["self"] is copied["list"][0] is copied
    assert copied is not value


def test_a_cycle_through_a_tuple_is_copied() -> None:
    items: list[Any] = []
    value = (items,)
    items.append(value)
    copied = copy_tree(value)
    assert copied[0][0] is copied
    assert copied[0] is not items


def test_a_cycle_through_models_and_objects_is_copied() -> None:
    model, plain = Outer(), Plain()
    model.anything = {"back": model}
    plain.items.append(plain)
    copied_model, copied_plain = copy_tree(model), copy_tree([plain])[0]
    assert copied_model.anything["back"] is copied_model
    assert copied_plain.items[1] is copied_plain
    assert copied_plain is not plain


def test_nesting_may_be_deeper_than_the_stack() -> None:
    value: Any = []
    for _ in range(50_000):
        value = [value]
    copied = copy_tree(value)
    depth = 0
    while copied:
        copied, depth = copied[0], depth + 1
    assert depth == 50_000


UNCOPYABLE = {
    "lock": threading.Lock,
    "generator": lambda: (n for n in ()),
    "function": lambda: lambda: None,
    "module": lambda: types.ModuleType("m"),
    "loop_future": lambda: asyncio.new_event_loop,
}


@pytest.mark.parametrize("make", UNCOPYABLE.values(), ids=UNCOPYABLE)
def test_what_cannot_be_copied_is_shared_with_one_warning_per_type(
    make: Any, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # It warns once in a process, and another test may have been first.
    monkeypatch.setattr(copying, "_warned", set())
    first, second = make(), make()
    with caplog.at_level(logging.WARNING):
        copied = copy_tree({"first": first, "list": [second], "own": {"x": [1]}})
        copy_tree([first])
    assert copied["first"] is first
    assert copied["list"][0] is second
    assert caplog.text.count("Cannot deep-copy") == 1
    assert "sharing reference" in caplog.text


def test_what_surrounds_an_uncopyable_value_is_copied_all_the_same() -> None:
    lock = threading.Lock()
    values: dict[str, Any] = {
        "dict": {"lock": lock, "items": [1]},
        "tuple": (lock, [1]),
        "ordered": collections.OrderedDict(lock=lock, items=[1]),
        "default": collections.defaultdict(list, lock=lock, items=[1]),
        "deque": collections.deque([lock, [1]]),
        "model": Outer(anything=lock, items=[1]),
        "namedtuple": Pair(lock, [1]),
        "dataclass": Point(at=[lock, [1]]),
    }
    copied = copy_tree(values)
    assert copied["dict"]["lock"] is copied["tuple"][0] is copied["ordered"]["lock"] is lock
    copied["dict"]["items"].append(2)
    copied["tuple"][1].append(2)
    copied["ordered"]["items"].append(2)
    copied["default"]["items"].append(2)
    copied["deque"][1].append(2)
    copied["model"].items.append(2)
    copied["namedtuple"].b.append(2)
    copied["dataclass"].at[1].append(2)
    assert copied["default"]["missing"] == []
    assert values["dict"]["items"] == values["tuple"][1] == values["ordered"]["items"] == [1]
    assert values["default"]["items"] == values["deque"][1] == values["model"].items == [1]
    assert values["namedtuple"].b == values["dataclass"].at[1] == [1]
    assert "missing" not in values["default"]


def test_a_model_whose_own_copying_fails_is_shared() -> None:
    class Stubborn(BaseModel):
        def __deepcopy__(self, memo: Any = None) -> Any:
            raise TypeError("no")

    value = Stubborn()
    assert copy_tree({"m": value})["m"] is value


def test_a_model_s_own_way_of_copying_is_respected() -> None:
    class Counted(BaseModel):
        copies: int = 0

        def __deepcopy__(self, memo: Any = None) -> Any:
            return Counted(copies=self.copies + 1)

    assert copy_tree([Counted()])[0].copies == 1


def test_weak_references_are_shared_quietly(caplog: pytest.LogCaptureFixture) -> None:
    target = Plain()
    value = [weakref.ref(target), weakref.proxy(target)]
    copied = copy_tree(value)
    assert copied[0] is value[0]
    assert copied[1] is value[1]
    assert caplog.text == ""


def test_the_helpers_of_the_public_module_wrap_and_copy() -> None:
    assert type(_wrap_value({"a": 1})) is CopyOnWriteDict
    assert type(_wrap_value([1])) is CopyOnWriteList
    held = {1}
    assert _wrap_value(held) == held
    assert _wrap_value(held) is not held
    nested = {"a": [1]}
    assert _safe_deepcopy(nested)["a"] is not nested["a"]


# Grafting.


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (ValueError("old"), ValueError("new")),
        (OSError(2, "old"), OSError(2, "new")),
        (functools.partial(print, "old"), functools.partial(print, "new")),
        (lambda: "old", lambda: "new"),
    ],
)
def test_a_change_that_no_attribute_shows_is_taken_over(old: Any, new: Any) -> None:
    grafted = graft({"value": old}, {"value": new})["value"]
    assert grafted is not old
    assert str(grafted) == str(new)


def test_an_exception_that_says_the_same_is_the_same() -> None:
    old, new = ValueError("same", 1), ValueError("same", 1)
    value = {"value": old}
    assert graft(value, {"value": new}) is value
    new.add_note("but for this")
    assert graft(value, {"value": new})["value"].__notes__ == ["but for this"]


@pytest.mark.parametrize("value", [*MUTABLE.values(), *IMMUTABLE], ids=lambda value: type(value).__name__)
def test_an_untouched_copy_grafts_to_the_original_itself(value: Any) -> None:
    assert graft(value, copy_tree(value)) is value
    nested = {"a": [value]}
    assert graft(nested, copy_tree(nested)) is nested


def test_a_change_keeps_the_unchanged_parts_and_shares_nothing_with_the_changed_copy() -> None:
    old = {"big": {"x": [1, 2]}, "list": [{"a": 1}, {"b": 2}], "gone": 1}
    new = copy_tree(old)
    new["list"][1]["b"] = added = [3]
    del new["gone"]
    new["new"] = added
    result = graft(old, new)
    assert result == {"big": {"x": [1, 2]}, "list": [{"a": 1}, {"b": [3]}], "new": [3]}
    assert result["big"] is old["big"]
    assert result["list"][0] is old["list"][0]
    added.append(4)
    assert result["new"] == [3]
    assert old == {"big": {"x": [1, 2]}, "list": [{"a": 1}, {"b": 2}], "gone": 1}


@pytest.mark.parametrize(
    ("old", "new"),
    [(1, True), (1, 1.0), (0, False), ((1,), [1]), ({"a": 1}, {"a": True}), ([1], [1.0]), ((1,), (True,)), ("1", b"1")],
    ids=repr,
)
def test_equal_values_of_different_types_are_a_change(old: Any, new: Any) -> None:
    result = graft(old, new)
    assert result == new
    assert repr(result) == repr(new)


def test_the_order_of_keys_is_no_change() -> None:
    old = {"a": 1, "b": 2}
    assert graft(old, {"b": 2, "a": 1}) is old


def test_changes_inside_models_are_taken_over() -> None:
    old = Outer(inner=Inner(items=[1]), anything=[1], extra={"a": 1})
    new = copy_tree(old)
    new.inner.items.append(2)
    new.extra["a"] = 2
    new._private.append(3)
    result = graft(old, new)
    assert (result.inner.items, result.extra, result._private) == ([1, 2], {"a": 2}, [3])
    assert result.anything is old.anything
    new.inner.items.append(9)
    assert (result.inner.items, old.inner.items, old.extra) == ([1, 2], [1], {"a": 1})


def test_changes_inside_foreign_objects_are_taken_over() -> None:
    for value in (Point(at=[1]), Plain(), types.SimpleNamespace(at=[1])):
        old = {"o": value}
        new = copy_tree(old)
        next(iter(vars(new["o"]).values())).append(2)
        result = graft(old, new)
        assert result is not old
        assert list(vars(result["o"]).values()) == [[1, 2]]
        assert list(vars(value).values()) == [[1]]


def test_a_cyclic_or_very_deep_change_is_copied() -> None:
    old: dict[str, Any] = {"a": 1}
    new = copy_tree(old)
    new["self"] = new
    result = graft(old, new)
    assert result["self"]["self"] is not new
    assert result["self"]["a"] == 1
    deep: Any = []
    for _ in range(50_000):
        deep = [deep]
    assert graft([], deep) is not deep


def test_an_object_that_cannot_compare_counts_as_changed() -> None:
    class Odd:
        def __init__(self) -> None:
            self.items = [1]

        def __eq__(self, other: object) -> bool:
            raise ValueError("cannot tell")

        __hash__ = None

    old = {"o": Odd()}
    assert graft(old, copy_tree(old)) is not old


def repeating(levels: int) -> dict[str, Any]:
    """A structure of few objects with more paths through it than could be walked."""
    value: dict[str, Any] = {"text": "lol"}
    for _ in range(levels):
        value = {"left": value, "right": [value, value], "both": (value, value)}
    return value


def test_structure_that_repeats_itself_is_copied_and_grafted_by_its_objects_and_not_by_its_paths() -> None:
    old = repeating(200)
    new = copy_tree(old)
    assert graft(old, new) is old
    inner = new
    while "left" in inner:
        inner = inner["left"]
    inner["text"] = "changed"
    result = graft(old, new)
    while "left" in result:
        assert result["left"] is result["right"][0]
        result = result["left"]
    assert result == {"text": "changed"}
