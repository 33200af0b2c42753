"""The security and privacy plugins in a real pipeline, as a host meets them."""

from __future__ import annotations

from typing import Any

import pytest

from cpex.builtins.guard import Guard
from cpex.builtins.privacy.pii_redaction import PIIRedactionPlugin
from cpex.builtins.security.circuit_breaker import CircuitBreakerPlugin
from cpex.builtins.security.content_policy import ContentPolicyPlugin
from cpex.builtins.security.injection_guard import InjectionGuardPlugin
from cpex.builtins.security.rate_limit import RateLimitPlugin
from cpex.builtins.security.secrets import SecretsPlugin
from cpex.builtins.security.token_budget import TokenBudgetPlugin
from cpex.builtins.security.tool_allow_list import ToolAllowListPlugin
from cpex.framework import (
    AgentPostInvokePayload,
    AgentPreInvokePayload,
    GlobalContext,
    PluginConfig,
    PluginContext,
    PluginPayload,
    PromptPosthookPayload,
    PromptPrehookPayload,
    ResourcePostFetchPayload,
    ResourcePreFetchPayload,
    TenantPluginManager,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)
from cpex.framework.cmf.message import Message, Role, ToolCall, ToolCallContentPart
from cpex.framework.hooks.message import MessagePayload
from cpex.framework.models import Config
from cpex.testing import (
    PluginHarness,
    assert_changed,
    assert_denied,
    assert_unchanged,
    configured,
    make_context,
    make_payload,
)

CLASSES = {
    "budget": TokenBudgetPlugin,
    "policy": ContentPolicyPlugin,
    "redactor": PIIRedactionPlugin,
    "tools": ToolAllowListPlugin,
}


def guards(*names: str, mode: str = "sequential", hook: str = "tool_pre_invoke", **config: Any) -> PluginHarness:
    """These plugins in this order; the settings are the first one's."""
    parts = [
        configured(CLASSES[name], config if number == 0 else {}, name=name, hooks=[hook], mode=mode, priority=number)
        for number, name in enumerate(names)
    ]
    return PluginHarness(*parts)


async def test_what_the_policy_denies_is_refunded_to_the_budget() -> None:
    async with guards("budget", "policy", budget=10) as harness:
        result = await harness.call("tool_pre_invoke", name="t", args={"q": "rm -rf / " * 3})
        assert_denied(result, by="policy")
        assert result.metadata is not None
        assert result.metadata["budget"]["used"] == 9
        await harness.settle()
        # The plugin itself tells what is left.
        context = PluginContext(global_context=make_context())
        again = await harness.plugin.tool_pre_invoke(make_payload("tool_pre_invoke", args={"q": "x" * 10}), context)
        assert again.metadata == {"budget": {"tokens": 5, "used": 5, "remaining": 5}}


async def test_a_later_plugin_sees_redacted_text_and_the_host_keeps_its_own() -> None:
    payload = make_payload("tool_pre_invoke", args={"q": "joe@example.com"})
    async with guards("redactor", "policy") as harness:
        assert_changed(await harness.call("tool_pre_invoke", payload), args={"q": "[EMAIL-REDACTED]"})
    assert payload.args == {"q": "joe@example.com"}


async def test_in_audit_mode_nothing_is_denied_or_changed_but_recorded() -> None:
    async with guards("redactor", "policy", mode="audit") as harness:
        result = await harness.call("tool_pre_invoke", args={"q": "rm -rf / joe@example.com"})
    assert_unchanged(result)
    assert result.metadata is not None
    assert result.metadata["redactor"] == {"pii": {"email": 1}}
    assert [(record.plugin_name, record.requested_allow) for record in result.executions] == [
        ("redactor", True),
        ("policy", False),
    ]


async def test_a_redacted_prompt_is_still_read_by_attribute() -> None:
    prompt = {"messages": [{"role": "user", "content": {"type": "text", "text": "I am joe@example.com"}}]}
    payload = make_payload("prompt_post_fetch", result=prompt)
    async with guards("redactor", hook="prompt_post_fetch") as harness:
        changed = assert_changed(await harness.call("prompt_post_fetch", payload))
    assert changed.result.messages[0].content.text == "I am [EMAIL-REDACTED]"
    assert payload.result.messages[0].content.text == "I am joe@example.com"


async def test_an_agent_is_given_only_allowed_tools() -> None:
    async with guards("tools", hook="agent_pre_invoke", allowed_tools=["a"]) as harness:
        assert_changed(await harness.call("agent_pre_invoke", tools=["a", "b"]), tools=["a"])


SHORT_NAMES: dict[str, type[Guard]] = {
    "security.CircuitBreakerPlugin": CircuitBreakerPlugin,
    "security.ContentPolicyPlugin": ContentPolicyPlugin,
    "security.InjectionGuardPlugin": InjectionGuardPlugin,
    "security.RateLimitPlugin": RateLimitPlugin,
    "security.SecretsPlugin": SecretsPlugin,
    "security.TokenBudgetPlugin": TokenBudgetPlugin,
    "security.ToolAllowListPlugin": ToolAllowListPlugin,
}
PAYLOADS: dict[str, PluginPayload] = {
    "tool_pre_invoke": ToolPreInvokePayload(name="t", args={"q": "x"}),
    "tool_post_invoke": ToolPostInvokePayload(name="t", result={"content": "x"}),
    "prompt_pre_fetch": PromptPrehookPayload(prompt_id="p", args={"q": "x"}),
    "prompt_post_fetch": PromptPosthookPayload(prompt_id="p", result={"messages": []}),
    "resource_pre_fetch": ResourcePreFetchPayload(uri="file:///x"),
    "resource_post_fetch": ResourcePostFetchPayload(uri="file:///x", content="x"),
    "agent_pre_invoke": AgentPreInvokePayload(agent_id="a", messages=[], tools=["t"]),
    "agent_post_invoke": AgentPostInvokePayload(agent_id="a", messages=[]),
}


@pytest.mark.parametrize("name", SHORT_NAMES)
async def test_each_guard_loads_by_its_short_name_and_serves_every_hook_that_it_says(name: str) -> None:
    hooks = list(SHORT_NAMES[name].guards)
    manager = TenantPluginManager(Config(plugins=[PluginConfig(name="g", kind=name, hooks=hooks)]))
    await manager.initialize()
    call = ToolCallContentPart(content=ToolCall(tool_call_id="1", name="t", arguments={"q": "x"}))
    message = MessagePayload(message=Message(role=Role.ASSISTANT, content=[call]))
    for hook in hooks:
        result, _ = await manager.invoke_hook(hook, PAYLOADS.get(hook, message), GlobalContext(request_id="r"))
        assert [record.status.value for record in result.executions] == ["completed"], hook
        assert (result.continue_processing, result.modified_payload) == (True, None), hook
    await manager.shutdown()


@pytest.mark.parametrize("kind", ["privacy.PIIRedactionPlugin", "security.SecretsPlugin"])
async def test_what_an_exception_says_reaches_the_host_redacted(kind: str) -> None:
    said = "login of joe@example.com failed, ghp_" + "aB3" * 12
    manager = TenantPluginManager(
        Config(plugins=[PluginConfig(name="g", kind=kind, mode="transform", hooks=["tool_post_invoke"])])
    )
    await manager.initialize()
    payload = ToolPostInvokePayload(name="t", result=ConnectionError(said))
    result, _ = await manager.invoke_hook("tool_post_invoke", payload, GlobalContext(request_id="r"))
    await manager.shutdown()
    assert result.modified_payload is not None
    assert isinstance(result.modified_payload.result, ConnectionError)
    assert "REDACTED" in str(result.modified_payload.result)
    assert str(payload.result) == said
