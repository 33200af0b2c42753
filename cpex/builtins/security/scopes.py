"""Who shares a limit: a user, a conversation, a tenant, a tool, a server, everybody, or several of these together."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator

from cpex.builtins.guard import GuardedCall
from cpex.builtins.session import session_key, user_id
from cpex.builtins.store.guarded import store_key
from cpex.builtins.targets import Target

__all__ = ["SCOPES", "Scope", "owner", "scope_parts"]

SCOPES = ("session", "user", "tenant", "tool", "server", "global")
"""In the order in which a combination is written."""
_IN_A_TENANT = frozenset({"session", "user", "tenant"})


def _joined(value: Any) -> Any:
    return "+".join(value) if isinstance(value, list) and all(isinstance(part, str) for part in value) else value


def _checked(value: str) -> str:
    parts = [part.strip() for part in value.split("+")]
    if unknown := [part for part in parts if part not in SCOPES]:
        raise ValueError(f"unknown scopes {unknown}; known: {', '.join(SCOPES)}, and several joined by `+`")
    if "global" in parts and len(parts) > 1:
        raise ValueError("`global` is one limit for everybody and goes with no other scope; leave one of them out")
    # One order, so that `user+tool` and `tool+user` are one limit.
    return "+".join(scope for scope in SCOPES if scope in parts)


Scope = Annotated[str, BeforeValidator(_joined), AfterValidator(_checked)]
"""One of `SCOPES`, or several joined by `+`; in a configuration also a list."""


def scope_parts(scope: str) -> frozenset[str]:
    """The single scopes of a combination."""
    return frozenset(scope.split("+"))


def owner(scope: str, call: GuardedCall, target: Target | None, *names: str | None) -> str:
    """The key under which a store keeps the limit that this call falls under.

    Users and conversations of different tenants are different; tools of one name are apart by kind of target.

    Args:
        names: What else tells limits apart, such as the plugin's name.
    """
    parts, shared = scope_parts(scope), call.context.global_context
    tenant = shared.tenant_id if parts & _IN_A_TENANT else None
    user = user_id(call.context) if "user" in parts else None
    server = (target.server if target and target.server else shared.server_id) if "server" in parts else None
    tool = f"{target.kind}:{target.name}" if target and "tool" in parts else None
    session = session_key(call.context, call.extensions) if "session" in parts else None
    conversation = (session.kind, session.value) if session else (None, None)
    return store_key(*names, scope, tenant, user, tool, server, *conversation)
