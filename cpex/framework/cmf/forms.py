"""A view as plain data, for policies and logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cpex.framework.cmf.jsontext import json_ready

if TYPE_CHECKING:
    # At run time the view imports this module.
    from cpex.framework.cmf.view import MessageView

__all__ = ["SENSITIVE_HEADERS", "opa_input", "view_dict"]

SENSITIVE_HEADERS = frozenset(
    {
        "authorization",
        "cookie",
        "proxy-authorization",
        "set-cookie",
        "x-access-token",
        "x-amz-security-token",
        "x-api-key",
        "x-auth-token",
        "x-csrf-token",
    }
)
"""Lower-case names of headers that carry credentials. They stay out of every dictionary."""


def view_dict(
    view: MessageView, *, include_content: bool, include_context: bool, include_arguments: bool, ensure_ascii: bool
) -> dict[str, Any]:
    """What `MessageView.to_dict` says."""
    form: dict[str, Any] = {
        "kind": view.kind.value,
        "role": view.role.value,
        "is_pre": view.is_pre,
        "is_post": view.is_post,
        "action": view.action.value,
    }
    if view.hook is not None:
        form["hook"] = view.hook
    form |= _filled(uri=view.uri, name=view.name)
    if include_content:
        content, size = view.content if ensure_ascii else view.text, view.size_bytes
        form |= {"content": content} if content is not None else {}
        form |= {"size_bytes": size} if size is not None else {}
    form |= _filled(mime_type=view.mime_type)
    properties = view.properties
    if include_arguments:
        if view.args is not None:
            form["arguments"] = view.args
    else:
        properties.pop("annotations", None)
    form |= _filled(properties=properties)
    if include_context:
        form |= _filled(extensions=_context(view))
    return form


def opa_input(view: MessageView, **choices: bool) -> dict[str, Any]:
    """What `MessageView.to_opa_input` says."""
    return {"input": json_ready(view_dict(view, include_context=True, **choices))}


def _filled(**entries: Any) -> dict[str, Any]:
    """The entries that are not empty."""
    return {name: value for name, value in entries.items() if value}


def _context(view: MessageView) -> dict[str, Any]:
    return _filled(
        subject=_subject(view),
        environment=view.environment,
        labels=sorted(view.labels),
        headers={name: value for name, value in view.headers.items() if name.lower() not in SENSITIVE_HEADERS},
        object=_object(view),
        data=_data(view),
        agent=_agent(view),
    )


def _subject(view: MessageView) -> dict[str, Any] | None:
    subject = view.subject
    if subject is None:
        return None
    return {
        "id": subject.id,
        "type": subject.type.value,
        "roles": sorted(subject.roles),
        "permissions": sorted(subject.permissions),
        "teams": sorted(subject.teams),
    }


def _object(view: MessageView) -> dict[str, Any] | None:
    profile = view.object
    if profile is None:
        return None
    return {
        "managed_by": profile.managed_by,
        "permissions": list(profile.permissions),
        "trust_domain": profile.trust_domain,
        "data_scope": list(profile.data_scope),
    }


def _data(view: MessageView) -> dict[str, Any] | None:
    policy = view.data_policy
    if policy is None:
        return None
    form: dict[str, Any] = {"apply_labels": list(policy.apply_labels), "denied_actions": list(policy.denied_actions)}
    if policy.allowed_actions is not None:
        form["allowed_actions"] = list(policy.allowed_actions)
    if policy.retention is not None:
        form["retention"] = {
            "max_age_seconds": policy.retention.max_age_seconds,
            "policy": policy.retention.policy,
            "delete_after": policy.retention.delete_after,
        }
    return form


def _agent(view: MessageView) -> dict[str, Any]:
    form = _filled(input=view.agent_input, session_id=view.session_id, conversation_id=view.conversation_id)
    if view.turn is not None:
        form["turn"] = view.turn
    return form | _filled(agent_id=view.agent_id, parent_agent_id=view.parent_agent_id)
