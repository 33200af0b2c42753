from __future__ import annotations

from typing import Any

import pytest

from cpex.builtins.session import SessionKey, session_key
from cpex.framework import GlobalContext, PluginContext, UserContext
from cpex.framework.extensions import AgentExtension, Extensions


def context(**facts: Any) -> PluginContext:
    return PluginContext(global_context=GlobalContext(request_id="r", **facts))


@pytest.mark.conformance("D32")
def test_the_agents_session_goes_before_the_one_in_the_metadata() -> None:
    here = context(metadata={"session_id": "m"}, user="u")
    assert session_key(here, Extensions(agent=AgentExtension(session_id="a"))) == SessionKey("session", "a")
    assert session_key(here, Extensions(agent=AgentExtension())) == SessionKey("session", "m")
    assert session_key(here, None) == SessionKey("session", "m")


@pytest.mark.conformance("D32")
@pytest.mark.parametrize(
    ("facts", "user"),
    [
        ({"user": "ann"}, "ann"),
        ({"user": {"name": "Ann", "email": "ann@x.org"}}, "ann@x.org"),
        ({"user": {"id": 7}}, "7"),
        ({"user": "ann", "user_context": UserContext(user_id="u-1")}, "u-1"),
    ],
)
def test_without_a_session_the_user_is_the_account(facts: dict[str, Any], user: str) -> None:
    assert session_key(context(**facts)) == SessionKey("user", user)


@pytest.mark.conformance("D32")
def test_calls_that_name_nobody_share_one_account() -> None:
    assert session_key(context()) == session_key(context(user={})) == SessionKey("shared")


def test_tenants_never_share_an_account() -> None:
    one, other = (context(tenant_id=tenant, metadata={"session_id": "s"}) for tenant in ("a", "b"))
    assert session_key(one) != session_key(other)
