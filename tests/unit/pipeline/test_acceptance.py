"""Which of a plugin's changes the chain takes over: by policy, by hook, by what was returned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from support import call, manager_of, plugin, record_of, tool_payload

from cpex.framework.extensions import Extensions
from cpex.framework.extensions.http import HttpExtension
from cpex.framework.hooks.http import (
    HttpAuthCheckPermissionPayload,
    HttpAuthCheckPermissionResultPayload,
    HttpAuthResolveUserPayload,
    HttpHeaderPayload,
    HttpPreRequestPayload,
)
from cpex.framework.hooks.policies import HookPayloadPolicy
from cpex.framework.hooks.tools import ToolPreInvokePayload
from cpex.framework.models.payload import PluginPayload
from cpex.framework.models.result import PluginResult

ONLY_ARGS = {"tool_pre_invoke": HookPayloadPolicy(frozenset({"args"}))}
POLICIES = pytest.mark.parametrize("policies", [None, ONLY_ARGS], ids=["no_policy", "policy"])


def returning(make: Callable[[Any], Any], **result: Any) -> Callable[..., Any]:
    """A handler that returns what `make` makes of its payload."""

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=make(payload), **result)

    return handler


def edited(edit: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Edit the payload in place and return it."""

    def make(payload: Any) -> Any:
        edit(payload)
        return payload

    return make


@POLICIES
async def test_an_edit_in_place_that_is_returned_counts(policies: Any) -> None:
    make = edited(lambda payload: payload.args["x"].update(y=2))
    host = tool_payload(x={"y": 1}, kept=[1])
    result, _ = await call(manager_of(plugin(returning(make)), hook_policies=policies), host)
    assert result.modified_payload.args == {"x": {"y": 2}, "kept": [1]}
    assert host.args == {"x": {"y": 1}, "kept": [1]}
    assert record_of(result.executions).payload_modified


@POLICIES
async def test_an_edit_in_place_that_is_not_returned_does_not_count(policies: Any) -> None:
    async def edits(payload: Any, context: Any) -> PluginResult[Any]:
        payload.args["x"]["y"] = 2
        return PluginResult()

    host = tool_payload(x={"y": 1})
    result, _ = await call(manager_of(plugin(edits), hook_policies=policies), host)
    assert (result.modified_payload, host.args) == (None, {"x": {"y": 1}})


@POLICIES
async def test_a_payload_that_is_returned_as_it_was_handed_out_is_no_change(policies: Any) -> None:
    manager = manager_of(plugin(returning(lambda payload: payload)), hook_policies=policies)
    result, _ = await call(manager)
    assert result.modified_payload is None
    assert not record_of(result.executions).payload_modified


async def test_without_a_policy_an_equal_payload_of_the_plugin_s_own_making_replaces() -> None:
    host = tool_payload(x=1)
    result, _ = await call(manager_of(plugin(returning(lambda _: tool_payload(x=1)))), host)
    assert result.modified_payload == host
    assert result.modified_payload is not host
    assert record_of(result.executions).payload_modified


async def test_with_a_policy_an_equal_payload_is_no_change() -> None:
    manager = manager_of(plugin(returning(lambda _: tool_payload(x=1))), hook_policies=ONLY_ARGS)
    result, _ = await call(manager, tool_payload(x=1))
    assert result.modified_payload is None


async def test_a_policy_lets_writable_fields_through_and_warns_of_the_others(caplog: pytest.LogCaptureFixture) -> None:
    make = returning(lambda _: ToolPreInvokePayload(name="other", args={"a": 1}))
    result, _ = await call(manager_of(plugin(make), hook_policies=ONLY_ARGS))
    assert result.modified_payload == ToolPreInvokePayload(name="t", args={"a": 1})
    assert "Plugin p: changes of fields ['name'] were rejected by the hook's policy" in caplog.text


async def test_when_only_other_fields_were_changed_nothing_is() -> None:
    make = returning(lambda payload: payload.model_copy(update={"name": "other"}))
    result, _ = await call(manager_of(plugin(make), hook_policies=ONLY_ARGS))
    assert result.modified_payload is None
    assert not record_of(result.executions).payload_modified


async def test_an_edit_in_place_of_a_field_that_is_not_writable_is_dropped_for_everybody() -> None:
    seen = []

    async def looks(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(payload.args)
        return PluginResult()

    policies = {"tool_pre_invoke": HookPayloadPolicy(frozenset({"name"}))}
    make = edited(lambda payload: payload.args.update(new=1))
    manager = manager_of(plugin(returning(make), "a"), plugin(looks, "b"), hook_policies=policies)
    result, _ = await call(manager, tool_payload(x=1))
    assert (result.modified_payload, seen) == (None, [{"x": 1}])


async def test_by_default_deny_nothing_may_be_written_without_a_policy(caplog: pytest.LogCaptureFixture) -> None:
    make = returning(edited(lambda payload: payload.args.update(new=1)))
    host = tool_payload(x=1)
    result, _ = await call(manager_of(plugin(make), default_hook_policy="deny"), host)
    assert (result.modified_payload, host.args) == (None, {"x": 1})
    assert "was rejected: the hook has no policy and the default is deny" in caplog.text


async def test_a_policy_of_its_own_opens_a_hook_under_default_deny() -> None:
    make = returning(edited(lambda payload: payload.args.update(new=1)))
    manager = manager_of(plugin(make), default_hook_policy="deny", hook_policies=ONLY_ARGS)
    result, _ = await call(manager, tool_payload(x=1))
    assert result.modified_payload.args == {"x": 1, "new": 1}


@POLICIES
async def test_a_dict_is_validated_into_the_payload_s_class(policies: Any) -> None:
    make = returning(lambda payload: {"name": "t", "args": {"a": 1}})
    result, _ = await call(manager_of(plugin(make), hook_policies=policies))
    assert result.modified_payload == ToolPreInvokePayload(name="t", args={"a": 1})


@POLICIES
@pytest.mark.parametrize("value", [{}, "", 0, [], {"args": 3}], ids=repr)
async def test_what_cannot_be_the_payload_is_the_plugin_s_error(policies: Any, value: Any) -> None:
    manager = manager_of(plugin(returning(lambda _: value), on_error="ignore"), hook_policies=policies)
    result, _ = await call(manager)
    assert record_of(result.executions).status == "error"
    assert result.modified_payload is None


async def test_a_subclass_of_the_payload_is_taken_as_it_is() -> None:
    class Wider(ToolPreInvokePayload):
        extra: int = 0

    make = returning(lambda payload: Wider(name=payload.name, args=payload.args, extra=1))
    result, _ = await call(manager_of(plugin(make)))
    assert type(result.modified_payload) is Wider
    assert result.modified_payload.extra == 1


async def test_what_a_plugin_returned_is_no_longer_in_its_hands() -> None:
    kept = {"new": [1]}
    make = returning(lambda payload: payload.model_copy(update={"args": kept}))
    result, _ = await call(manager_of(plugin(make)))
    kept["new"].append(2)
    assert result.modified_payload.args == {"new": [1]}


async def test_unchanged_parts_stay_the_host_s_own_objects() -> None:
    big = {"deep": [1, 2, 3]}
    make = returning(edited(lambda payload: payload.args.update(small=1)))
    result, _ = await call(manager_of(plugin(make)), tool_payload_of(big))
    assert result.modified_payload.args["big"] is big


def tool_payload_of(big: Any) -> ToolPreInvokePayload:
    """A payload whose arguments hold the very object."""
    return ToolPreInvokePayload.model_construct(name="t", args={"big": big}, headers=None)


async def test_a_hook_that_nobody_registered_takes_any_payload() -> None:
    class Own(PluginPayload):
        items: list[int]

    class Other(PluginPayload):
        pass

    make = returning(lambda payload: Other())
    result, _ = await call(manager_of(plugin(make, hooks=["own_hook"])), Own(items=[1]), hook="own_hook")
    assert type(result.modified_payload) is Other


async def test_a_plain_dict_is_a_payload_too_and_is_isolated() -> None:
    make = returning(edited(lambda payload: payload["x"].append(2)))
    host: Any = {"x": [1]}
    result, _ = await call(manager_of(plugin(make, hooks=["own_hook"])), host, hook="own_hook")
    assert (result.modified_payload, host) == ({"x": [1, 2]}, {"x": [1]})


# Hooks that answer with something else than their payload.


def request() -> HttpPreRequestPayload:
    """A request with one header."""
    return HttpPreRequestPayload.model_construct(
        path="/", method="GET", headers=HttpHeaderPayload({"A": "1"}), client_host=None, client_port=None
    )


HTTP = "http_pre_request"


@pytest.mark.parametrize("policies", [None, {HTTP: HookPayloadPolicy(frozenset({"headers"}))}], ids=["no", "policy"])
async def test_replies_accumulate_beside_the_request_that_every_plugin_sees(policies: Any) -> None:
    seen = []

    async def second(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(payload)
        return PluginResult(modified_payload=HttpHeaderPayload({"C": "3", "B": "4"}))

    first = returning(lambda payload: HttpHeaderPayload({**payload.headers.root, "B": "2"}))
    manager = manager_of(
        plugin(first, "first", hooks=[HTTP], priority=1),
        plugin(second, "second", hooks=[HTTP], priority=2),
        hook_policies=policies,
    )
    result, _ = await call(manager, request(), hook=HTTP)
    assert seen == [request()]
    assert result.modified_payload == HttpHeaderPayload({"A": "1", "B": "4", "C": "3"})
    assert [record.payload_modified for record in result.executions] == [True, True]


async def test_of_other_replies_the_last_one_stands() -> None:
    hook = "http_auth_check_permission"
    payload = HttpAuthCheckPermissionPayload(user_email="e", permission="p")

    def replying(granted: bool) -> Any:
        return returning(
            lambda _: HttpAuthCheckPermissionResultPayload(granted=granted), metadata={"_decision_plugin": "forged"}
        )

    manager = manager_of(
        plugin(replying(True), "first", hooks=[hook], priority=1),
        plugin(replying(False), "second", hooks=[hook], priority=2),
        plugin(returning(lambda _: None), "third", hooks=[hook], priority=3),
    )
    result, _ = await call(manager, payload, hook=hook)
    assert result.modified_payload == HttpAuthCheckPermissionResultPayload(granted=False)
    assert result.metadata == {"_decision_plugin": "second"}


async def test_without_a_reply_there_is_no_decision_plugin() -> None:
    hook = "http_auth_check_permission"
    payload = HttpAuthCheckPermissionPayload(user_email="e", permission="p")
    make = returning(lambda _: None, metadata={"_decision_plugin": "forged", "other": 1})
    result, _ = await call(manager_of(plugin(make, hooks=[hook])), payload, hook=hook)
    assert (result.modified_payload, result.metadata) == (None, {"other": 1})


async def test_a_dict_is_a_reply_where_the_hook_says_so() -> None:
    hook, user = "http_auth_resolve_user", {"email": "e", "roles": ["r"]}
    payload = HttpAuthResolveUserPayload.model_construct(
        credentials={"scheme": "Bearer"}, headers=HttpHeaderPayload({}), client_host=None, client_port=None
    )
    result, _ = await call(manager_of(plugin(returning(lambda _: user), hooks=[hook])), payload, hook=hook)
    user["roles"].append("later")
    assert result.modified_payload == {"email": "e", "roles": ["r"]}


@pytest.mark.parametrize("value", [3, ["A"], HttpAuthCheckPermissionResultPayload(granted=True)], ids=repr)
async def test_a_reply_of_another_type_is_the_plugin_s_error(value: Any) -> None:
    result, _ = await call(
        manager_of(plugin(returning(lambda _: value), hooks=[HTTP], on_error="ignore")), request(), hook=HTTP
    )
    assert record_of(result.executions).status == "error"
    assert result.modified_payload is None


async def test_a_changed_request_reaches_later_plugins_and_the_reply_reaches_the_host() -> None:
    seen = []

    async def looks(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(payload.path)
        return PluginResult(modified_payload=HttpHeaderPayload({"B": "2"}))

    rewrites = returning(lambda payload: payload.model_copy(update={"path": "/other"}))
    manager = manager_of(plugin(rewrites, "a", hooks=[HTTP], priority=1), plugin(looks, "b", hooks=[HTTP], priority=2))
    result, _ = await call(manager, request(), hook=HTTP)
    assert (seen, result.modified_payload) == (["/other"], HttpHeaderPayload({"B": "2"}))


# Extensions.


async def test_accepted_changes_of_extensions_reach_later_plugins_and_the_result() -> None:
    seen = []

    async def writes(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        changed = extensions.model_copy(update={"custom": {"a": 1}, "http": HttpExtension(headers={"X": "1"})})
        return PluginResult(modified_extensions=changed)

    async def looks(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        seen.append((extensions.custom, extensions.http))
        return PluginResult()

    given = Extensions(http=HttpExtension(headers={"A": "1"}))
    manager = manager_of(
        plugin(writes, "a", priority=1),
        plugin(looks, "b", priority=2, capabilities=["read_headers"]),
        plugin(looks, "c", mode="audit"),
    )
    result, _ = await call(manager, extensions=given)
    assert seen == [({"a": 1}, HttpExtension(headers={"A": "1"})), ({"a": 1}, None)]
    assert result.modified_extensions == Extensions(http=HttpExtension(headers={"A": "1"}), custom={"a": 1})
    assert given.custom is None
    assert [record.extensions_modified for record in result.executions] == [True, False, False]


@pytest.mark.parametrize("mode", ["audit", "concurrent"])
async def test_modes_that_may_not_rewrite_may_not_rewrite_extensions_either(mode: str) -> None:
    async def writes(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        return PluginResult(modified_extensions=extensions.model_copy(update={"custom": {"a": 1}}))

    result, _ = await call(manager_of(plugin(writes, mode=mode)), extensions=Extensions())
    assert result.modified_extensions is None
    assert not record_of(result.executions).extensions_modified


async def test_without_extensions_of_the_host_a_plugin_sees_none() -> None:
    seen = []

    async def looks(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        seen.append(extensions)
        return PluginResult()

    await call(manager_of(plugin(looks)))
    assert seen == [None]


class Open(PluginPayload, extra="allow"):
    known: str = ""


@pytest.mark.parametrize("writable", [{"note"}, {"known"}])
async def test_a_policy_goes_for_fields_that_no_class_declares_too(
    writable: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    def masks(payload: Any) -> Any:
        payload.note["card"] = "***"
        return payload.model_copy(update={"known": "changed", "added": 1})

    def removes(payload: Any) -> Any:
        return type(payload)(known=payload.known)

    host = Open(known="k", note={"card": "4111"})
    policies = {"own": HookPayloadPolicy(frozenset(writable))}
    first, second = plugin(returning(masks), "a", hooks=["own"]), plugin(returning(removes), "b", hooks=["own"])
    result, _ = await call(manager_of(first, second, hook_policies=policies), host, hook="own")
    changed = result.modified_payload
    if writable == {"note"}:
        assert (changed.known, changed.note) == ("k", {"card": "***"})
        assert "Plugin a: changes of fields ['added', 'known'] were rejected" in caplog.text
    else:
        assert (changed.known, changed.note) == ("changed", {"card": "4111"})
        assert "Plugin a: changes of fields ['added', 'note'] were rejected" in caplog.text
    assert not hasattr(changed, "added")
    assert "Plugin b: changes of fields ['note'] were rejected" in caplog.text
    assert host == Open(known="k", note={"card": "4111"})
