"""Conditions by the rules of this framework, worked out independently of it."""

from __future__ import annotations

from typing import Any

_ENTITIES = {
    "tool": ("tools", "name"),
    "prompt": ("prompts", "prompt_id"),
    "resource": ("resources", "uri"),
    "agent": ("agents", "agent_id"),
    "token": ("tools", "target_name"),
}


def _entities(hook: str, payload: Any) -> tuple[str, list[str]]:
    """Which set of a condition counts on a hook, and what of the payload it is compared with."""
    if hook == "evaluate" or hook.startswith("cmf."):
        parts = [part for part in payload.message.content if part.content_type == "tool_call"]
        return "tools", [part.content.name for part in parts]
    kind, attribute = _ENTITIES.get(hook.split("_")[0], ("", ""))
    return kind, [getattr(payload, attribute)] if attribute else []


def holds(conditions: list[dict[str, list[str]]], hook: str, payload: Any, context: Any) -> bool:
    """Whether one of the conditions holds, right before a turn."""
    kind, entities = _entities(hook, payload)
    user = context.user
    names = [user] if isinstance(user, str) else [user[key] for key in ("email",) if user and key in user]
    content_type = (context.content_type or "").split(";")[0].strip().lower()

    def met(field: str, wanted: list[str]) -> bool:
        match field:
            case "server_ids" | "tenant_ids":
                return getattr(context, field.removesuffix("s")) in wanted
            case "user_patterns":
                return any(pattern in name for pattern in wanted for name in names)
            case "content_types":
                return content_type in [each.lower() for each in wanted]
            case _:
                return field != kind or any(entity in wanted for entity in entities)

    return any(all(met(field, wanted) for field, wanted in each.items()) for each in conditions)
