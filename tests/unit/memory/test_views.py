"""What a plugin is handed: an object like the host's, through which nothing reaches the host's."""

from __future__ import annotations

import asyncio
import copy
import gc
import json
import pickle
import sys
import warnings
import weakref
from typing import Any

import orjson
import pytest
import yaml
from pydantic import BaseModel, PrivateAttr, TypeAdapter, ValidationError
from support import call, manager_of, plugin, tool_payload

from cpex.framework.hooks.http import HttpHeaderPayload
from cpex.framework.hooks.tools import ToolPostInvokePayload, ToolPreInvokePayload
from cpex.framework.memory import wrap_payload_for_isolation
from cpex.framework.memory.views import ContextSource, state_changes, view_global_context
from cpex.framework.models.context import GlobalContext, PluginContext, UserContext
from cpex.framework.models.lazy import PENDING, raw_dict
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult
from cpex.framework.utils import StructuredData

ARGS = {"n": 1, "s": "t", "d": {"l": [1, {"x": None}]}, "l": [[1], {"a": 2.5}], "t": (1, [2])}


def payload() -> ToolPreInvokePayload:
    """A payload with containers at several depths."""
    return ToolPreInvokePayload(name="t", args=copy.deepcopy(ARGS))


class Other(BaseModel):
    args: dict[str, Any]


class Holding(PluginPayload):
    inner: Other
    items: list[Other] = []
    _cache: dict[str, int] = PrivateAttr(default_factory=dict)


READERS = {
    "equality": lambda view: view == payload(),
    "equality_reversed": lambda view: payload() == view,
    "dump": lambda view: view.model_dump(),
    "dump_json": lambda view: json.loads(view.model_dump_json()),
    "adapter": lambda view: TypeAdapter(ToolPreInvokePayload).dump_python(view),
    "adapter_any": lambda view: TypeAdapter(Any).dump_python(view),
    "copy": lambda view: copy.copy(view),
    "deepcopy": lambda view: copy.deepcopy(view),
    "model_copy": lambda view: view.model_copy(),
    "model_copy_update": lambda view: view.model_copy(update={"name": "u"}),
    "model_copy_deep": lambda view: view.model_copy(deep=True),
    "pickle": lambda view: pickle.loads(pickle.dumps(view)),
    "iteration": lambda view: list(view),
    "dict": lambda view: dict(view),
    "vars": lambda view: dict(vars(view)),
    "repr": lambda view: repr(view),
    "str": lambda view: str(view),
    "fields_set": lambda view: view.model_fields_set,
    "extra": lambda view: view.model_extra,
    "validation": lambda view: ToolPreInvokePayload.model_validate(view),
    "from_attributes": lambda view: Other.model_validate(view, from_attributes=True),
    "type": lambda view: (type(view), isinstance(view, ToolPreInvokePayload)),
    "has": lambda view: (hasattr(view, "args"), hasattr(view, "nothing"), getattr(view, "nothing", 1)),
    "construct_another": lambda view: ToolPreInvokePayload(name=view.name, args=view.args),
    "json": lambda view: json.dumps(view.args),
    "orjson": lambda view: orjson.dumps(view.args),
    "yaml": lambda view: yaml.safe_dump({k: v for k, v in view.args.items() if k != "t"}),
    "plain_types": lambda view: (type(view.args), type(view.args["d"]), type(view.args["l"])),
    "double_star": lambda view: {**view.args},
    "or": lambda view: view.args | {"z": 1},
    "match": lambda view: next(iter([view])).args["d"]["l"][1],
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_every_reader_sees_what_it_would_see_of_the_original(read: Any) -> None:
    host = payload()
    assert read(wrap_payload_for_isolation(host)) == read(payload())
    assert host == payload()


@pytest.mark.parametrize("first", READERS.values(), ids=READERS)
def test_no_reader_spoils_a_view_for_the_next_one(first: Any) -> None:
    view = wrap_payload_for_isolation(payload())
    first(view)
    assert view == payload()
    assert view.model_dump() == payload().model_dump()


def test_a_view_is_frozen_like_its_original() -> None:
    view = wrap_payload_for_isolation(payload())
    with pytest.raises(ValidationError) as caught:
        view.name = "other"
    assert "frozen" in str(caught.value)


def test_a_frozen_payload_that_holds_nothing_to_edit_is_its_own_view() -> None:
    bare = ToolPreInvokePayload(name="t", args=None)
    assert wrap_payload_for_isolation(bare) is bare
    for editable in (ToolPreInvokePayload(name="t"), StructuredData(a=1), GlobalContext(request_id="r")):
        view = wrap_payload_for_isolation(editable)
        assert view == editable
        assert view is not editable


def test_an_untouched_view_copies_nothing() -> None:
    host = payload()
    view = wrap_payload_for_isolation(host)
    assert view.name == "t"
    assert "args" not in raw_dict(view)
    assert view.args is not host.args
    assert "args" in raw_dict(view)
    assert view.args is view.args


def test_a_completed_view_is_an_ordinary_model() -> None:
    view = wrap_payload_for_isolation(payload())
    assert PENDING not in vars(view)
    assert sorted(vars(view)) == ["args", "headers", "name"]


@pytest.mark.parametrize(
    "revalidate",
    [
        lambda view: ToolPreInvokePayload(name=view.name, args=view.args).args,
        lambda view: ToolPreInvokePayload.model_validate(view).args,
        lambda view: ToolPreInvokePayload.model_construct(name=view.name, args=view.args).args,
        lambda view: Other.model_validate({"args": view.args}).args,
        lambda view: Other.model_validate(view, from_attributes=True).args,
        lambda view: TypeAdapter(dict[str, Any]).validate_python(view.args),
        lambda view: view.model_copy().args,
        lambda view: dict(view)["args"],
        lambda view: {**view.args},
        lambda view: view.args | {},
        lambda view: view.args.copy(),
        lambda view: copy.copy(view.args),
        lambda view: copy.copy(view).args,
        lambda view: dict(view.args.items()),
    ],
)
def test_editing_what_was_made_of_a_view_does_not_reach_the_host(revalidate: Any) -> None:
    host = payload()
    made = revalidate(wrap_payload_for_isolation(host))
    made["d"]["l"][1]["x"] = "edited"
    made["l"][0].append(2)
    made["t"][1].append(3)
    made["new"] = 1
    assert host == payload()


def test_models_extras_and_private_attributes_inside_a_payload_are_its_own() -> None:
    host = Holding(inner=Other(args={"a": [1]}), items=[Other(args={"b": [1]})])
    host._cache["x"] = 1
    view = wrap_payload_for_isolation(host)
    assert view == host
    view.inner.args["a"].append(2)
    view.items[0].args["b"].append(2)
    view._cache["x"] = 2
    assert (host.inner.args, host.items[0].args, host._cache) == ({"a": [1]}, {"b": [1]}, {"x": 1})


def test_a_root_model_is_viewed_like_any_other() -> None:
    host = HttpHeaderPayload({"A": "1"})
    view = wrap_payload_for_isolation(host)
    assert view == host
    assert view.model_dump() == {"A": "1"}
    view.root["B"] = "2"
    assert host.root == {"A": "1"}


@pytest.mark.parametrize("value", [{"a": [1]}, [1, [2]], "text", None, 3, Other(args={"a": [1]})], ids=repr)
def test_values_that_are_no_payload_of_ours_are_copied_whole(value: Any) -> None:
    copied = wrap_payload_for_isolation(value)
    assert copied == value
    assert type(copied) is type(value)


# Views inside a call.


class Keeper:
    """A handler that keeps whatever it is handed."""

    def __init__(self) -> None:
        self.kept: list[Any] = []
        self.contexts: list[PluginContext] = []

    async def handler(self, payload: Any, context: PluginContext) -> PluginResult[Any]:
        self.kept.append(payload)
        self.contexts.append(context)
        return PluginResult()


MODES = ("sequential", "transform", "audit", "concurrent", "fire_and_forget")


@pytest.mark.parametrize("mode", MODES)
async def test_a_view_that_a_plugin_keeps_never_changes_with_the_host_s_object(mode: str) -> None:
    keeper, host = Keeper(), tool_payload(x={"y": 1})
    result, _ = await call(manager_of(plugin(keeper.handler, mode=mode)), host)
    await result.wait_for_background_tasks()
    host.args["x"]["y"] = 2
    host.args["new"] = 1
    assert keeper.kept[0].args == {"x": {"y": 1}}


@pytest.mark.parametrize("mode", MODES)
async def test_a_view_that_a_plugin_keeps_never_reaches_another_plugin(mode: str) -> None:
    keepers = [Keeper() for _ in range(3)]
    plugins = [plugin(keeper.handler, f"p{n}", mode=mode) for n, keeper in enumerate(keepers)]
    result, _ = await call(manager_of(*plugins))
    await result.wait_for_background_tasks()
    kept = [keeper.kept[0] for keeper in keepers]
    contexts = [keeper.contexts[0] for keeper in keepers]
    assert len({id(view) for view in kept}) == len({id(context) for context in contexts}) == 3
    kept[0].args["x"]["y"] = 2
    contexts[0].state["k"] = 1
    contexts[0].global_context.state["k"] = 1
    assert kept[1].args == kept[2].args == {"x": {"y": 1}}
    assert contexts[1].state == contexts[2].state == contexts[1].global_context.state == {}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("suspends", [False, True])
async def test_an_edit_that_is_not_returned_reaches_no_other_plugin(mode: str, suspends: bool) -> None:
    seen = []

    async def edits(payload: Any, context: Any) -> PluginResult[Any]:
        if suspends:
            await asyncio.sleep(0)
        seen.append((dict(payload.args), payload.name))
        payload.args["x"]["y"] += 1
        payload.args["new"] = 1
        # What freezing cannot keep off is undone for the next plugin as well.
        object.__setattr__(payload, "name", "forged")
        return PluginResult()

    manager = manager_of(*(plugin(edits, name, mode=mode) for name in "abc"))
    result, _ = await call(manager)
    await result.wait_for_background_tasks()
    assert [(set(args), name) for args, name in seen] == [({"x"}, "t")] * 3
    assert seen[2][0]["x"]["y"] == 2


async def test_an_untouched_view_passes_from_plugin_to_plugin() -> None:
    identities = []

    async def looks(payload: Any, context: Any) -> PluginResult[Any]:
        identities.append(id(payload))
        return PluginResult()

    await call(manager_of(*(plugin(looks, name) for name in "abc")))
    if sys.implementation.name == "cpython":
        assert len(set(identities)) == 1


class Numbered(PluginPayload):
    flag: bool = True
    ratio: float = 1.0


@pytest.mark.parametrize("mode", ["sequential", "transform", "audit"])
async def test_an_equal_value_of_another_type_forced_into_a_view_reaches_no_other_plugin(mode: str) -> None:
    seen = []

    async def forces(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append((payload.flag, payload.ratio))
        object.__setattr__(payload, "flag", 1)
        object.__setattr__(payload, "ratio", True)
        return PluginResult()

    await call(manager_of(*(plugin(forces, name, mode=mode) for name in "abc")), Numbered())
    assert [repr(each) for each in seen] == ["(True, 1.0)"] * 3


async def test_a_payload_does_not_outlive_its_call() -> None:
    keeper = Keeper()

    async def looks(payload: Any, context: Any) -> PluginResult[Any]:
        keeper.kept.append(weakref.ref(payload))
        return PluginResult()

    host = tool_payload()
    reference = weakref.ref(host)
    await call(manager_of(plugin(looks)), host)
    del host
    gc.collect()
    assert reference() is None
    assert keeper.kept[0]() is None


@pytest.mark.parametrize("mode", ["sequential", "transform", "audit", "concurrent", "fire_and_forget"])
async def test_what_a_plugin_refers_to_weakly_is_not_what_the_next_one_is_handed(mode: str) -> None:
    kept: list[tuple[weakref.ref[Any], weakref.ref[Any]]] = []
    found: list[Any] = []

    async def keeps(payload: Any, context: Any) -> PluginResult[Any]:
        kept.append((weakref.ref(payload), weakref.ref(context)))
        return PluginResult()

    async def edits(payload: Any, context: Any) -> PluginResult[Any]:
        payload.args["d"]["l"].append("edited")
        context.state["secret"] = "theirs"
        view, told = (reference() for reference in kept[0])
        found.append(view is payload)
        found.append(told is context)
        return PluginResult()

    manager = manager_of(plugin(keeps, "a", mode=mode), plugin(edits, "b", mode=mode))
    await call(manager, payload())
    # Background plugins have ended by then.
    await manager.shutdown()
    assert found == [False, False]


async def test_a_result_of_any_shape_is_isolated() -> None:
    async def edits(payload: Any, context: Any) -> PluginResult[Any]:
        payload.result["content"][0]["text"] = "edited"
        return PluginResult(modified_payload=payload)

    host = ToolPostInvokePayload(name="t", result={"content": [{"type": "text", "text": "x"}]})
    result, _ = await call(manager_of(plugin(edits, hooks=["tool_post_invoke"])), host, hook="tool_post_invoke")
    assert host.result == {"content": [{"type": "text", "text": "x"}]}
    assert result.modified_payload.result == {"content": [{"type": "text", "text": "edited"}]}


# Contexts.


def host_context() -> GlobalContext:
    """A context with something in every place."""
    return GlobalContext(
        request_id="r",
        user={"email": "e", "groups": ["g"]},
        user_context=UserContext(user_id="u", attributes={"a": [1]}, roles=["r"]),
        state={"n": {"x": [1]}, "gone": 1},
        metadata={"m": [1]},
    )


def test_a_context_view_is_equal_and_shares_nothing() -> None:
    host = host_context()
    view = view_global_context(host)
    assert view == host
    view.user["groups"].append("h")
    view.user_context.attributes["a"].append(2)
    view.user_context.roles.append("s")
    view.state["n"]["x"].append(2)
    view.metadata["m"].append(2)
    view.tenant_id = "other"
    assert host == host_context()


@pytest.mark.parametrize("mode", ["sequential", "transform", "concurrent"])
async def test_writes_and_deletions_of_shared_state_reach_the_host_and_nothing_else_does(mode: str) -> None:
    async def writes(payload: Any, context: PluginContext) -> PluginResult[Any]:
        shared = context.global_context
        shared.state["n"]["x"].append(2)
        shared.state["new"] = [1]
        del shared.state["gone"]
        shared.metadata["m"] = "replaced"
        shared.user = "forged"
        shared.tenant_id = "forged"
        shared.user_context.is_admin = True
        return PluginResult()

    host = host_context()
    await call(manager_of(plugin(writes, mode=mode)), context=host)
    assert host.state == {"n": {"x": [1, 2]}, "new": [1]}
    assert host.metadata == {"m": "replaced"}
    assert (host.user, host.tenant_id, host.user_context) == (host_context().user, None, host_context().user_context)


@pytest.mark.parametrize("mode", ["audit", "fire_and_forget"])
async def test_modes_that_only_watch_leave_the_shared_state_alone_but_keep_their_own(mode: str) -> None:
    async def writes(payload: Any, context: PluginContext) -> PluginResult[Any]:
        context.global_context.state["n"]["x"].append(2)
        context.global_context.state.pop("gone")
        context.set_state("own", 1)
        return PluginResult()

    host = host_context()
    result, table = await call(manager_of(plugin(writes, mode=mode)), context=host)
    await result.wait_for_background_tasks()
    assert host == host_context()
    assert table is not None
    (context,) = table.values()
    assert context.state == {"own": 1}
    assert context.global_context.state["n"] == {"x": [1, 2]}


async def test_the_next_plugin_sees_the_state_that_was_written_before_it() -> None:
    seen = []

    async def writes(payload: Any, context: PluginContext) -> PluginResult[Any]:
        seen.append(copy.deepcopy(context.global_context.state))
        context.global_context.state.setdefault("n", []).append(len(seen))
        return PluginResult()

    host = GlobalContext(request_id="r")
    await call(manager_of(*(plugin(writes, name) for name in "abc")), context=host)
    assert seen == [{}, {"n": [1]}, {"n": [1, 2]}]
    assert host.state == {"n": [1, 2, 3]}


@pytest.mark.parametrize("ending", [ValueError("broken"), None])
async def test_state_of_a_plugin_that_failed_is_not_merged(ending: Exception | None) -> None:
    async def fails(payload: Any, context: PluginContext) -> Any:
        context.global_context.state["leak"] = 1
        if ending is not None:
            raise ending

    host = GlobalContext(request_id="r")
    await call(manager_of(plugin(fails, on_error="ignore")), context=host)
    assert host.state == {}


async def test_what_a_plugin_put_into_shared_state_is_no_longer_in_its_hands() -> None:
    kept: list[int] = []

    async def writes(payload: Any, context: PluginContext) -> PluginResult[Any]:
        context.global_context.state["k"] = kept
        return PluginResult()

    host = GlobalContext(request_id="r")
    await call(manager_of(plugin(writes)), context=host)
    kept.append(1)
    assert host.state == {"k": []}


async def test_a_state_dict_that_was_replaced_whole_counts_by_its_keys() -> None:
    async def replaces(payload: Any, context: PluginContext) -> PluginResult[Any]:
        context.global_context.state = {"new": 1}
        return PluginResult()

    host = GlobalContext(request_id="r", state={"old": 1})
    await call(manager_of(plugin(replaces)), context=host)
    assert host.state == {"new": 1}


async def test_a_global_context_of_the_plugin_s_own_adds_and_overwrites_only() -> None:
    async def replaces(payload: Any, context: PluginContext) -> PluginResult[Any]:
        context.global_context = GlobalContext(request_id="x", state={"new": 1, "old": 2})
        return PluginResult()

    host = GlobalContext(request_id="r", state={"old": 1, "kept": 1})
    await call(manager_of(plugin(replaces)), context=host)
    assert (host.state, host.request_id) == ({"old": 2, "kept": 1, "new": 1}, "r")


def test_an_untouched_context_has_nothing_to_say() -> None:
    assert state_changes(ContextSource(host_context()).fresh(), host_context()) == []


async def test_own_state_is_carried_from_hook_to_hook_and_the_context_is_the_same_object() -> None:
    seen: list[Any] = []

    async def pre(payload: Any, context: PluginContext) -> PluginResult[Any]:
        context.set_state("n", [1])
        seen.append(context)
        return PluginResult()

    keeper = Keeper()
    manager = manager_of(
        plugin(pre, "p", hooks=["tool_pre_invoke"]),
        plugin(keeper.handler, "other", hooks=["prompt_pre_fetch"]),
    )
    _, table = await call(manager)
    _, carried = await call(manager, hook="prompt_pre_fetch", local_contexts=table)
    assert carried is not None
    assert len(carried) == 2
    _, last = await call(manager, local_contexts=carried)
    assert seen[0] is seen[1]
    assert last is not None
    assert set(last) == set(carried)


async def test_a_carried_context_sees_the_new_call_s_global_context() -> None:
    seen = []

    async def looks(payload: Any, context: PluginContext) -> PluginResult[Any]:
        seen.append((context.global_context.tenant_id, dict(context.global_context.state)))
        context.global_context.state["n"] = 1
        return PluginResult()

    manager = manager_of(plugin(looks))
    _, table = await call(manager, context=GlobalContext(request_id="r", tenant_id="a"))
    await call(manager, context=GlobalContext(request_id="r", tenant_id="b", state={"s": 1}), local_contexts=table)
    assert seen == [("a", {}), ("b", {"s": 1})]


# Classes that answer in their own way.


class Answering(PluginPayload):
    """Answers for every name that is not there."""

    data: dict[str, Any]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return (self.__dict__.get("data") or {}).get(name)


class Watching(PluginPayload):
    data: dict[str, Any]

    def __getattribute__(self, name: str) -> Any:
        return super().__dict__.get("data") if name == "data" else super().__getattribute__(name)


class Mixin:
    data: Any = None


with warnings.catch_warnings():
    # What pydantic says of a field that is named like something of a class above it.
    warnings.simplefilter("ignore")

    class Mixed(Mixin, PluginPayload):
        data: dict[str, Any]

    class Shadowing(PluginPayload):
        schema: dict[str, Any]


DANGEROUS = {"cmd": ["rm -rf /"]}


@pytest.mark.parametrize("mode", ["sequential", "transform", "audit", "concurrent", "fire_and_forget"])
@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (Answering(data=DANGEROUS), "data"),
        (Watching(data=DANGEROUS), "data"),
        (Mixed(data=DANGEROUS), "data"),
        (Shadowing(schema=DANGEROUS), "schema"),
    ],
)
async def test_a_guard_sees_what_is_there_whatever_its_class_says_of_names_that_are_not(
    payload: Any, field: str, mode: str
) -> None:
    seen = []

    async def looks(view: Any, context: Any) -> PluginResult[Any]:
        seen.append(copy.deepcopy(getattr(view, field)))
        getattr(view, field)["cmd"].append("edited")
        return PluginResult()

    manager = manager_of(*(plugin(looks, name, hooks=["own"], mode=mode) for name in "ab"))
    await call(manager, payload, hook="own")
    await manager.shutdown()
    assert seen == [{"cmd": ["rm -rf /"]}] * 2
    assert getattr(payload, field) == {"cmd": ["rm -rf /"]}


async def test_a_guard_sees_a_global_context_whose_class_answers_in_its_own_way() -> None:
    class Context(GlobalContext):
        def __getattr__(self, name: str) -> Any:
            return None

    seen = []

    async def looks(view: Any, context: Any) -> PluginResult[Any]:
        seen.append((context.global_context.user, context.global_context.state))
        context.global_context.state["seen"] = True
        return PluginResult()

    host = Context(request_id="r", user={"email": "ann@x.org"}, state={"k": [1]})
    await call(manager_of(plugin(looks)), context=host)
    assert seen == [({"email": "ann@x.org"}, {"k": [1], "seen": True})]
    assert host.state == {"k": [1], "seen": True}
