"""Containers that leave their original alone and tell what was done to them."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import orjson
import pytest
from pydantic import TypeAdapter

from cpex.framework.memory import CopyOnWriteDict, CopyOnWriteList, copyonwrite

START = {"a": 1, "b": [2], "c": {"d": 3}}


def test_it_starts_as_a_snapshot_of_its_original() -> None:
    original = dict(START)
    tracked = CopyOnWriteDict(original)
    original["later"] = 1
    tracked["own"] = 1
    assert tracked == {**START, "own": 1}
    assert "own" not in original
    with pytest.raises(TypeError):
        CopyOnWriteDict()


WRITES: dict[str, tuple[Callable[[Any], Any], dict[str, Any], set[str]]] = {
    "set": (lambda d: d.__setitem__("a", 9), {"a": 9}, set()),
    "set_equal": (lambda d: d.__setitem__("a", 1), {"a": 1}, set()),
    "set_new": (lambda d: d.__setitem__("z", 9), {"z": 9}, set()),
    "del": (lambda d: d.__delitem__("a"), {}, {"a"}),
    "del_and_set": (lambda d: (d.__delitem__("a"), d.__setitem__("a", 5)), {"a": 5}, set()),
    "set_and_del": (lambda d: (d.__setitem__("a", 5), d.__delitem__("a")), {}, {"a"}),
    "pop": (lambda d: d.pop("a"), {}, {"a"}),
    "pop_default": (lambda d: d.pop("z", 5), {}, set()),
    "popitem": (lambda d: d.popitem(), {}, {"c"}),
    "clear": (lambda d: d.clear(), {}, {"a", "b", "c"}),
    "update": (lambda d: d.update({"a": 9}, z=8), {"a": 9, "z": 8}, set()),
    "update_pairs": (lambda d: d.update([("a", 9)]), {"a": 9}, set()),
    "update_mapping": (lambda d: d.update(MappingProxyType({"a": 9})), {"a": 9}, set()),
    "update_nothing": (lambda d: d.update(), {}, set()),
    "setdefault_there": (lambda d: d.setdefault("a", 9), {}, set()),
    "setdefault_new": (lambda d: d.setdefault("z", 9), {"z": 9}, set()),
    "ior": (lambda d: d.__ior__({"a": 9}), {"a": 9}, set()),
}


@pytest.mark.parametrize(("write", "written", "deleted"), WRITES.values(), ids=WRITES)
def test_every_write_does_what_it_does_to_a_dictionary_and_is_tracked(
    write: Callable[[Any], Any], written: dict[str, Any], deleted: set[str]
) -> None:
    original, plain = copy.deepcopy(START), copy.deepcopy(START)
    tracked = CopyOnWriteDict(original)
    assert write(tracked) == write(plain)
    assert tracked == plain
    assert list(tracked) == list(plain)
    assert original == START
    assert (tracked.get_modifications(), tracked.get_deleted()) == (written, deleted)
    assert tracked.has_modifications() is bool(written or deleted)


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (lambda d: d.pop("z"), KeyError),
        (lambda d: d.pop("z", 1, 2), TypeError),
        (lambda d: d.__delitem__("z"), KeyError),
        (lambda d: (d.clear(), d.popitem()), KeyError),
        (lambda d: d.update(3), TypeError),
        (lambda d: hash(d), TypeError),
    ],
)
def test_what_a_dictionary_refuses_is_refused(write: Callable[[Any], Any], error: type[Exception]) -> None:
    for target in (CopyOnWriteDict(START), dict(START)):
        with pytest.raises(error):
            write(target)


READS: dict[str, Callable[[Any], Any]] = {
    "json": json.dumps,
    "orjson": lambda d: orjson.dumps(d),
    "double_star": lambda d: {**d},
    "dict": dict,
    "adapter": lambda d: TypeAdapter(dict[str, Any]).dump_python(d),
    "validate": lambda d: TypeAdapter(dict[str, Any]).validate_python(d),
    "or": lambda d: d | {"z": 1},
    "ror": lambda d: {"z": 1} | d,
    "copy": lambda d: d.copy(),
    "pickle": lambda d: pickle.loads(pickle.dumps(d)),
    "copy.copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "equals_mapping": lambda d: d == MappingProxyType(START),
    "unequal": lambda d: d != {"a": 1},
    "equals_no_mapping": lambda d: d == 3,
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_every_reader_sees_the_true_contents(read: Callable[[Any], Any]) -> None:
    assert read(CopyOnWriteDict(START)) == read(dict(START))


def test_plain_copies_are_plain_and_tracked_copies_keep_their_tracking() -> None:
    tracked = CopyOnWriteDict(START)
    tracked["z"] = 1
    del tracked["a"]
    assert type(tracked.copy()) is type(tracked | {}) is type({} | tracked) is dict
    for copied in (copy.copy(tracked), copy.deepcopy(tracked), pickle.loads(pickle.dumps(tracked))):
        assert type(copied) is CopyOnWriteDict
        assert copied == tracked
        assert (copied.get_modifications(), copied.get_deleted()) == ({"z": 1}, {"a"})
    assert type(CopyOnWriteDict.fromkeys(["a"], 1)) is CopyOnWriteDict
    assert repr(CopyOnWriteDict({"a": 1})) == "CopyOnWriteDict({'a': 1})"


LIST_WRITES: dict[str, Callable[[Any], Any]] = {
    "append": lambda items: items.append(9),
    "extend": lambda items: items.extend([8, 9]),
    "insert": lambda items: items.insert(0, 9),
    "pop": lambda items: items.pop(),
    "remove": lambda items: items.remove(3),
    "clear": lambda items: items.clear(),
    "sort": lambda items: items.sort(),
    "reverse": lambda items: items.reverse(),
    "setitem": lambda items: items.__setitem__(0, 9),
    "set_slice": lambda items: items.__setitem__(slice(0, 2), [9]),
    "delitem": lambda items: items.__delitem__(0),
    "iadd": lambda items: items.__iadd__([9]),
    "imul": lambda items: items.__imul__(2),
}


@pytest.mark.parametrize("write", LIST_WRITES.values(), ids=LIST_WRITES)
def test_every_write_does_what_it_does_to_a_list_and_is_noticed(write: Callable[[Any], Any]) -> None:
    original, plain = [3, 1, 2], [3, 1, 2]
    tracked = CopyOnWriteList(original)
    assert not tracked.has_modifications()
    assert write(tracked) == write(plain)
    assert tracked == plain
    assert original == [3, 1, 2]
    assert tracked.has_modifications()


def test_a_write_that_fails_is_noticed_as_well() -> None:
    tracked = CopyOnWriteList([1])
    with pytest.raises(ValueError):
        tracked.remove(9)
    assert tracked.has_modifications()


def test_a_tracked_list_reads_and_copies_like_a_list() -> None:
    tracked = CopyOnWriteList([1, 2])
    assert tracked == [1, 2]
    assert tracked != (1, 2)
    more = [3]
    assert type(tracked.copy()) is type(tracked[:]) is type(tracked + more) is type(tracked * 1) is list
    assert repr(tracked) == "CopyOnWriteList([1, 2])"
    assert json.dumps(tracked) == orjson.dumps(tracked).decode().replace(",", ", ") == "[1, 2]"
    with pytest.raises(TypeError):
        hash(tracked)
    tracked.append(3)
    for copied in (copy.copy(tracked), copy.deepcopy(tracked), pickle.loads(pickle.dumps(tracked))):
        assert type(copied) is CopyOnWriteList
        assert copied == [1, 2, 3]
        assert copied.has_modifications()


def test_a_wrapper_is_picked_by_type() -> None:
    assert type(copyonwrite({})) is CopyOnWriteDict
    assert type(copyonwrite([])) is CopyOnWriteList
    with pytest.raises(TypeError) as caught:
        copyonwrite((1,))
    assert str(caught.value) == "No copy-on-write wrapper available for tuple; known: dict, list"
