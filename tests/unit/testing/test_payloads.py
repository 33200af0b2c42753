"""Payloads and contexts with defaults."""

from __future__ import annotations

from typing import Any

import pytest

from cpex.framework.base import hook_name
from cpex.framework.hooks.registry import get_hook_registry
from cpex.testing import make_context, make_payload

HOOKS = [hook_name(each) for each in get_hook_registry().get_registered_hooks()]


@pytest.mark.parametrize("hook", HOOKS)
def test_every_built_in_hook_has_a_payload_without_a_word(hook: str) -> None:
    assert type(make_payload(hook)) is get_hook_registry().get_payload_type(hook)


def test_given_fields_stand_and_the_rest_is_filled() -> None:
    payload = make_payload("tool_post_invoke", result={"rows": 3})
    assert (payload.name, payload.result) == ("tool", {"rows": 3})


def test_a_message_is_made_of_text() -> None:
    payload = make_payload("cmf.llm_input", text="my card")
    assert [part.text for part in payload.message.content] == ["my card"]


def test_a_misspelt_field_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        TypeError, match=r"^the payload of `tool_pre_invoke` \(ToolPreInvokePayload\) has no field `arg"
    ):
        make_payload("tool_pre_invoke", argz={})
    with pytest.raises(TypeError, match=r"known: name, args, headers$"):
        make_payload("tool_pre_invoke", zebra={})


@pytest.mark.parametrize(
    ("hook", "fields", "text"),
    [
        ("tool_pre_invok", {}, "did you mean `tool_pre_invoke`"),
        ("tool_pre_invoke", {"args": "x"}, "no payload of `tool_pre_invoke` can be made: ToolPreInvokePayload: args:"),
    ],
)
def test_what_cannot_be_made_is_refused_with_the_reason(hook: str, fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        make_payload(hook, **fields)


def test_each_context_is_a_request_of_its_own() -> None:
    first, second = make_context(), make_context(session="s", metadata={"more": 1}, tenant_id="t")
    assert first.request_id != second.request_id
    assert (second.metadata, second.tenant_id) == ({"session_id": "s", "more": 1}, "t")
    with pytest.raises(TypeError, match=r"^a request has no field `tenant`; known: request_id"):
        make_context(tenant="t")
