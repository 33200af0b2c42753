"""What a plugin is, and which of its methods handles a hook."""

from __future__ import annotations

import functools
import inspect
from typing import Any

import pytest
from pydantic import ValidationError

from cpex.framework.base import HookRef, Plugin, PluginRef, completion_handler
from cpex.framework.decorator import hook
from cpex.framework.errors import PluginError
from cpex.framework.hooks.tools import ToolPreInvokePayload, ToolPreInvokeResult
from cpex.framework.models.config import PluginCondition, PluginConfig
from cpex.framework.models.context import PluginContext
from cpex.framework.models.mode import OnError, PluginMode
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult

TOOL = "tool_pre_invoke"
CONFIG = PluginConfig(
    name="p",
    kind="k",
    hooks=[TOOL],
    tags=["t"],
    mode=PluginMode.AUDIT,
    on_error=OnError.IGNORE,
    priority=5,
    conditions=[PluginCondition(tools={"x"})],
    capabilities=["read_headers"],
)


class Own(PluginPayload):
    x: int


def ref_of(cls: type[Plugin], hook_type: str = TOOL) -> HookRef:
    return HookRef(hook_type, PluginRef(cls(PluginConfig(name="p", kind="k", hooks=[hook_type]))))


def test_a_plugin_tells_what_its_configuration_says() -> None:
    plugin = Plugin(CONFIG)
    assert (plugin.name, plugin.priority, plugin.mode, plugin.hooks) == ("p", 5, "audit", [TOOL])
    assert (plugin.tags, plugin.conditions, plugin.config) == (["t"], CONFIG.conditions, CONFIG)
    with pytest.raises(AttributeError):
        plugin.name = "other"


async def test_starting_and_stopping_do_nothing_unless_the_author_says_so() -> None:
    plugin = Plugin(CONFIG)
    await plugin.initialize()
    await plugin.initialize()
    await plugin.shutdown()
    await plugin.shutdown()


def test_json_becomes_a_payload_or_a_result_of_the_hook() -> None:
    plugin = Plugin(CONFIG)
    expected = ToolPreInvokePayload(name="t", args={"a": 1})
    assert plugin.json_to_payload(TOOL, '{"name": "t", "args": {"a": 1}}') == expected
    assert plugin.json_to_payload(TOOL, {"name": "t", "args": {"a": 1}}) == expected
    assert plugin.json_to_result(TOOL, '{"continue_processing": false}') == ToolPreInvokeResult(
        continue_processing=False
    )
    with pytest.raises(ValidationError):
        plugin.json_to_payload(TOOL, {})


def test_the_plugin_s_own_classes_come_first() -> None:
    plugin = Plugin(CONFIG, {TOOL: Own}, {TOOL: PluginResult[Own]})
    assert plugin.json_to_payload(TOOL, {"x": 1}) == Own(x=1)
    assert plugin.json_to_result(TOOL, {"modified_payload": {"x": 1}}).modified_payload == Own(x=1)


def test_an_unknown_hook_is_an_error_that_names_it() -> None:
    plugin = Plugin(CONFIG)
    with pytest.raises(PluginError) as caught:
        plugin.json_to_payload("nothing", {})
    assert str(caught.value) == "No payload defined for hook nothing of plugin p"
    with pytest.raises(PluginError) as caught:
        plugin.json_to_result("nothing", {})
    assert str(caught.value) == "No result defined for hook nothing of plugin p"


def test_a_plugin_reference_reads_the_trusted_configuration_only() -> None:
    plugin = Plugin(CONFIG)
    trusted = PluginConfig(name="q", kind="k", hooks=["other"], priority=9)
    ref = PluginRef(plugin, trusted)
    assert (ref.name, ref.priority, ref.hooks, ref.tags, ref.conditions) == ("q", 9, ["other"], [], [])
    assert (ref.mode, ref.on_error, ref.capabilities) == ("sequential", "fail", frozenset())
    assert (ref.plugin, ref.trusted_config) == (plugin, trusted)
    own = PluginRef(plugin)
    assert (own.mode, own.on_error, own.capabilities) == ("audit", "ignore", {"read_headers"})
    assert len(own.uuid) == 32
    assert own.uuid != PluginRef(plugin).uuid
    assert int(own.uuid, 16) >= 0


# Which method handles a hook.


class Named(Plugin):
    async def tool_pre_invoke(self, payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult()

    @hook(TOOL)
    async def decorated(self, payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult()


def test_the_method_of_that_name_comes_before_a_decorated_one() -> None:
    ref = ref_of(Named)
    assert ref.hook.__name__ == "tool_pre_invoke"
    assert (ref.name, ref.accepts_extensions) == (TOOL, False)


def test_of_several_decorated_methods_the_first_by_name_counts_and_private_ones_do_not() -> None:
    class Marked(Plugin):
        @hook(TOOL)
        async def _hidden(self, payload: Any, context: Any) -> PluginResult[Any]:
            return PluginResult()

        @hook(TOOL)
        async def second(self, payload: Any, context: Any) -> PluginResult[Any]:
            return PluginResult()

        @hook([TOOL, "other"])
        async def first(self, payload: Any, context: Any) -> PluginResult[Any]:
            return PluginResult()

    assert ref_of(Marked).hook.__name__ == "first"
    assert ref_of(Marked, "other").hook.__name__ == "first"


def test_a_hook_called_like_a_property_is_not_mistaken_for_it() -> None:
    class Marked(Plugin):
        @hook("priority")
        async def handles(self, payload: Any, context: Any) -> PluginResult[Any]:
            return PluginResult()

    assert ref_of(Marked, "priority").hook.__name__ == "handles"


def test_a_static_method_of_that_name_will_do() -> None:
    class Static(Plugin):
        @staticmethod
        async def tool_pre_invoke(payload: Any, context: Any) -> PluginResult[Any]:
            return PluginResult()

    assert ref_of(Static).hook is Static.tool_pre_invoke


def test_an_override_without_the_decorator_is_no_longer_marked() -> None:
    class Marked(Plugin):
        @hook("own_hook")
        async def handles(self, payload: Any, context: Any) -> PluginResult[Any]:
            return PluginResult()

    class Overridden(Marked):
        async def handles(self, payload: Any, context: Any) -> PluginResult[Any]:
            return PluginResult()

    with pytest.raises(PluginError):
        ref_of(Overridden, "own_hook")


def test_a_missing_handler_is_an_error_that_names_the_nearest_known_hook() -> None:
    with pytest.raises(PluginError) as caught:
        ref_of(Named, "tool_pre_invok")
    assert str(caught.value).startswith(
        "Plugin 'p' has no hook 'tool_pre_invok': Named has neither an async method of that name nor one marked with "
        "@hook; did you mean tool_pre_invoke"
    )
    assert caught.value.error.plugin_name == "p"


def test_a_known_hook_without_a_handler_is_not_proposed_in_its_own_place() -> None:
    with pytest.raises(PluginError) as caught:
        ref_of(Named, "tool_post_invoke")
    _, proposals = str(caught.value).split("did you mean ")
    assert "tool_post_invoke" not in proposals.rstrip("?").split(" or ")
    assert "tool_pre_invoke" in proposals


def test_an_attribute_that_cannot_be_called_is_no_handler() -> None:
    class Broken(Plugin):
        tool_pre_invoke = 3

    with pytest.raises(TypeError) as caught:
        ref_of(Broken)
    assert str(caught.value) == "attribute 'tool_pre_invoke' of plugin Broken is not callable"


async def two(self: Any, payload: Any, context: Any) -> PluginResult[Any]:
    return PluginResult(metadata={"got": [payload, context]})


async def three(self: Any, payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
    return PluginResult(metadata={"got": [payload, context, extensions]})


async def three_with_default(self: Any, payload: Any, context: Any, extensions: Any = None) -> PluginResult[Any]:
    return PluginResult(metadata={"got": [payload, context, extensions]})


async def keyword_only(self: Any, payload: Any, context: Any, *, extensions: Any) -> PluginResult[Any]:
    return PluginResult(metadata={"got": [payload, context, extensions]})


async def other_names(self: Any, a: Any, b: Any, c: Any) -> PluginResult[Any]:
    return PluginResult(metadata={"got": [a, b, c]})


async def star_and_keywords(self: Any, *args: Any, **kwargs: Any) -> PluginResult[Any]:
    return PluginResult(metadata={"got": [*args]})


async def two_and_keywords(self: Any, payload: Any, context: Any, **kwargs: Any) -> PluginResult[Any]:
    return PluginResult(metadata={"got": [payload, context]})


async def two_and_star(self: Any, payload: Any, context: Any, *rest: Any) -> PluginResult[Any]:
    return PluginResult(metadata={"got": [payload, context, *rest]})


@pytest.mark.parametrize(
    ("handler", "takes_extensions"),
    [
        (two, False),
        (three, True),
        (three_with_default, True),
        (keyword_only, True),
        (other_names, True),
        (star_and_keywords, False),
        (two_and_keywords, False),
        (two_and_star, True),
    ],
    ids=lambda each: getattr(each, "__name__", str(each)),
)
async def test_a_handler_is_called_as_its_signature_allows(handler: Any, takes_extensions: bool) -> None:
    ref = ref_of(type("Made", (Plugin,), {TOOL: handler}))
    assert ref.accepts_extensions is takes_extensions
    arguments = [1, 2, 3] if takes_extensions else [1, 2]
    result = await ref.hook(*arguments)
    assert result.metadata == {"got": arguments}


async def none(self: Any) -> None: ...


async def one(self: Any, payload: Any) -> None: ...


async def four(self: Any, payload: Any, context: Any, extensions: Any, more: Any) -> None: ...


async def star(self: Any, *args: Any) -> None: ...


@pytest.mark.parametrize("handler", [none, one, four, star], ids=lambda each: each.__name__)
def test_a_handler_with_another_signature_is_refused_at_registration(handler: Any) -> None:
    with pytest.raises(PluginError) as caught:
        ref_of(type("Made", (Plugin,), {TOOL: handler}))
    assert "Plugin 'p' hook 'tool_pre_invoke' has an invalid signature (" in str(caught.value)
    assert str(caught.value).endswith("; expected (payload, context) or (payload, context, extensions)")


def sync(self: Any, payload: Any, context: Any) -> PluginResult[Any]:
    return PluginResult()


async def generates(self: Any, payload: Any, context: Any) -> Any:
    yield 1


@pytest.mark.parametrize("handler", [sync, generates], ids=lambda each: each.__name__)
def test_a_handler_that_is_no_coroutine_function_is_refused_at_registration(handler: Any) -> None:
    with pytest.raises(PluginError) as caught:
        ref_of(type("Made", (Plugin,), {TOOL: handler}))
    assert str(caught.value) == "Plugin 'p' hook 'tool_pre_invoke' must be async: declare it with `async def`"


def test_a_wrapped_handler_keeps_its_signature() -> None:
    def logged(handler: Any) -> Any:
        @functools.wraps(handler)
        async def wrapper(*args: Any, **kwargs: Any) -> Any:
            return await handler(*args, **kwargs)

        return wrapper

    ref = ref_of(type("Made", (Plugin,), {TOOL: logged(three)}))
    assert ref.accepts_extensions


def test_a_plugin_may_want_to_know_of_decisions() -> None:
    class Told(Plugin):
        async def hook_completed(self, outcome: Any) -> None: ...

    class Wrong(Plugin):
        def hook_completed(self, outcome: Any) -> None: ...

    told = Told(CONFIG)
    assert completion_handler(told) == told.hook_completed
    assert completion_handler(Plugin(CONFIG)) is None
    with pytest.raises(PluginError) as caught:
        completion_handler(Wrong(CONFIG))
    assert str(caught.value) == "Plugin 'p' hook_completed must be async"


async def annotated(payload: ToolPreInvokePayload, context: PluginContext) -> ToolPreInvokeResult: ...
async def by_text(payload: ToolPreInvokePayload, context: Any) -> ToolPreInvokeResult | None: ...
async def unresolvable(payload: Nowhere, context: Any) -> Nowhere: ...  # type: ignore[name-defined]  # noqa: F821
async def bare(payload, context): ...
async def of_another(payload: int, context: Any) -> ToolPreInvokeResult: ...
async def endless(payload: ToolPreInvokePayload, context: Any): ...
async def answers_a_number(payload: ToolPreInvokePayload, context: Any) -> int: ...


@pytest.mark.parametrize(
    ("handler", "complaint"),
    [
        (annotated, None),
        (by_text, None),
        (unresolvable, None),
        (bare, "missing type hint for parameter 'payload'; annotate it with ToolPreInvokePayload"),
        (
            of_another,
            "parameter 'payload' has incorrect type hint <class 'int'>; annotate it with ToolPreInvokePayload",
        ),
        (endless, "missing return type hint; annotate it with PluginResult[ToolPreInvokePayload]"),
        (
            answers_a_number,
            "has incorrect return type hint <class 'int'>; annotate it with PluginResult[ToolPreInvokePayload]",
        ),
    ],
)
def test_annotations_are_held_against_the_hooks_classes_by_those_who_ask(handler: Any, complaint: str | None) -> None:
    class Handles(Plugin):
        async def tool_pre_invoke(self, payload, context): ...

    ref = ref_of(Handles)
    parameters = list(inspect.signature(handler).parameters.values())
    ref._validate_type_hints("nobody_registered_this", handler, parameters, "p")
    if complaint is None:
        ref._validate_type_hints(TOOL, handler, parameters, "p")
        return
    with pytest.raises(PluginError) as caught:
        ref._validate_type_hints(TOOL, handler, parameters, "p")
    assert str(caught.value) == f"Plugin 'p' hook '{TOOL}' {complaint}"
    assert caught.value.error.plugin_name == "p"
