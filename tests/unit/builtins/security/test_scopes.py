from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from cpex.builtins.guard import GuardedCall
from cpex.builtins.security.scopes import SCOPES, Scope, owner
from cpex.builtins.targets import Target
from cpex.framework import GlobalContext, PluginContext, ToolPreInvokePayload

TOOL = Target("tool", "search")


def of(**context: Any) -> GuardedCall:
    shared = GlobalContext(request_id="r", **context)
    return GuardedCall("tool_pre_invoke", ToolPreInvokePayload(name="t"), PluginContext(global_context=shared))


@pytest.mark.parametrize(
    ("text", "scope"), [("tool+user", "user+tool"), (["tool", "tenant"], "tenant+tool"), (" user ", "user")]
)
def test_a_combination_has_one_spelling(text: Any, scope: str) -> None:
    assert TypeAdapter(Scope).validate_python(text) == scope


@pytest.mark.parametrize("text", ["planet", "", "user+", "global+user", 5, []])
def test_what_is_no_scope_is_refused(text: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Scope).validate_python(text)


@pytest.mark.parametrize(
    ("scope", "apart"),
    [
        ("session", {"metadata": {"session_id": "b"}}),
        ("user", {"user": "bob"}),
        ("tenant", {"tenant_id": "umbrella"}),
        ("server", {"server_id": "two"}),
        ("user", {"tenant_id": "umbrella"}),
    ],
)
def test_each_scope_tells_its_own_apart(scope: str, apart: dict[str, Any]) -> None:
    here: dict[str, Any] = {"user": "ann", "tenant_id": "acme", "server_id": "one", "metadata": {"session_id": "a"}}
    assert owner(scope, of(**here), TOOL) == owner(scope, of(**here), TOOL)
    assert owner(scope, of(**here), TOOL) != owner(scope, of(**{**here, **apart}), TOOL)
    assert owner("global", of(**here), TOOL) == owner("global", of(**{**here, **apart}), TOOL)


def test_tools_are_apart_by_name_and_kind_and_servers_by_what_a_message_says() -> None:
    keys = [
        owner("tool", of(), TOOL),
        owner("tool", of(), Target("tool", "other")),
        owner("tool", of(), Target("prompt", "search")),
        owner("tool+server", of(server_id="one"), TOOL),
        owner("tool+server", of(server_id="one"), Target("tool", "search", server="two")),
        owner("tool+server", of(server_id="two"), TOOL),
    ]
    assert len(set(keys)) == 5
    assert keys[4] == keys[5]


def test_no_two_scopes_share_a_key() -> None:
    call = of(user="a", tenant_id="a", server_id="a", metadata={"session_id": "a"})
    keys = [owner(scope, call, Target("tool", "a")) for scope in SCOPES]
    assert len(set(keys)) == len(SCOPES)
