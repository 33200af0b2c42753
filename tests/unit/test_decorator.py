"""Marking methods as hooks."""

from collections.abc import Iterator

import pytest

from cpex.framework.decorator import _HOOK_METADATA_ATTR, HookMetadata, get_hook_metadata, has_hook_metadata, hook
from cpex.framework.hooks.registry import get_hook_registry
from cpex.framework.hooks.tools import ToolHookType, ToolPreInvokePayload
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult

NAMES = ["decorator_test_one", "decorator_test_two"]


class EmailPayload(PluginPayload):
    to: str


class OtherPayload(PluginPayload):
    pass


EmailResult = PluginResult[EmailPayload]


@pytest.fixture(autouse=True)
def clean_registry() -> Iterator[None]:
    yield
    for name in NAMES:
        get_hook_registry().unregister_hook(name)


def test_a_marked_function_tells_its_hooks_and_stays_itself() -> None:
    async def handler(self, payload, context): ...

    marked = hook(["a", ToolHookType.TOOL_PRE_INVOKE])(handler)
    assert marked is handler
    metadata = get_hook_metadata(handler)
    assert metadata is getattr(handler, _HOOK_METADATA_ATTR)
    assert metadata is not None
    assert (metadata.hook_types, metadata.hook_type) == (["a", "tool_pre_invoke"], "a")
    assert (metadata.payload_type, metadata.result_type) == (None, None)
    assert metadata.matches("tool_pre_invoke")
    assert metadata.matches(ToolHookType.TOOL_PRE_INVOKE)
    assert not metadata.matches("b")
    assert repr(metadata).startswith("HookMetadata(['a', <ToolHookType.TOOL_PRE_INVOKE")


def test_an_unmarked_function_has_no_metadata() -> None:
    assert get_hook_metadata(print) is None
    assert not has_hook_metadata(print)


def test_the_mark_is_seen_through_a_bound_method() -> None:
    class Handlers:
        @hook("a")
        async def handle(self, payload, context): ...

    assert has_hook_metadata(Handlers().handle)


def test_the_outer_of_two_marks_counts() -> None:
    @hook("outer")
    @hook("inner")
    async def handle(self, payload, context): ...

    assert get_hook_metadata(handle).hook_types == ["outer"]


@pytest.mark.parametrize("nothing", ["", [], [""]])
def test_a_mark_without_a_hook_name_is_an_error(nothing: str | list[str]) -> None:
    with pytest.raises(ValueError) as caught:
        hook(nothing)
    assert str(caught.value) == '@hook needs the name of a hook, e.g. @hook("tool_pre_invoke")'


@pytest.mark.conformance("D4")
def test_both_classes_register_hooks_that_are_not_known_yet() -> None:
    @hook(NAMES, EmailPayload, EmailResult)
    async def handle(self, payload, context): ...

    registry = get_hook_registry()
    for name in NAMES:
        assert registry.get_payload_type(name) is EmailPayload
        assert registry.get_result_type(name) is EmailResult
    assert get_hook_metadata(handle).payload_type is EmailPayload

    @hook(NAMES[0], OtherPayload, PluginResult[OtherPayload])
    async def handle_too(self, payload, context): ...

    assert registry.get_payload_type(NAMES[0]) is EmailPayload


def test_a_built_in_hook_keeps_its_own_classes() -> None:
    @hook("tool_pre_invoke", EmailPayload, EmailResult)
    async def handle(self, payload, context): ...

    assert get_hook_registry().get_payload_type("tool_pre_invoke") is ToolPreInvokePayload


def test_one_class_alone_registers_nothing() -> None:
    @hook(NAMES[0], EmailPayload)
    async def handle(self, payload, context): ...

    assert not get_hook_registry().is_registered(NAMES[0])


def test_metadata_without_hooks_has_no_first_one() -> None:
    metadata = HookMetadata([])
    assert metadata.hook_type == ""
    assert not metadata.matches("tool_pre_invoke")
