"""The security and privacy plugins in a real manager, as a host meets them."""

from __future__ import annotations

from typing import Any

from cpex.builtins.security.token_budget import TokenBudgetPlugin
from cpex.framework import (
    AgentPreInvokePayload,
    GlobalContext,
    PluginConfig,
    PluginContext,
    PromptPosthookPayload,
    TenantPluginManager,
    ToolPreInvokePayload,
)
from cpex.framework.models import Config

KINDS = {
    "budget": "cpex.builtins.security.token_budget.TokenBudgetPlugin",
    "policy": "cpex.builtins.security.content_policy.ContentPolicyPlugin",
    "redactor": "cpex.builtins.privacy.pii_redaction.PIIRedactionPlugin",
    "tools": "cpex.builtins.security.tool_allow_list.ToolAllowListPlugin",
}


def guards(*names: str, mode: str = "sequential", hook: str = "tool_pre_invoke", **config: Any) -> TenantPluginManager:
    """A manager of these plugins in this order; the configuration goes to the first."""
    plugins = [
        PluginConfig(
            name=name, kind=KINDS[name], hooks=[hook], mode=mode, priority=number, config=config if number == 0 else {}
        )
        for number, name in enumerate(names)
    ]
    return TenantPluginManager(Config(plugins=plugins))


def call(text: str) -> ToolPreInvokePayload:
    return ToolPreInvokePayload(name="t", args={"q": text})


async def test_what_the_policy_denies_is_refunded_to_the_budget() -> None:
    manager = guards("budget", "policy", budget=10)
    await manager.initialize()
    result, _ = await manager.invoke_hook("tool_pre_invoke", call("rm -rf / " * 3), GlobalContext(request_id="r1"))
    assert result.violation is not None
    assert (result.violation.plugin_name, result.metadata["budget"]["used"]) == ("policy", 9)
    budget = manager.get_plugin("budget")
    await manager.shutdown()
    # Shutting down has drained the outcomes; the plugin itself tells what is left.
    assert isinstance(budget, TokenBudgetPlugin)
    context = PluginContext(global_context=GlobalContext(request_id="r2"))
    again = await budget.tool_pre_invoke(call("x" * 10), context)
    assert again.metadata == {"budget": {"tokens": 5, "used": 5, "remaining": 5}}


async def test_a_later_plugin_sees_redacted_text_and_the_host_keeps_its_own() -> None:
    manager = guards("redactor", "policy")
    await manager.initialize()
    payload = call("joe@example.com")
    result, _ = await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id="r1"))
    await manager.shutdown()
    assert result.modified_payload is not None
    assert result.modified_payload.args == {"q": "[EMAIL-REDACTED]"}
    assert payload.args == {"q": "joe@example.com"}


async def test_in_audit_mode_nothing_is_denied_or_changed_but_recorded() -> None:
    manager = guards("redactor", "policy", mode="audit")
    await manager.initialize()
    payload = call("rm -rf / joe@example.com")
    result, _ = await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id="r1"))
    await manager.shutdown()
    assert (result.continue_processing, result.modified_payload) == (True, None)
    assert result.metadata["redactor"] == {"pii": {"email": 1}}
    assert [(record.plugin_name, record.requested_allow) for record in result.executions] == [
        ("redactor", True),
        ("policy", False),
    ]


async def test_a_redacted_prompt_is_still_read_by_attribute() -> None:
    manager = guards("redactor", hook="prompt_post_fetch")
    await manager.initialize()
    prompt = {"messages": [{"role": "user", "content": {"type": "text", "text": "I am joe@example.com"}}]}
    payload = PromptPosthookPayload(prompt_id="p", result=prompt)
    result, _ = await manager.invoke_hook("prompt_post_fetch", payload, GlobalContext(request_id="r1"))
    await manager.shutdown()
    assert result.modified_payload is not None
    assert result.modified_payload.result.messages[0].content.text == "I am [EMAIL-REDACTED]"
    assert payload.result.messages[0].content.text == "I am joe@example.com"


async def test_an_agent_is_given_only_allowed_tools() -> None:
    manager = guards("tools", hook="agent_pre_invoke", allowed_tools=["a"])
    await manager.initialize()
    payload = AgentPreInvokePayload(agent_id="x", messages=[], tools=["a", "b"])
    result, _ = await manager.invoke_hook("agent_pre_invoke", payload, GlobalContext(request_id="r1"))
    await manager.shutdown()
    assert result.modified_payload is not None
    assert result.modified_payload.tools == ["a"]
