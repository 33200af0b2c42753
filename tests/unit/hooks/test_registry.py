"""What the registry knows from the start, and what it learns."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from cpex.framework.extensions import SecurityExtension
from cpex.framework.hooks.http import HttpHeaderPayload, HttpPreRequestPayload
from cpex.framework.hooks.identity import IdentityPayload, IdentityResult
from cpex.framework.hooks.registry import HookRegistry, get_hook_registry
from cpex.framework.hooks.tools import ToolHookType, ToolPreInvokePayload, ToolPreInvokeResult
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult

HOOK = "registry_test"


class EmailPayload(PluginPayload):
    to: str


class UrgentEmailPayload(EmailPayload):
    pass


class Receipt(PluginPayload):
    id: str


class EmailResult(PluginResult[EmailPayload]):
    pass


@pytest.fixture
def registry() -> Iterator[HookRegistry]:
    registry = get_hook_registry()
    yield registry
    for name in (HOOK, *ToolHookType):
        registry.unregister_hook(name)


def test_there_is_one_registry() -> None:
    assert HookRegistry() is get_hook_registry() is HookRegistry()


def test_all_built_in_hooks_are_known_without_importing_their_modules() -> None:
    code = (
        "import sys\n"
        "from cpex.framework.hooks.registry import get_hook_registry\n"
        "registry = get_hook_registry()\n"
        "print(*registry.get_registered_hooks())\n"
        "print([name for name in sys.modules if name.startswith('cpex.framework.hooks.')])\n"
        "print(registry.get_payload_type('identity_resolve').__name__)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    names, modules, found = run.stdout.splitlines()
    assert names.split() == [
        "http_pre_request",
        "http_post_request",
        "http_auth_resolve_user",
        "http_auth_check_permission",
        "agent_pre_invoke",
        "agent_post_invoke",
        "prompt_pre_fetch",
        "prompt_post_fetch",
        "resource_pre_fetch",
        "resource_post_fetch",
        "tool_pre_invoke",
        "tool_post_invoke",
        "tool_list",
        "prompt_list",
        "resource_list",
        "identity_resolve",
        "token_delegate",
        "evaluate",
        "cmf.tool_pre_invoke",
        "cmf.tool_post_invoke",
        "cmf.llm_input",
        "cmf.llm_output",
        "cmf.resource_pre_fetch",
        "cmf.resource_post_fetch",
        "cmf.prompt_pre_fetch",
        "cmf.prompt_post_fetch",
    ]
    assert "cpex.framework.hooks.identity" not in modules
    assert found == "IdentityPayload"


def test_hooks_are_looked_up_by_text_or_by_member(registry: HookRegistry) -> None:
    for name in ("tool_pre_invoke", ToolHookType.TOOL_PRE_INVOKE):
        assert registry.is_registered(name)
        assert registry.get_payload_type(name) is ToolPreInvokePayload
        assert registry.get_result_type(name) is ToolPreInvokeResult
    assert ToolHookType.TOOL_PRE_INVOKE in registry.get_registered_hooks()


def test_an_unknown_hook_has_no_classes_and_is_not_remembered(registry: HookRegistry) -> None:
    before = registry.get_registered_hooks()
    assert not registry.is_registered("made_up")
    assert registry.get_payload_type("made_up") is None
    assert registry.get_result_type("made_up") is None
    assert registry.reply_type("made_up") is None
    assert registry.get_registered_hooks() == before
    assert registry.get_registered_hooks() is not registry.get_registered_hooks()


def test_a_registered_hook_can_be_replaced_and_removed(
    registry: HookRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    registry.register_hook(HOOK, EmailPayload, EmailResult)
    registry.register_hook(HOOK, EmailPayload, EmailResult)
    assert caplog.text == ""
    assert registry.get_registered_hooks()[-1] == HOOK
    registry.register_hook(HOOK, Receipt, PluginResult)
    assert registry.get_payload_type(HOOK) is Receipt
    assert f"Hook {HOOK} is registered again, with other classes than before" in caplog.text
    registry.unregister_hook(HOOK)
    registry.unregister_hook(HOOK)
    assert not registry.is_registered(HOOK)


def test_a_replaced_built_in_hook_comes_back_when_the_replacement_is_removed(registry: HookRegistry) -> None:
    registry.register_hook("tool_pre_invoke", EmailPayload, EmailResult)
    assert registry.get_payload_type(ToolHookType.TOOL_PRE_INVOKE) is EmailPayload
    registry.unregister_hook(ToolHookType.TOOL_PRE_INVOKE)
    assert registry.get_payload_type("tool_pre_invoke") is ToolPreInvokePayload


@pytest.mark.filterwarnings(r"ignore:.*\.headers is deprecated:DeprecationWarning")
def test_json_becomes_a_payload(registry: HookRegistry) -> None:
    expected = ToolPreInvokePayload(name="a", args={"q": 1})
    assert registry.json_to_payload("tool_pre_invoke", '{"name": "a", "args": {"q": 1}}') == expected
    assert registry.json_to_payload("tool_pre_invoke", {"name": "a", "args": {"q": 1}}) == expected
    assert registry.json_to_payload("tool_pre_invoke", expected) is expected
    assert isinstance(
        registry.json_to_payload("http_pre_request", {"path": "/", "method": "GET", "headers": {}}),
        HttpPreRequestPayload,
    )
    bad: list[Any] = ["{}", b"{}", {"name": 1}, EmailPayload(to="x")]
    for data in bad:
        with pytest.raises(ValidationError):
            registry.json_to_payload("tool_pre_invoke", data)


def test_json_becomes_a_result_with_typed_parts(registry: HookRegistry) -> None:
    result = registry.json_to_result(
        "tool_pre_invoke",
        {"modified_payload": {"name": "b"}, "modified_extensions": {"security": {"labels": ["PII"]}}},
    )
    assert type(result) is ToolPreInvokeResult
    assert result.modified_payload == ToolPreInvokePayload(name="b")
    assert result.modified_extensions.security == SecurityExtension(labels={"PII"})
    assert registry.json_to_result("tool_pre_invoke", result) is result


def test_json_of_an_unknown_hook_is_an_error_that_names_the_nearest(registry: HookRegistry) -> None:
    with pytest.raises(ValueError) as payload_error:
        registry.json_to_payload("tool_pre_invok", "{}")
    assert str(payload_error.value) == (
        "No payload type registered for hook: tool_pre_invok; did you mean `tool_pre_invoke`?"
    )
    with pytest.raises(ValueError) as result_error:
        registry.json_to_result("zzz", "{}")
    assert str(result_error.value) == (
        "No result type registered for hook: zzz; register it with `HookRegistry().register_hook`"
    )


@pytest.mark.parametrize(
    ("payload", "result", "reply"),
    [
        (EmailPayload, PluginResult[EmailPayload], None),
        (EmailPayload, EmailResult, None),
        (EmailPayload, PluginResult, None),
        (EmailPayload, PluginResult[PluginPayload], None),
        (EmailPayload, PluginResult[UrgentEmailPayload], None),
        (EmailPayload, PluginResult[Any], None),
        (EmailPayload, PluginResult[Receipt], Receipt),
        (EmailPayload, PluginResult[dict[str, Any]], dict),
        (EmailPayload, PluginResult[Receipt | UrgentEmailPayload], None),
        (EmailPayload, dict, None),
    ],
)
def test_a_hook_has_a_reply_type_when_its_result_declares_another_class(
    registry: HookRegistry, payload: Any, result: Any, reply: Any
) -> None:
    registry.register_hook(HOOK, payload, result)
    assert registry.reply_type(HOOK) is reply


def test_the_built_in_hooks_with_replies(registry: HookRegistry) -> None:
    assert registry.reply_type("http_pre_request") is HttpHeaderPayload
    assert registry.reply_type("http_auth_resolve_user") is dict
    assert registry.reply_type("identity_resolve") is IdentityResult
    assert registry.get_payload_type("identity_resolve") is IdentityPayload
    assert registry.reply_type("tool_pre_invoke") is None
