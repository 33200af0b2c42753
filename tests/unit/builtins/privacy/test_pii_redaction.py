from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from cpex.builtins.content import CONTENT_HOOKS, MESSAGE_HOOKS
from cpex.builtins.privacy.pii_redaction import PIIRedactionPlugin
from cpex.builtins.text import StructureTooLargeError
from cpex.framework import (
    AgentPostInvokePayload,
    AgentPreInvokePayload,
    GlobalContext,
    PluginConfig,
    PluginContext,
    PluginPayload,
    PluginResult,
    PluginViolation,
    PromptPosthookPayload,
    PromptPrehookPayload,
    ResourcePostFetchPayload,
    ResourcePreFetchPayload,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)
from cpex.framework.cmf.message import (
    Message,
    PromptResult,
    PromptResultContentPart,
    Resource,
    ResourceContentPart,
    ResourceRefContentPart,
    ResourceReference,
    ResourceType,
    Role,
    TextContent,
    ToolCall,
    ToolCallContentPart,
    ToolResult,
    ToolResultContentPart,
)
from cpex.framework.hooks.message import MessagePayload

Configure = Callable[..., PluginConfig]

CARD, MAIL, PHONE, SSN = "4111 1111 1111 1111", "joe@example.com", "212-736-5000", "123-45-6789"
IBAN, IP = "GB82 WEST 1234 5698 7654 32", "10.20.30.40"
KEY = "a secret of some length"


async def redact(plugin: PIIRedactionPlugin, value: Any) -> Any:
    """What becomes of a tool's result."""
    context = PluginContext(global_context=GlobalContext(request_id="r"))
    result = await plugin.tool_post_invoke(ToolPostInvokePayload(name="t", result=value), context)
    return value if result.modified_payload is None else result.modified_payload.result


async def test_every_type_is_replaced_by_its_label(configure: Configure) -> None:
    text = f"{CARD}; {MAIL}; {PHONE}; {SSN}; {IBAN}; {IP}"
    assert await redact(PIIRedactionPlugin(configure()), text) == (
        "[CARD-REDACTED]; [EMAIL-REDACTED]; [PHONE-REDACTED]; [SSN-REDACTED]; [IBAN-REDACTED]; [IP-REDACTED]"
    )


async def test_nested_values_and_keys_are_redacted_and_counted(configure: Configure, context: PluginContext) -> None:
    args = {"to": [MAIL, {"cc": (MAIL, None, True, 2.5)}], MAIL: {"card": CARD}, "note": "nothing"}
    before = copy.deepcopy(args)
    payload = ToolPreInvokePayload(name="t", args=args)
    result = await PIIRedactionPlugin(configure()).tool_pre_invoke(payload, context)
    assert result.continue_processing
    assert result.modified_payload is not None
    assert result.modified_payload.args == {
        "to": ["[EMAIL-REDACTED]", {"cc": ("[EMAIL-REDACTED]", None, True, 2.5)}],
        "[EMAIL-REDACTED]": {"card": "[CARD-REDACTED]"},
        "note": "nothing",
    }
    assert result.metadata == {"guard": {"pii": {"email": 3, "card": 1}}}
    assert payload.args == args == before


async def test_a_payload_without_personal_data_is_left_as_it_is(configure: Configure, context: PluginContext) -> None:
    payload = ToolPreInvokePayload(name="t", args={"date": "2024-05-20", "at": "06:00:00", "id": 4421486, "n": None})
    result = await PIIRedactionPlugin(configure()).tool_pre_invoke(payload, context)
    assert (result.modified_payload, result.metadata) == (None, {})


PAYLOADS: dict[str, tuple[PluginPayload, str]] = {
    "tool_pre_invoke": (ToolPreInvokePayload(name="t", args={"a": MAIL}), "args"),
    "tool_post_invoke": (ToolPostInvokePayload(name="t", result=MAIL), "result"),
    "prompt_pre_fetch": (PromptPrehookPayload(prompt_id="p", args={"a": MAIL}), "args"),
    "prompt_post_fetch": (PromptPosthookPayload(prompt_id="p", result={"messages": [{"text": MAIL}]}), "result"),
    "resource_pre_fetch": (ResourcePreFetchPayload(uri=f"db:{MAIL}", metadata={"a": MAIL}), "metadata"),
    "resource_post_fetch": (ResourcePostFetchPayload(uri="db:1", content=MAIL.encode()), "content"),
    "agent_pre_invoke": (AgentPreInvokePayload(agent_id="a", messages=[{"content": MAIL}]), "messages"),
    "agent_post_invoke": (AgentPostInvokePayload(agent_id="a", messages=[], tool_calls=[{"q": MAIL}]), "tool_calls"),
}


@pytest.mark.parametrize("hook", CONTENT_HOOKS)
async def test_every_hook_that_carries_content_is_covered(
    configure: Configure, context: PluginContext, hook: str
) -> None:
    payload, field = PAYLOADS[hook]
    result: PluginResult[Any] = await getattr(PIIRedactionPlugin(configure()), hook)(payload, context)
    changed = result.modified_payload
    assert type(changed) is type(payload)
    assert MAIL not in str(getattr(changed, field))
    assert "[EMAIL-REDACTED]" in str(getattr(changed, field))
    assert getattr(changed, "uri", "") == getattr(payload, "uri", ""), "what is fetched stays the same"
    assert result.metadata == {"guard": {"pii": {"email": 1}}}


async def test_a_mask_keeps_the_shape_and_the_end(configure: Configure) -> None:
    plugin = PIIRedactionPlugin(configure(mode="mask"))
    assert [await redact(plugin, text) for text in (CARD, MAIL, PHONE, SSN, IBAN, IP)] == [
        "**** **** **** 1111",
        "j***@example.com",
        "***-***-5000",
        "***-**-6789",
        "**** **** **** **** **54 32",
        "**.**.**.**",
    ]


async def test_a_hash_is_equal_for_equal_data_under_one_key(configure: Configure) -> None:
    plugin = PIIRedactionPlugin(configure(mode="hash", hash_key=KEY))
    one, two = await redact(plugin, CARD), await redact(plugin, CARD.replace(" ", "-"))
    assert one == two
    assert one.startswith("[CARD-REDACTED#")
    assert one != await redact(plugin, "5500 0000 0000 0004")
    assert one != await redact(PIIRedactionPlugin(configure(mode="hash", hash_key=KEY[::-1])), CARD)


async def test_labels_types_and_exceptions_can_be_set(configure: Configure) -> None:
    plugin = PIIRedactionPlugin(
        configure(
            types=["email", "ip"],
            replacements={"ip": "<address>"},
            allow=["*@EXAMPLE.com"],
            exempt_keys=["Recipient*"],
            redact_keys=False,
        )
    )
    value = {"recipient_mail": "ann@x.org", "text": f"{MAIL} ann@x.org {IP} {CARD}", IP: 1}
    assert await redact(plugin, value) == {
        "recipient_mail": "ann@x.org",
        "text": f"{MAIL} [EMAIL-REDACTED] <address> {CARD}",
        IP: 1,
    }


async def test_integers_are_cards_by_network_and_social_security_numbers_by_key(configure: Configure) -> None:
    value = {"card": 4111111111111111, "id": 2127365000, "nine": 123456789, "ssn": [123456789], "big": 10**400}
    assert await redact(PIIRedactionPlugin(configure()), value) == {
        "card": "[CARD-REDACTED]",
        "id": 2127365000,
        "nine": 123456789,
        "ssn": ["[SSN-REDACTED]"],
        "big": 10**400,
    }
    assert await redact(PIIRedactionPlugin(configure(numbers=False)), value) == value
    assert await redact(PIIRedactionPlugin(configure(allow=["4111*"], exempt_keys=["ssn"])), value) == value
    assert await redact(PIIRedactionPlugin(configure(types=["email"])), value) == value


async def test_with_action_block_the_call_is_denied_with_the_counts_only(
    configure: Configure, context: PluginContext
) -> None:
    plugin = PIIRedactionPlugin(configure(action="block"))
    result = await plugin.tool_pre_invoke(ToolPreInvokePayload(name="t", args={"a": [MAIL, CARD, MAIL]}), context)
    assert result.modified_payload is None
    assert result.violation == PluginViolation(
        reason="Personal data found: card, email",
        description="The content holds personal data that must not be passed on.",
        code="PII_DETECTED",
        details={"pii": {"email": 2, "card": 1}},
    )
    uri = ResourcePreFetchPayload(uri=f"db:{MAIL}")
    assert not (await plugin.resource_pre_fetch(uri, context)).continue_processing
    clean = ToolPreInvokePayload(name="t", args={"a": "x"})
    assert (await plugin.tool_pre_invoke(clean, context)).continue_processing


async def test_content_that_cannot_be_searched_is_an_error_not_a_pass(configure: Configure) -> None:
    loop: list[Any] = []
    loop.append(loop)
    payload = ToolPostInvokePayload.model_construct(name="t", result=loop)
    context = PluginContext(global_context=GlobalContext(request_id="r"))
    with pytest.raises(StructureTooLargeError):
        await PIIRedactionPlugin(configure()).tool_post_invoke(payload, context)


def message(*parts: Any) -> MessagePayload:
    return MessagePayload(message=Message(role=Role.ASSISTANT, content=list(parts)))


@pytest.mark.parametrize("hook", MESSAGE_HOOKS)
async def test_every_part_of_a_message_is_redacted_and_names_are_kept(
    configure: Configure, context: PluginContext, hook: str
) -> None:
    call = ToolCall(
        tool_call_id="1", name="mail", arguments={MAIL: [f"to {MAIL}"], "card": 4111111111111111, "id": 2127365000}
    )
    document = Resource(
        resource_request_id="2", uri=f"file:///{MAIL}", resource_type=ResourceType.FILE, blob=MAIL.encode()
    )
    inner = Message(role=Role.USER, content=[TextContent(text=PHONE)])
    prompt = PromptResult(prompt_request_id="3", prompt_name="p", messages=[inner])
    payload = message(
        TextContent(text=f"write to {MAIL}"),
        ToolCallContentPart(content=call),
        ResourceContentPart(content=document),
        PromptResultContentPart(content=prompt),
        ToolResultContentPart(content=ToolResult(tool_call_id="1", tool_name="mail", content={"ip": IP})),
    )
    result = await getattr(PIIRedactionPlugin(configure()), hook)(payload, context)
    text, called, resource, rendered, answer = result.modified_payload.message.content
    assert text.text == "write to [EMAIL-REDACTED]"
    assert called.content.name == "mail"
    assert called.content.arguments == {
        "[EMAIL-REDACTED]": ["to [EMAIL-REDACTED]"],
        "card": "[CARD-REDACTED]",
        "id": 2127365000,
    }
    assert (resource.content.uri, resource.content.blob) == (document.uri, b"[EMAIL-REDACTED]")
    assert rendered.content.messages[0].content[0].text == "[PHONE-REDACTED]"
    assert answer.content.content == {"ip": "[IP-REDACTED]"}
    assert result.metadata == {"guard": {"pii": {"email": 4, "card": 1, "phone": 1, "ip": 1}}}
    assert payload.message.content[0].text == f"write to {MAIL}"


async def test_a_message_without_personal_data_is_left_as_it_is(configure: Configure, context: PluginContext) -> None:
    result = await PIIRedactionPlugin(configure()).evaluate(message(TextContent(text="nothing at 06:00:00")), context)
    assert (result.modified_payload, result.metadata) == (None, {})


async def test_an_address_in_a_message_is_reason_enough_to_block(configure: Configure, context: PluginContext) -> None:
    reference = ResourceReference(resource_request_id="2", uri=f"db:{MAIL}", resource_type=ResourceType.URI)
    payload = message(ResourceRefContentPart(content=reference))
    result = await PIIRedactionPlugin(configure(action="block")).evaluate(payload, context)
    assert result.violation is not None
    assert result.violation.details == {"pii": {"email": 1}}
    assert (await PIIRedactionPlugin(configure()).evaluate(payload, context)).modified_payload is None


async def test_tokens_in_a_message_to_a_tool_come_back_in_its_answer(
    configure: Configure, context: PluginContext
) -> None:
    plugin = PIIRedactionPlugin(configure(mode="tokenise"))
    call = ToolCall(tool_call_id="1", name="mail", arguments={"to": MAIL})
    sent = await getattr(plugin, "cmf.tool_pre_invoke")(message(ToolCallContentPart(content=call)), context)
    token = sent.modified_payload.message.content[0].content.arguments["to"]
    assert token.startswith("[EMAIL-TOKEN#")
    answer = ToolResult(tool_call_id="1", tool_name="mail", content=f"sent to {token}, not to ann@example.org")
    got = await getattr(plugin, "cmf.tool_post_invoke")(message(ToolResultContentPart(content=answer)), context)
    assert got.modified_payload.message.content[0].content.content == f"sent to {MAIL}, not to [EMAIL-REDACTED]"


MODES: list[dict[str, Any]] = [
    {},
    {"mode": "mask"},
    {"mode": "hash", "hash_key": KEY},
    {"mode": "tokenise"},
    {"mode": "tokenise", "max_tokens": 1, "modes": {"phone": "mask"}},
    {"replacements": {"card": "", "email": "x", "phone": " "}},
]


@settings(max_examples=200)
@given(
    parts=st.lists(
        st.sampled_from([CARD, MAIL, PHONE, SSN, IBAN, IP, "+44 20 7946 0958", "fe80::1", "1111", " ", "-", "."])
        | st.text("0123456789 -.:@()+aF", max_size=6),
        max_size=8,
    ),
    mode=st.sampled_from(MODES),
)
async def test_redacting_twice_is_the_same_as_redacting_once(parts: list[str], mode: dict[str, Any]) -> None:
    plugin = PIIRedactionPlugin(PluginConfig(name="guard", kind="x.Y", config=mode))
    once = await redact(plugin, "".join(parts))
    assert await redact(plugin, once) == once


async def test_a_text_that_does_not_come_clean_is_withheld_whole(configure: Configure) -> None:
    # Glued to its neighbour each number hides until that one is gone, so every look finds just one more.
    text = "1(212) 736-5000x" * 40
    plugin = PIIRedactionPlugin(configure())
    found = await redact(plugin, {"log": text, "note": f"call {PHONE}"})
    assert found == {"log": "[PII-REDACTED]", "note": "call [PHONE-REDACTED]"}


@pytest.mark.parametrize(
    ("settings_", "part"),
    [
        ({"type": ["email"]}, "type"),
        ({"types": ["emial"]}, "types.0"),
        ({"types": []}, "nothing is looked for; name `types` or `presidio`, or take the plugin out"),
        ({"mode": "hash"}, "mode `hash` needs `hash_key`, a secret of at least 16 characters"),
        ({"mode": "hash", "hash_key": "short"}, "the secret is shorter than 16 characters; make one with"),
        ({"modes": {"ip": "hash"}}, "mode `hash` needs `hash_key`, a secret of at least 16 characters"),
        ({"mode": "tokenise", "store": "x.db"}, "tokens in a `store` need `token_key`, a secret of at least 16"),
        ({"presidio": {}}, "`presidio` finds nothing by itself; name `recognizers`, or the function of an `analyzer`"),
        (
            {"replacements": {"email": "x@y.org"}},
            "replacement for `email` has a digit, `@` or `:` and could be taken for personal data",
        ),
    ],
)
def test_settings_that_make_no_sense_stop_the_start(configure: Configure, settings_: dict[str, Any], part: str) -> None:
    with pytest.raises(ValidationError) as raised:
        PIIRedactionPlugin(configure(**settings_))
    assert part in str(raised.value)


def test_a_region_without_a_numbering_plan_stops_the_start(configure: Configure) -> None:
    with pytest.raises(ValueError) as raised:
        PIIRedactionPlugin(configure(phone_regions=["US", "Germany"]))
    assert str(raised.value) == "unknown phone region `Germany`; write two upper-case letters, such as US or DE"


@pytest.mark.parametrize(
    ("settings_", "module", "message"),
    [
        (
            {"presidio": {"recognizers": ["CryptoRecognizer"]}},
            "presidio_analyzer",
            "`presidio` needs the library `presidio-analyzer`, which is not installed; "
            "run `pip install cpex[presidio]`",
        ),
        (
            {"mode": "tokenise", "store": "tokens.db", "token_key": KEY},
            "cryptography.fernet",
            "tokens in a store are sealed with `cryptography`, which is not installed; run `pip install cpex[pii]`",
        ),
    ],
)
def test_a_library_that_is_not_installed_is_named_with_its_extra(
    configure: Configure,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    settings_: dict[str, Any],
    module: str,
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    # What the import system keeps of a module that is not there.
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError) as raised:
        PIIRedactionPlugin(configure(**settings_))
    assert str(raised.value) == message
