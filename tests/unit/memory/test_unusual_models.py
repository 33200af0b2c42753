"""Root models and models without declared fields keep what they have in unusual places; copies must not notice."""

from __future__ import annotations

import pytest
from support import manager_of, plugin

from cpex.framework.hooks.headers import HttpHeaderPayload
from cpex.framework.hooks.policies import HookPayloadPolicy
from cpex.framework.hooks.prompts import PromptPosthookPayload
from cpex.framework.hooks.tools import ToolPreInvokePayload
from cpex.framework.memory.grafting import graft
from cpex.framework.models.context import GlobalContext
from cpex.framework.models.copying import copy_tree
from cpex.framework.models.result import PluginResult

HOOK = "tool_pre_invoke"


def test_the_copy_of_a_header_map_is_like_the_original_to_the_last_attribute() -> None:
    headers = HttpHeaderPayload({"A": "1"})
    copied = copy_tree(headers)
    assert vars(copied) == vars(headers) == {"root": {"A": "1"}}
    assert graft(headers, copied) is headers


def test_the_copy_of_structured_data_counts_as_unchanged() -> None:
    payload = PromptPosthookPayload(prompt_id="t", result={"messages": [{"role": "user", "content": {"text": "a"}}]})
    assert graft(payload, copy_tree(payload)) is payload


@pytest.mark.filterwarnings("ignore:.*headers is deprecated:DeprecationWarning")
async def test_headers_that_a_plugin_left_alone_do_not_count_as_changed(caplog: pytest.LogCaptureFixture) -> None:
    async def edit(payload: ToolPreInvokePayload, context: object) -> PluginResult[ToolPreInvokePayload]:
        return PluginResult(modified_payload=payload.model_copy(update={"args": {"x": 2}}))

    policies = {HOOK: HookPayloadPolicy(frozenset({"args"}))}
    manager = manager_of(plugin(edit), hook_policies=policies)
    payload = ToolPreInvokePayload(name="t", args={"x": 1}, headers=HttpHeaderPayload({"A": "1"}))
    result, _ = await manager.invoke_hook(HOOK, payload, GlobalContext(request_id="r"))
    assert result.modified_payload.args == {"x": 2}
    assert "rejected" not in caplog.text
