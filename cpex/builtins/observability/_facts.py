"""What observers say about a hook call: which entity it is about, who asked, in which conversation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from cpex.framework import GlobalContext, PluginContext

MAX_NAME_LENGTH = 512
"""Characters. Longer names are cut, so that no caller decides how long a record gets."""

_USER_FIELDS = ("email", "id", "user_id", "name")


@dataclass(frozen=True, slots=True)
class Entity:
    """What a hook call is about."""

    kind: str
    """`tool`, `prompt`, `resource`, `agent`, `http`, `permission`, `target` or `message`."""
    name: str | None


_NAMED_BY: dict[str, tuple[str, str]] = {
    "tool_pre_invoke": ("tool", "name"),
    "tool_post_invoke": ("tool", "name"),
    "prompt_pre_fetch": ("prompt", "prompt_id"),
    "prompt_post_fetch": ("prompt", "prompt_id"),
    "resource_pre_fetch": ("resource", "uri"),
    "resource_post_fetch": ("resource", "uri"),
    "agent_pre_invoke": ("agent", "agent_id"),
    "agent_post_invoke": ("agent", "agent_id"),
    "http_pre_request": ("http", "path"),
    "http_post_request": ("http", "path"),
    "http_auth_check_permission": ("permission", "permission"),
    "token_delegate": ("target", "target_name"),
}

# Content parts of a CMF message that name something, in the order in which they win.
_PART_KINDS: dict[str, tuple[str, tuple[str, ...]]] = {
    "tool_call": ("tool", ("name",)),
    "tool_result": ("tool", ("tool_name",)),
    "prompt_request": ("prompt", ("name",)),
    "prompt_result": ("prompt", ("prompt_name",)),
    "resource": ("resource", ("uri",)),
    "resource_ref": ("resource", ("uri",)),
}


def entity_of(hook: str, payload: Any) -> Entity | None:
    """The entity of a hook call, or `None` on hooks that have none.

    User information, query and fragment are left out of URIs and paths: they are where credentials travel.
    """
    message = getattr(payload, "message", None)
    if message is not None:
        return _entity_in(message)
    known = _NAMED_BY.get(hook)
    if known is None:
        return None
    kind, field = known
    return _entity(kind, getattr(payload, field, None))


def _entity(kind: str, name: Any) -> Entity:
    if not isinstance(name, str):
        return Entity(kind, None)
    if kind in ("resource", "http"):
        name = bare_uri(name)
    return Entity(kind, name[:MAX_NAME_LENGTH])


def _entity_in(message: Any) -> Entity:
    for part in getattr(message, "content", None) or ():
        part_type = getattr(part, "content_type", None)
        known = _PART_KINDS.get(str(getattr(part_type, "value", part_type)))
        if known is not None:
            kind, fields = known
            content = getattr(part, "content", None)
            return _entity(kind, next((getattr(content, field, None) for field in fields), None))
    return Entity("message", None)


def bare_uri(uri: str) -> str:
    """A URI or path without user information, query and fragment."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        # Not a URI by RFC 3986; what stands before a query is still safe to name.
        return uri.partition("?")[0].partition("#")[0].rpartition("@")[2]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def user_of(user: Any) -> str | None:
    """The name of a user that a host gave as text or as a dict (`email`, else `id`, `user_id`, `name`)."""
    if isinstance(user, dict):
        user = next((user[field] for field in _USER_FIELDS if user.get(field)), None)
    return str(user)[:MAX_NAME_LENGTH] if user not in (None, "") else None


def requester_of(context: GlobalContext) -> str | None:
    """Who asked: the authenticated user's id when the host gave one, else what `user` says."""
    if context.user_context is not None:
        return user_of(context.user_context.user_id)
    return user_of(context.user)


def session_of(context: PluginContext, extensions: Any) -> str | None:
    """The conversation: the agent extension's session, else `metadata["session_id"]`, else `None`.

    The agent extension is visible with the capability `read_agent` only.
    """
    session = getattr(getattr(extensions, "agent", None), "session_id", None)
    session = session or context.global_context.metadata.get("session_id")
    return session[:MAX_NAME_LENGTH] if isinstance(session, str) and session else None
