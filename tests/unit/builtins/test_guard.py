from __future__ import annotations

import base64
import subprocess
import sys
from typing import Any

import pytest

from cpex.builtins.content import GUARDED_HOOKS, MESSAGE_HOOKS
from cpex.builtins.guard import Guard, GuardedCall
from cpex.builtins.privacy.pii_redaction import PIIRedactionPlugin
from cpex.builtins.security.content_policy import ContentPolicyPlugin
from cpex.builtins.security.injection_guard import InjectionGuardPlugin
from cpex.builtins.security.secrets import SecretsPlugin
from cpex.framework import (
    GlobalContext,
    PluginConfig,
    PluginContext,
    PluginMode,
    PluginResult,
    TenantPluginManager,
    ToolPreInvokePayload,
    get_hook_registry,
)
from cpex.framework.cmf.message import (
    DocumentContentPart,
    DocumentSource,
    ImageContentPart,
    ImageSource,
    Message,
    Role,
    TextContent,
    ToolCall,
    ToolCallContentPart,
)
from cpex.framework.hooks.message import MessageHookType, MessagePayload
from cpex.framework.models import Config


class Listening(Guard):
    """Tells what it was given."""

    guards = GUARDED_HOOKS

    async def on_hook(self, call: GuardedCall) -> PluginResult[Any]:
        places = [(leaf.path, leaf.text) for leaf in call.texts()]
        return PluginResult(metadata={self.name: {"hook": call.hook, "stage": call.stage, "texts": places}})


def message(*parts: Any, hook: str = "evaluate") -> MessagePayload:
    return MessagePayload(message=Message(role=Role.ASSISTANT, content=list(parts)), hook=MessageHookType(hook))


def test_every_hook_with_content_is_one_that_the_framework_has() -> None:
    known = get_hook_registry().get_registered_hooks()
    assert set(GUARDED_HOOKS) <= set(known)
    assert set(MESSAGE_HOOKS) == {hook for hook in known if hook.startswith("cmf.")} | {"evaluate"}


@pytest.mark.parametrize("hook", MESSAGE_HOOKS)
async def test_a_guard_reads_messages_on_every_hook_that_has_them(hook: str) -> None:
    config = PluginConfig(name="g", kind=f"{__name__}.Listening", hooks=[hook])
    manager = TenantPluginManager(Config())
    manager._registry.register(Listening(config))
    manager._initialized = True
    call = ToolCallContentPart(content=ToolCall(tool_call_id="7", name="get", arguments={"q": ["deep"]}))
    payload = message(TextContent(text="hello"), call)
    result, _ = await manager.invoke_hook(hook, payload, GlobalContext(request_id="r"))
    seen = (result.metadata or {})["g"]
    assert (seen["hook"], seen["stage"]) == (hook, hook.removeprefix("cmf."))
    assert ("content[0].text", "hello") in seen["texts"]
    assert ("content[1].content.arguments.q[0]", "deep") in seen["texts"]
    assert "7" not in [text for _, text in seen["texts"]], "ids are no content"


def test_the_data_of_a_medium_are_read_only_for_the_text_in_them() -> None:
    def texts(part_class: Any, source: Any) -> list[str]:
        context = PluginContext(global_context=GlobalContext(request_id="r"))
        call = GuardedCall("evaluate", message(part_class(content=source)), context)
        return [leaf.text for leaf in call.texts()]

    image = base64.b64encode(bytes(range(256)) * 4).decode()
    document = base64.b64encode(b"read me").decode()
    assert texts(ImageContentPart, ImageSource(type="base64", data=image)) == []
    assert texts(DocumentContentPart, DocumentSource(type="base64", data=document)) == ["read me"]
    assert texts(ImageContentPart, ImageSource(type="url", data="https://x.example/a.png")) == [
        "https://x.example/a.png"
    ]
    assert texts(ImageContentPart, ImageSource(type="base64", data="no data but words")) == ["no data but words"]


async def test_a_guard_reads_payloads_of_the_single_families() -> None:
    guard = Listening(PluginConfig(name="g", kind="x.Y", hooks=["tool_pre_invoke"]))
    context = PluginContext(global_context=GlobalContext(request_id="r"))
    result = await guard.tool_pre_invoke(ToolPreInvokePayload(name="t", args={"q": "x"}), context)
    assert (result.metadata or {})["g"]["texts"] == [("args[key]", "q"), ("args.q", "x")]


def test_the_host_says_where_an_evaluated_message_stands() -> None:
    context = PluginContext(global_context=GlobalContext(request_id="r"))
    payload = message(hook="tool_post_invoke")
    assert GuardedCall("evaluate", payload, context).stage == "tool_post_invoke"
    assert GuardedCall("cmf.llm_input", payload, context).stage == "llm_input"


REDACTS = "has `action: redact` and changes nothing in mode {}; for it to act, use mode transform or sequential"
CLEANS = REDACTS.replace("redact", "clean")
BLOCKS = "has `action: block` and denies nothing in mode {}; for it to act, use mode sequential or concurrent"
SECRETS, PII, INJECTION = SecretsPlugin, PIIRedactionPlugin, InjectionGuardPlugin


@pytest.mark.parametrize(
    ("cls", "settings", "mode", "told"),
    [
        *((SECRETS, {}, mode, REDACTS) for mode in ("audit", "concurrent", "fire_and_forget")),
        *((SECRETS, {"action": "block"}, mode, BLOCKS) for mode in ("transform", "audit", "fire_and_forget")),
        *((SECRETS, {"action": "block"}, mode, None) for mode in ("sequential", "concurrent", "disabled")),
        *((SECRETS, {"action": "redact"}, mode, None) for mode in ("sequential", "transform", "disabled")),
        (PII, {}, "audit", REDACTS),
        (PII, {"action": "block"}, "transform", BLOCKS),
        (INJECTION, {"action": "clean"}, "audit", CLEANS),
        # A trial, as its page advises it.
        (INJECTION, {}, "audit", None),
        (INJECTION, {"action": "report"}, "fire_and_forget", None),
        (ContentPolicyPlugin, {"blocked_words": ["secret"]}, "audit", None),
    ],
)
def test_an_action_that_the_mode_makes_nothing_of_is_warned_of(
    caplog: pytest.LogCaptureFixture, cls: type[Guard], settings: dict[str, Any], mode: str, told: str | None
) -> None:
    cls(PluginConfig(name="g", kind="x.Y", mode=PluginMode(mode), hooks=["tool_post_invoke"], config=settings))
    assert caplog.messages == ([f"Plugin 'g' {told.format(mode)}"] if told else [])


def test_guards_load_no_messages_before_there_is_one() -> None:
    code = (
        "import sys, cpex.builtins.guard as g, cpex.builtins.content as c, cpex.framework as f\n"
        "c.content_of(f.ToolPreInvokePayload(name='t'))\n"
        "print('cpex.framework.cmf.message' in sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    assert run.stdout == "False\n"
