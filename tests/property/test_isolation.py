"""Isolation: whatever a plugin does to what it was handed, it does to a plain copy of its own; the host's stays.

Random programs of edits run twice, on a plugin's view and on a plain deep copy, side by side.
"""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import orjson
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from support import manager_of, plugin

from cpex.framework.hooks.policies import HookPayloadPolicy
from cpex.framework.hooks.tools import ToolPostInvokePayload
from cpex.framework.memory import copy_tree, graft, wrap_payload_for_isolation
from cpex.framework.models.context import GlobalContext, PluginContext
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult
from cpex.framework.utils import StructuredData

MODES = ("sequential", "transform", "audit", "concurrent", "fire_and_forget")
POLICIES = {"tool_post_invoke": HookPayloadPolicy(frozenset({"result"}))}

keys = st.sampled_from(["a", "b", "c", "d"])
scalars = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["", "x", "ß"]) | st.just(1.5)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=12
)
roots = st.dictionaries(keys, trees, min_size=1, max_size=4)

# An edit names a place by numbers, each of which picks a child, and what to do there.
Edit = tuple[list[int], str, Any, Any]
WHAT = {
    "set": lambda at, key, value: at.__setitem__(key, value),
    "del": lambda at, key, value: at.__delitem__(key),
    "pop": lambda at, key, value: at.pop(key),
    "clear": lambda at, key, value: at.clear(),
    "append": lambda at, key, value: at.append(value),
    "insert": lambda at, key, value: at.insert(0, value),
    "extend": lambda at, key, value: at.extend([value, value]),
    "sort": lambda at, key, value: at.sort(key=repr),
    "reverse": lambda at, key, value: at.reverse(),
    "imul": lambda at, key, value: at.__imul__(2),
    "slice": lambda at, key, value: at.__setitem__(slice(0, 1), [value]),
    "update": lambda at, key, value: at.update({key: value, "z": value}),
    "setdefault": lambda at, key, value: at.setdefault(key, value),
    "popitem": lambda at, key, value: at.popitem(),
    "ior": lambda at, key, value: at.__ior__({key: value}),
    "or": lambda at, key, value: at | {key: value},
    "double_star": lambda at, key, value: {**at, "z": 1},
    "equals": lambda at, key, value: at == value,
    "get": lambda at, key, value: at[key],
    "copy": lambda at, key, value: at.copy(),
    "alias": lambda at, key, value: at.__setitem__("self" if isinstance(at, dict) else 0, next(iter(children(at)))),
    "json": lambda at, key, value: json.dumps(at),
    "orjson": lambda at, key, value: orjson.dumps(at),
    "yaml": lambda at, key, value: yaml.safe_dump(at),
    "pickle": lambda at, key, value: pickle.loads(pickle.dumps(at)),
    "deepcopy": lambda at, key, value: copy.deepcopy(at),
    "type": lambda at, key, value: type(at).__name__,
    "len": lambda at, key, value: len(at),
    "iterate": lambda at, key, value: list(at),
}
edits: st.SearchStrategy[Edit] = st.tuples(
    st.lists(st.integers(0, 3), max_size=4), st.sampled_from(sorted(WHAT)), keys | st.integers(-2, 2), trees
)
programs = st.lists(edits, max_size=8)
# What two places share within one plugin's hands, they no longer share in the next plugin's.
programs_without_sharing = st.lists(
    edits.filter(
        lambda edit: (
            edit[1] not in ("alias", "extend", "imul")
            # It writes its value in two places.
            and not (edit[1] == "update" and isinstance(edit[3], dict | list))
        )
    ),
    max_size=8,
)


def children(at: Any) -> list[Any]:
    """The containers inside a container."""
    inside = list(at.values()) if isinstance(at, dict) else at
    return [each for each in inside if isinstance(each, dict | list)]


def place(root: Any, path: list[int]) -> Any:
    """Follow the numbers as far as there are containers."""
    at = root
    for step in path:
        inside = children(at)
        if not inside:
            break
        at = inside[step % len(inside)]
    return at


def run(program: list[Edit], root: Any) -> list[Any]:
    """Run a program; what it observed, errors by their type."""
    observed: list[Any] = []
    for path, what, key, value in program:
        try:
            seen = WHAT[what](place(root, path), key, copy.deepcopy(value))
        # The container of the wrong kind, the missing key: plain ones answer in the same way.
        except Exception as error:
            seen = type(error)
        observed.append(repr(seen))
    return observed


class Loose(PluginPayload):
    """A payload whose dictionary may come to hold anything."""

    args: dict[Any, Any]


class Other(BaseModel):
    """A model of the plugin's own."""

    args: dict[Any, Any]


def post(result: Any) -> ToolPostInvokePayload:
    return ToolPostInvokePayload(name="t", result=result)


@settings(deadline=None)
@given(roots, programs)
def test_a_view_behaves_like_a_plain_copy_and_the_original_stays(root: Any, program: list[Edit]) -> None:
    host, plain = post(root), copy.deepcopy(root)
    before = copy.deepcopy(root)
    view = wrap_payload_for_isolation(host)
    assert run(program, view.result) == run(program, plain)
    assert repr(view.result) == repr(plain)
    assert repr(root) == repr(before)


def canonical(value: Any) -> Any:
    """Type and content at every depth, the order of keys aside."""
    if isinstance(value, dict):
        return "dict", sorted((repr(key), repr(canonical(item))) for key, item in value.items())
    if isinstance(value, list):
        return "list", [canonical(item) for item in value]
    return type(value).__name__, repr(value)


def spoil(value: Any) -> None:
    """Edit every container inside."""
    for child in children(value):
        spoil(child)
    value.clear()


@settings(deadline=None)
@given(roots, programs)
def test_grafting_takes_over_exactly_what_was_done_and_nothing_of_the_editor_s(root: Any, program: list[Edit]) -> None:
    edited, before = copy_tree(root), canonical(root)
    run(program, edited)
    expected = canonical(edited)
    result = graft(root, edited)
    assert canonical(result) == expected
    assert (result is root) == (expected == before)
    spoil(edited)
    assert canonical(result) == expected
    assert canonical(root) == before


@settings(deadline=None)
@given(roots, programs, programs)
def test_an_edit_after_revalidation_does_not_reach_the_host(root: Any, first: list[Edit], second: list[Edit]) -> None:
    host, before = Loose(args=root), canonical(root)
    view = wrap_payload_for_isolation(host)
    run(first, view.args)
    for remade in (Loose(args=view.args), Loose.model_validate(view), Other.model_validate({"args": view.args})):
        run(second, remade.args)
        assert canonical(host.args) == before
        assert canonical(root) == before


@settings(deadline=None)
@given(roots, programs)
def test_extras_of_structured_data_are_isolated_like_fields(root: Any, program: list[Edit]) -> None:
    data = StructuredData.model_validate({"first": root, "items": [root]})
    before = canonical(data.model_dump())
    view = wrap_payload_for_isolation(post(data))
    run(program, view.result.first)
    run(program, view.result.items)
    assert canonical(data.model_dump()) == before


# The same inside a call.


def handler_of(program: list[Edit], *, returns: bool, sees: list[Any], suspends: bool = False) -> Callable[..., Any]:
    """A plugin that runs a program on its payload, its state and the shared state."""

    async def handler(payload: Any, context: PluginContext) -> PluginResult[Any]:
        sees.append(canonical(payload.result))
        if suspends:
            await asyncio.sleep(0)
        run(program, payload.result)
        run(program, context.global_context.state)
        run(program, context.global_context.user)
        run(program, context.state)
        return PluginResult(modified_payload=payload if returns else None)

    return handler


async def called(handlers: list[Callable[..., Any]], mode: str, host: Any, context: Any, **options: Any) -> Any:
    """The result of one call, background included."""
    plugins = [
        plugin(handler, f"p{number}", hooks=["tool_post_invoke"], mode=mode) for number, handler in enumerate(handlers)
    ]
    manager = manager_of(*plugins, **options)
    result, _ = await manager.invoke_hook("tool_post_invoke", host, context)
    await result.wait_for_background_tasks()
    return result


@pytest.mark.parametrize("mode", MODES)
@settings(max_examples=25, deadline=None)
@given(
    root=roots,
    program=programs_without_sharing,
    returns=st.booleans(),
    suspends=st.booleans(),
    restricted=st.booleans(),
)
def test_in_every_mode_with_and_without_a_policy_the_host_s_objects_stay(
    mode: str, root: Any, program: list[Edit], returns: bool, suspends: bool, restricted: bool
) -> None:
    before, seen = canonical(root), []
    host = post(copy.deepcopy(root))
    context = GlobalContext(request_id="r", state=copy.deepcopy(root), user=copy.deepcopy(root))
    handlers = [handler_of(program, returns=returns, sees=seen, suspends=suspends) for _ in range(3)]
    options = {"hook_policies": POLICIES} if restricted else {}
    result = asyncio.run(called(handlers, mode, host, context, **options))

    plain, plain_state, expected_views = copy.deepcopy(root), copy.deepcopy(root), []
    for _ in handlers:
        expected_views.append(canonical(plain))
        if returns and mode in ("sequential", "transform"):
            run(program, plain)
        run(program, plain_state)
    assert seen == expected_views
    assert canonical(host.result) == before
    assert canonical(context.user) == before
    if mode in ("audit", "fire_and_forget"):
        assert canonical(context.state) == before
    elif mode != "concurrent":
        assert canonical(context.state) == canonical(plain_state)
    changed = canonical(plain) != before
    if changed:
        assert canonical(result.modified_payload.result) == canonical(plain)
    elif not returns or mode not in ("sequential", "transform"):
        assert result.modified_payload is None


@settings(max_examples=50, deadline=None)
@given(root=roots, program=programs, later=programs)
def test_what_a_plugin_keeps_and_edits_after_its_call_reaches_nobody(
    root: Any, program: list[Edit], later: list[Edit]
) -> None:
    kept: list[Any] = []

    async def keeps(payload: Any, context: PluginContext) -> PluginResult[Any]:
        kept.extend([payload.result, context.global_context.state])
        run(program, payload.result)
        run(program, context.global_context.state)
        return PluginResult(modified_payload=payload)

    seen: list[Any] = []

    async def edits_what_was_kept(payload: Any, context: PluginContext) -> PluginResult[Any]:
        for each in kept:
            run(later, each)
        seen.append((canonical(payload.result), canonical(context.global_context.state)))
        return PluginResult()

    host, context = post(copy.deepcopy(root)), GlobalContext(request_id="r", state=copy.deepcopy(root))
    result = asyncio.run(called([keeps, edits_what_was_kept], "sequential", host, context))
    for each in kept:
        run(later, each)
        spoil(each)
    plain = copy.deepcopy(root)
    run(program, plain)
    assert seen == [(canonical(plain), canonical(plain))]
    assert canonical(context.state) == canonical(plain)
    assert canonical(host.result) == canonical(root)
    if result.modified_payload is not None:
        assert canonical(result.modified_payload.result) == canonical(plain)


@settings(max_examples=50, deadline=None)
@given(root=roots, program=programs)
def test_what_the_host_does_to_its_objects_during_a_call_is_not_mixed_into_a_view_that_is_kept(
    root: Any, program: list[Edit]
) -> None:
    kept: list[Any] = []

    async def keeps(payload: Any, context: Any) -> PluginResult[Any]:
        kept.append(payload)
        return PluginResult()

    host = post(copy.deepcopy(root))
    asyncio.run(called([keeps], "sequential", host, GlobalContext(request_id="r")))
    run(program, host.result)
    assert canonical(kept[0].result) == canonical(root)
