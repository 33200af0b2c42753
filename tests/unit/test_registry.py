"""Plugins by name, handlers by hook: all or nothing."""

from __future__ import annotations

import logging
from enum import Enum
from typing import Any

import pytest
from support import FunctionPlugin, allow, plugin

from cpex.framework.base import HookRef, Plugin
from cpex.framework.decorator import hook
from cpex.framework.errors import PluginError
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.result import PluginResult
from cpex.framework.registry import MAX_PLANS, ExternalHookRef, PluginInstanceRegistry

TOOL = "tool_pre_invoke"


class Hooks(str, Enum):
    TOOL = "tool_pre_invoke"


def registry_of(*plugins: Plugin) -> PluginInstanceRegistry:
    registry = PluginInstanceRegistry()
    for each in plugins:
        registry.register(each)
    return registry


def names(refs: list[HookRef]) -> list[str]:
    return [ref.plugin_ref.name for ref in refs]


def test_a_registered_plugin_is_found_by_name_and_by_hook() -> None:
    tool = plugin(allow)
    registry = registry_of(tool)
    ref = registry.get_plugin("p")
    assert ref is not None
    assert ref.plugin is tool
    assert len(ref.uuid) == 32
    assert registry.get_all_plugins() == [ref]
    assert registry.plugin_count == 1
    hook_ref = registry.get_plugin_hook_by_name("p", TOOL)
    assert hook_ref is not None
    assert (hook_ref.name, hook_ref.plugin_ref, hook_ref.hook) == (TOOL, ref, allow)
    assert registry.get_hook_refs_for_hook(TOOL) == [hook_ref]
    assert registry.has_hooks_for(TOOL)


def test_what_is_not_there_is_not_found() -> None:
    registry = registry_of(plugin(allow))
    assert registry.get_plugin("x") is None
    assert registry.get_plugin_hook_by_name("x", TOOL) is None
    assert registry.get_plugin_hook_by_name("p", "x") is None
    assert registry.get_hook_refs_for_hook("x") == []
    assert not registry.has_hooks_for("x")
    assert registry.plan("x") is None


def test_an_enum_member_is_as_good_as_its_text() -> None:
    registry = registry_of(plugin(allow))
    assert registry.has_hooks_for(Hooks.TOOL)
    assert registry.get_plugin_hook_by_name("p", Hooks.TOOL) is not None
    assert registry.plan(Hooks.TOOL) is registry.plan(TOOL)


def test_handlers_are_sorted_by_priority_and_registration_breaks_ties() -> None:
    registry = registry_of(*(plugin(allow, name, priority=n) for name, n in zip("abcd", (2, 1, 2, 1), strict=True)))
    assert names(registry.get_hook_refs_for_hook(TOOL)) == ["b", "d", "a", "c"]


def test_a_hook_that_is_listed_twice_has_two_handlers() -> None:
    assert names(registry_of(plugin(allow, hooks=[TOOL, TOOL])).get_hook_refs_for_hook(TOOL)) == ["p", "p"]


def test_a_name_is_taken_once() -> None:
    registry = registry_of(plugin(allow))
    with pytest.raises(ValueError) as caught:
        registry.register(plugin(allow, hooks=["prompt_pre_fetch"]))
    assert str(caught.value) == "Plugin p already registered"
    assert not registry.has_hooks_for("prompt_pre_fetch")


def test_a_plugin_with_one_bad_hook_is_not_registered_at_all() -> None:
    class Half(Plugin):
        async def tool_pre_invoke(self, payload: Any, context: Any) -> PluginResult[Any]:
            return PluginResult()

        async def hook_completed(self, outcome: Any) -> None:
            raise AssertionError("never told")

    registry = registry_of(plugin(allow, "other"))
    before = registry.plan(TOOL)
    half = Half(PluginConfig(name="half", kind="k", hooks=[TOOL, "prompt_pre_fetch"]))
    with pytest.raises(PluginError) as caught:
        registry.register(half)
    assert "Plugin 'half' has no hook 'prompt_pre_fetch'" in str(caught.value)
    assert registry.get_plugin("half") is None
    assert registry.plugin_count == 1
    assert names(registry.get_hook_refs_for_hook(TOOL)) == ["other"]
    assert registry.plan(TOOL) is before
    # The name is still free for a plugin that works.
    registry.register(plugin(allow, "half"))
    assert registry.plugin_count == 2


def test_the_trusted_configuration_decides_whatever_the_plugin_says() -> None:
    tool = plugin(allow, "claimed", hooks=[TOOL, "prompt_pre_fetch"], priority=1)
    registry = PluginInstanceRegistry()
    registry.register(tool, PluginConfig(name="trusted", kind="k", hooks=[TOOL], priority=7))
    assert registry.get_plugin("claimed") is None
    ref = registry.get_plugin("trusted")
    assert ref is not None
    assert (ref.name, ref.priority, ref.hooks) == ("trusted", 7, [TOOL])
    assert not registry.has_hooks_for("prompt_pre_fetch")


def test_a_plugin_that_is_unregistered_is_gone_from_everywhere() -> None:
    registry = registry_of(plugin(allow, "a"), plugin(allow, "b"))
    assert registry.plan(TOOL) is not None
    registry.unregister("a")
    registry.unregister("unknown")
    assert (registry.get_plugin("a"), registry.plugin_count) == (None, 1)
    assert registry.get_plugin_hook_by_name("a", TOOL) is None
    plan = registry.plan(TOOL)
    assert plan is not None
    assert [step.name for step in plan.steps] == ["b"]
    registry.unregister("b")
    assert registry.plan(TOOL) is None


def test_a_plan_is_compiled_once_and_anew_when_a_plugin_comes() -> None:
    registry = registry_of(plugin(allow, "a"))
    first = registry.plan(TOOL)
    assert registry.plan(TOOL) is first
    registry.register(plugin(allow, "b"))
    second = registry.plan(TOOL)
    assert second is not None
    assert [step.name for step in second.steps] == ["a", "b"]


def test_asking_for_made_up_hooks_does_not_fill_the_memory() -> None:
    registry = registry_of(plugin(allow))
    for n in range(3 * MAX_PLANS):
        assert registry.plan(f"made-up-{n}") is None
        assert registry.get_hook_refs_for_hook(f"made-up-{n}") == []
    assert len(registry._plans) <= MAX_PLANS
    assert len(registry._sorted) == 0
    assert registry.plan(TOOL) is not None


def test_a_remote_plugin_s_hooks_are_called_through_it() -> None:
    calls = []

    class Remote(Plugin):
        async def invoke_hook(self, hook_type: str, payload: Any, context: Any) -> PluginResult[Any]:
            calls.append((hook_type, payload, context))
            return PluginResult()

    registry = registry_of(Remote(PluginConfig(name="p", kind="k", hooks=["anything_at_all"])))
    (ref,) = registry.get_hook_refs_for_hook("anything_at_all")
    assert type(ref) is ExternalHookRef
    assert not ref.accepts_extensions
    coroutine: Any = ref.hook(1, 2)
    with pytest.raises(StopIteration):
        coroutine.send(None)
    assert calls == [("anything_at_all", 1, 2)]


def test_the_place_of_a_decorated_handler_in_the_class_does_not_matter() -> None:
    class Marked(Plugin):
        @hook(["own_hook", TOOL])
        async def zeta(self, payload: Any, context: Any) -> PluginResult[Any]:
            return PluginResult()

        @hook("own_hook")
        async def alpha(self, payload: Any, context: Any) -> PluginResult[Any]:
            return PluginResult()

    marked = Marked(PluginConfig(name="p", kind="k", hooks=["own_hook", TOOL]))
    registry = registry_of(marked)
    (own,), (tool,) = registry.get_hook_refs_for_hook("own_hook"), registry.get_hook_refs_for_hook(TOOL)
    assert (own.hook, tool.hook) == (marked.alpha, marked.zeta)


async def test_shutdown_goes_backwards_and_past_failures_and_empties_everything(
    caplog: pytest.LogCaptureFixture,
) -> None:
    order = []

    class Ends(FunctionPlugin):
        async def shutdown(self) -> None:
            order.append(self.name)
            if self.name == "b":
                raise ValueError("broken")

    plugins = [Ends(plugin(allow, name).config, allow) for name in "abc"]
    registry = registry_of(*plugins)
    with caplog.at_level(logging.ERROR):
        await registry.shutdown()
    assert order == ["c", "b", "a"]
    assert "Plugin b failed to shut down" in caplog.text
    assert (registry.plugin_count, registry.get_plugin("a"), registry.plan(TOOL)) == (0, None, None)
    assert registry.get_plugin_hook_by_name("a", TOOL) is None
    registry.register(plugins[0])
    assert registry.plugin_count == 1


def test_registration_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        registry_of(plugin(allow)).unregister("p")
    assert "Registered plugin p with hooks ['tool_pre_invoke']" in caplog.text
    assert "Unregistered plugin p" in caplog.text
