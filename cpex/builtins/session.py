"""Whose account a call goes on: the conversation, or what stands in for it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cpex.framework import PluginContext

__all__ = ["SessionKey", "session_key", "user_id"]

_USER_FIELDS = ("email", "id", "user_id", "name")


@dataclass(frozen=True, slots=True)
class SessionKey:
    """One account. Equal keys share it; tenants never do."""

    kind: Literal["session", "user", "shared"]
    value: str = ""
    tenant_id: str | None = None


def session_key(context: PluginContext, extensions: Any = None) -> SessionKey:
    """The account of the conversation that a call belongs to.

    In this order: the agent extension's `session_id` (visible with the capability `read_agent` only),
    `global_context.metadata["session_id"]`, the user, and one account that all remaining calls share.
    """
    shared = context.global_context
    tenant = shared.tenant_id
    agent = getattr(extensions, "agent", None)
    if session := getattr(agent, "session_id", None) or shared.metadata.get("session_id"):
        return SessionKey("session", str(session), tenant)
    if user := user_id(context):
        return SessionKey("user", user, tenant)
    return SessionKey("shared", tenant_id=tenant)


def user_id(context: PluginContext) -> str:
    """The user of a call, as the host tells it; empty when it tells none."""
    shared = context.global_context
    if shared.user_context is not None:
        return shared.user_context.user_id
    if isinstance(shared.user, dict):
        return next((str(shared.user[name]) for name in _USER_FIELDS if shared.user.get(name)), "")
    return shared.user or ""
