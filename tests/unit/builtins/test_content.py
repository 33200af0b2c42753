from __future__ import annotations

import pytest

from cpex.builtins.content import AFTER_HOOKS, BEFORE_HOOKS, CONTENT_HOOKS, content_of
from cpex.framework import HttpAuthCheckPermissionPayload, ToolPreInvokePayload


class RoutedTool(ToolPreInvokePayload):
    route: str = ""


def test_a_payload_of_a_derived_class_carries_what_its_base_carries() -> None:
    payload = RoutedTool(name="t", args={"q": "x"}, route="r")
    assert content_of(payload).hook == "tool_pre_invoke"
    assert content_of(payload).values(payload) == {"args": {"q": "x"}}


def test_a_field_without_content_is_left_out() -> None:
    assert content_of(payload := ToolPreInvokePayload(name="t", args=None)).values(payload) == {}


def test_a_payload_without_content_is_refused_by_name() -> None:
    with pytest.raises(TypeError, match="`HttpAuthCheckPermissionPayload` carries no content"):
        content_of(HttpAuthCheckPermissionPayload(user_email="a@b.co", permission="read"))


def test_every_content_hook_is_either_before_or_after() -> None:
    assert sorted(BEFORE_HOOKS + AFTER_HOOKS) == sorted(CONTENT_HOOKS)
