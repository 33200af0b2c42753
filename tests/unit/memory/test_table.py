"""The table of contexts is a dictionary for whoever reads it, however much of it is made yet."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import TypeAdapter
from support import allow, call, manager_of, plugin

from cpex.framework.memory.table import ContextTable
from cpex.framework.memory.views import ContextSource
from cpex.framework.models.context import GlobalContext, PluginContext

HOST = GlobalContext(request_id="r", state={"k": 1})
KEYS = ["ra", "rb", "rc"]


def half_made() -> ContextTable:
    """A table with one context that is there and two that are only noted."""
    table = ContextTable("r", ContextSource(HOST))
    dict.__setitem__(table, "ra", ContextSource(HOST).fresh())
    table.owed.extend(["b", "c"])
    return table


READERS: dict[str, Callable[[Any], Any]] = {
    "len": len,
    "bool": bool,
    "list": list,
    "sorted": sorted,
    "set": set,
    "reversed": lambda table: list(reversed(table)),
    "in": lambda table: ["rb" in table, "rx" in table],
    "keys": lambda table: list(table.keys()),
    "key_sets": lambda table: table.keys() & {"rb", "rx"},
    "values": lambda table: len(list(table.values())),
    "items": lambda table: [key for key, _ in table.items()],
    "dict": lambda table: list(dict(table)),
    "double_star": lambda table: sorted({**table}),
    "call": lambda table: sorted((lambda **given: given)(**table)),
    "or": lambda table: list(table | {"x": 1}),
    "reverse_or": lambda table: list({"x": 1} | table),
    "update_another": lambda table: sorted([other := {}, other.update(table)] and other),
    "comprehension": lambda table: [key[1:] for key in table],
    "copy": lambda table: list(table.copy()),
    "copy.copy": lambda table: list(copy.copy(table)),
    "deepcopy": lambda table: list(copy.deepcopy(table)),
    "pickle": lambda table: list(pickle.loads(pickle.dumps(table))),
    "get": lambda table: type(table.get("rb")),
    "get_missing": lambda table: table.get("rx"),
    "getitem": lambda table: type(table["rc"]),
    "pop": lambda table: (type(table.pop("rb")), list(table)),
    "popitem": lambda table: (table.popitem()[0], list(table)),
    "setdefault": lambda table: (type(table.setdefault("rb", 1)), list(table)),
    "del": lambda table: (table.__delitem__("rb"), list(table)),
    "clear": lambda table: (table.clear(), list(table)),
    "update": lambda table: (table.update({"rx": 1}), list(table)),
    "ior": lambda table: (table.__ior__({"rx": 1}) is table, list(table)),
    "setitem": lambda table: (table.__setitem__("rx", 1), list(table)),
    "unpack": lambda table: [*table],
    "json_keys": lambda table: json.dumps(dict.fromkeys(table)),
    "match": lambda table: [key for key in KEYS if key in table],
    "isinstance": lambda table: isinstance(table, dict),
    "repr": lambda table: repr(table).count("PluginContext("),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_every_reader_and_writer_meets_what_a_dictionary_would_show(read: Callable[[Any], Any]) -> None:
    plain = {key: PluginContext(global_context=HOST) for key in KEYS}
    assert read(half_made()) == read(plain)


def test_it_equals_a_dictionary_of_the_same_contents_in_both_directions() -> None:
    table = half_made()
    plain = dict(half_made())
    assert table == plain
    assert plain == table
    assert (table != plain) is False
    assert table != {"ra": 1}
    assert table != 3


def test_pydantic_takes_all_of_it() -> None:
    validated = TypeAdapter(dict[str, PluginContext]).validate_python(dict(half_made()))
    assert sorted(validated) == KEYS


def test_a_context_that_is_made_late_is_as_good_as_one_made_at_once() -> None:
    made = half_made()["rb"]
    assert made == PluginContext(global_context=HOST)
    made.global_context.state["k"] = 2
    assert HOST.state == {"k": 1}


def test_keys_keep_to_what_is_there_once_it_is_there() -> None:
    table = half_made()
    first = table["rb"]
    table.owed.append("b")
    assert table["rb"] is first
    assert len(table) == 3


async def test_a_call_returns_an_entry_for_every_plugin_that_ran_and_only_those() -> None:
    manager = manager_of(plugin(allow, "a"), plugin(allow, "b", mode="audit"), plugin(allow, "c", mode="disabled"))
    _, table = await call(manager)
    assert table is not None
    uuids = {ref.name: ref.uuid for ref in manager._registry.get_all_plugins()}
    assert sorted(table) == sorted("r" + uuids[name] for name in "ab")
    assert all(type(context) is PluginContext for context in table.values())
