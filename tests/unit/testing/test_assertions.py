"""Assertions say what happened instead."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cpex.framework import PluginResult
from cpex.testing import (
    PluginHarness,
    allow,
    assert_allowed,
    assert_changed,
    assert_denied,
    assert_unchanged,
    denial,
    deny,
    make_payload,
    plugin_of,
    record_of,
)

CHANGED: PluginResult[Any] = PluginResult(modified_payload=make_payload("tool_pre_invoke", args={"q": "x" * 500}))


@pytest.mark.parametrize(
    ("assertion", "text"),
    [
        (
            lambda: assert_allowed(denial()),
            "expected the call to be allowed, but it was denied with code `NO`: because; plugins that took part: none",
        ),
        (
            lambda: assert_denied(PluginResult(), "NO", by="guard"),
            "expected a denial with code `NO` by `guard`, but the call was allowed and unchanged; "
            "plugins that took part: none",
        ),
        (
            lambda: assert_denied(denial("OTHER"), "NO"),
            "expected a denial with code `NO`, but the call was denied with code `OTHER`: because; "
            "plugins that took part: none",
        ),
        (
            lambda: assert_denied(denial(), reason="nonsense"),
            "expected a denial for the reason `nonsense`, but the call was denied with code `NO`: because; "
            "plugins that took part: none",
        ),
        (
            lambda: assert_denied(PluginResult(continue_processing=False)),
            "expected a denial, but the call was denied without a violation; plugins that took part: none",
        ),
        (
            lambda: assert_changed(PluginResult()),
            "expected a changed payload, but the call was allowed and unchanged; plugins that took part: none",
        ),
        (
            lambda: assert_changed(CHANGED, name="other"),
            "expected `name` to become 'other', but it is 'tool'",
        ),
        (lambda: record_of([], "guard"), "expected one record of `guard`, found 0; records of: none"),
    ],
)
def test_a_failed_assertion_tells_what_was_expected_and_what_happened(assertion: Callable[[], Any], text: str) -> None:
    with pytest.raises(AssertionError) as caught:
        assertion()
    assert str(caught.value) == text


def test_long_values_are_cut() -> None:
    with pytest.raises(AssertionError) as caught:
        assert_unchanged(CHANGED)
    assert len(str(caught.value)) < 300


async def test_the_plugins_of_a_real_call_are_named() -> None:
    async with PluginHarness(plugin_of(allow, "first", priority=1), plugin_of(deny, "guard")) as harness:
        result = await harness.call("tool_pre_invoke")
    assert assert_denied(result, "NO", reason="because", by="guard").description == "it is so"
    with pytest.raises(AssertionError) as caught:
        assert_allowed(result)
    assert str(caught.value).endswith(
        "denied by `guard` with code `NO`: because; plugins that took part: "
        "first (sequential): completed, guard (sequential): completed"
    )
