from __future__ import annotations

import pytest

from cpex.framework.models.context import GlobalContext, PluginContext, PluginContextTable
from cpex.tools.run.requests import OpenRequests


def context(request_id: str = "r", **state: object) -> GlobalContext:
    return GlobalContext(request_id=request_id, state=dict(state))


def table(request_id: str = "r") -> PluginContextTable:
    return {f"{request_id}plugin": PluginContext(global_context=context(request_id))}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("tool_pre_invoke", "tool_post_invoke"),
        ("http_pre_request", "http_post_request"),
        ("cmf.llm_input", "cmf.llm_output"),
        ("email_pre_send", "email_post_send"),
    ],
)
def test_contexts_and_shared_state_flow_from_pre_to_post_and_are_then_forgotten(before: str, after: str) -> None:
    requests = OpenRequests()
    contexts = table()
    assert requests.resume(context()) is None
    requests.keep(before, context(seen=1, kept=1), contexts, allowed=True)
    later = context(seen=2)
    assert requests.resume(later) is contexts
    assert later.state == {"seen": 2, "kept": 1}
    requests.keep(after, later, contexts, allowed=True)
    assert requests.resume(context()) is None
    assert len(requests) == 0


def test_a_request_with_several_operations_is_open_until_the_last_has_ended() -> None:
    requests = OpenRequests()
    for hook in ("http_pre_request", "tool_pre_invoke", "tool_pre_invoke", "tool_post_invoke", "tool_post_invoke"):
        requests.keep(hook, context(), table(), allowed=True)
    assert len(requests) == 1
    requests.keep("http_post_request", context(), table(), allowed=True)
    assert len(requests) == 0


def test_what_was_denied_is_not_waited_for() -> None:
    requests = OpenRequests()
    requests.keep("tool_pre_invoke", context(), table(), allowed=False)
    assert len(requests) == 1
    requests.keep("tool_pre_invoke", context(), table(), allowed=True)
    requests.keep("tool_post_invoke", context(), table(), allowed=True)
    assert len(requests) == 0


def test_the_oldest_request_is_forgotten_when_too_many_are_open() -> None:
    requests = OpenRequests(limit=2)
    for name in ("a", "b", "a", "c"):
        requests.keep("tool_pre_invoke", context(name), table(name), allowed=True)
    assert len(requests) == 2
    assert requests.resume(context("a")) is None
    assert requests.resume(context("b")) is not None


def test_a_failed_call_leaves_earlier_contexts_alone() -> None:
    requests = OpenRequests()
    contexts = table()
    requests.keep("tool_pre_invoke", context(), contexts, allowed=True)
    requests.keep("evaluate", context(), None, allowed=False)
    assert requests.resume(context()) is contexts
