"""Which written fields are taken over."""

from typing import Any

import pytest

from cpex.framework.hooks.http import HttpHeaderPayload
from cpex.framework.hooks.policies import DefaultHookPolicy, HookPayloadPolicy, apply_policy, doubts
from cpex.framework.hooks.tools import ToolPreInvokePayload
from cpex.framework.manager import TenantPluginManager
from cpex.framework.memory import CopyOnWriteDict, CopyOnWriteList
from cpex.framework.models.config import Config
from cpex.framework.models.payload import PluginPayload

ARGS = HookPayloadPolicy(frozenset({"args"}))


class Holder(PluginPayload):
    items: Any = None


def test_a_policy_is_frozen_and_refuses_a_bare_text() -> None:
    policy: Any = HookPayloadPolicy(writable_fields=frozenset({"args"}))
    with pytest.raises(AttributeError):
        policy.writable_fields = frozenset()
    bare: Any = "args"
    with pytest.raises(TypeError) as caught:
        HookPayloadPolicy(bare)
    assert str(caught.value) == (
        "writable fields of a hook policy must be a set of names, not the text `args`; write frozenset({'args'})"
    )


def test_writable_fields_cannot_be_added_to_later() -> None:
    fields: Any = ["args"]
    policy = HookPayloadPolicy(fields)
    fields.append("name")
    assert policy.writable_fields == frozenset({"args"})


def test_a_policy_that_cannot_mean_anything_is_told_with_what_was_meant() -> None:
    policies = {
        "tool_pre_invok": ARGS,
        "my_hook": ARGS,
        "tool_pre_invoke": HookPayloadPolicy(frozenset({"args", "argz"})),
        "http_auth_check_permission": HookPayloadPolicy(frozenset({"reason", "user_email"})),
        "identity_resolve": HookPayloadPolicy(frozenset({"subject"})),
        "tool_post_invoke": HookPayloadPolicy(frozenset()),
    }
    known = "args, headers, name"
    assert list(doubts(policies)) == [
        "the policy for hook `tool_pre_invok` applies to no hook that is known; did you mean `tool_pre_invoke`?",
        "the policy for hook `my_hook` applies to no hook that is known; register it, or leave the policy out",
        f"the policy for hook `tool_pre_invoke` opens `argz`, which its payload does not have; known: {known}",
    ]


async def test_a_manager_warns_of_such_policies_when_it_starts(caplog: pytest.LogCaptureFixture) -> None:
    manager = TenantPluginManager(Config(), hook_policies={"tool_pre_invok": ARGS, "tool_pre_invoke": ARGS})
    await manager.initialize()
    await manager.shutdown()
    assert [record.message.partition(";")[0] for record in caplog.records if record.levelname == "WARNING"] == [
        "the policy for hook `tool_pre_invok` applies to no hook that is known"
    ]


def test_the_default_is_allow_or_deny() -> None:
    assert DefaultHookPolicy("allow") is DefaultHookPolicy.ALLOW
    assert DefaultHookPolicy("deny") == "deny"
    with pytest.raises(ValueError):
        DefaultHookPolicy("maybe")


def test_only_writable_changes_are_taken_over_and_the_others_are_named(caplog: pytest.LogCaptureFixture) -> None:
    shown = ToolPreInvokePayload(name="a", args={"q": 1})
    with caplog.at_level("WARNING", "cpex.framework.hooks.policies"):
        result = apply_policy(shown, ToolPreInvokePayload(name="b", args={"q": 2}), ARGS)
    assert result == ToolPreInvokePayload(name="a", args={"q": 2})
    assert caplog.messages == ["Changes of payload fields ['name'] were rejected by the hook's policy"]


def test_nothing_taken_over_is_none() -> None:
    shown = ToolPreInvokePayload(name="a", args={"q": 1})
    assert apply_policy(shown, shown.model_copy(), ARGS) is None
    assert apply_policy(shown, shown.model_copy(update={"name": "b"}), ARGS) is None


def test_changes_are_found_against_what_was_shown_and_written_onto_the_target() -> None:
    target = ToolPreInvokePayload(name="canonical", args={"q": 0})
    shown = ToolPreInvokePayload(name="a", args={"q": 1})
    changed = shown.model_copy(update={"args": {"q": 2}})
    assert apply_policy(shown, changed, ARGS, apply_to=target) == ToolPreInvokePayload(name="canonical", args={"q": 2})


def test_a_deleted_attribute_is_no_change_and_a_missing_one_is() -> None:
    shown = ToolPreInvokePayload(name="a", args={"q": 1})
    deleted = shown.model_copy()
    del deleted.__dict__["args"]
    assert apply_policy(shown, deleted, ARGS) is None
    partial = ToolPreInvokePayload.model_construct(name="a")
    del partial.__dict__["args"]
    assert apply_policy(partial, shown, ARGS) is not None


def test_nested_models_compare_by_their_dump() -> None:
    class Other(HttpHeaderPayload):
        pass

    policy = HookPayloadPolicy(frozenset({"items"}))
    shown = Holder(items=HttpHeaderPayload({"A": "1"}))
    assert apply_policy(shown, Holder(items=Other({"A": "1"})), policy) is None
    replaced = apply_policy(shown, Holder(items=Other({"A": "2"})), policy)
    assert replaced is not None
    assert type(replaced.items) is Other


def test_a_tracked_container_that_was_emptied_is_a_change() -> None:
    policy = HookPayloadPolicy(frozenset({"items"}))
    emptied_dict, emptied_list = CopyOnWriteDict({"a": 1}), CopyOnWriteList([1])
    emptied_dict.clear()
    emptied_list.clear()
    for before, after in (({"a": 1}, emptied_dict), ([1], emptied_list)):
        assert apply_policy(Holder(items=before), Holder.model_construct(items=after), policy) is not None
    assert apply_policy(Holder(items={"a": 1}), Holder.model_construct(items=CopyOnWriteDict({"a": 1})), policy) is None


def test_new_values_are_not_validated() -> None:
    shown = ToolPreInvokePayload(name="a")
    result = apply_policy(shown, shown.model_copy(update={"args": ["odd"]}), ARGS)
    assert result is not None
    assert result.args == ["odd"]


def test_a_header_map_is_written_through_its_only_field() -> None:
    shown, changed = HttpHeaderPayload({"A": "1"}), HttpHeaderPayload({"A": "2"})
    assert apply_policy(shown, changed, HookPayloadPolicy(frozenset({"root"}))) == changed
    assert apply_policy(shown, changed, HookPayloadPolicy(frozenset({"headers"}))) is None
