"""Whether a plugin's conditions hold for a request and a payload.

Conditions are alternatives: one that holds is enough. Inside one, everything that is given must hold. `tools`,
`prompts`, `resources` and `agents` are compared with the entity that the hook is about; of a message any entity that it
mentions will do. Where the hook has an entity of that kind and the payload names none, the condition does not hold;
where the hook has no such entity, the set asks for nothing.

`compile_conditions` does the work once, when a plan is made; the judge that it returns does a few look-ups per call.

Source: docs/reference/conditions.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

from cpex.framework.models.config import PluginCondition, base_content_type
from cpex.framework.models.context import GlobalContext

__all__ = ["Matcher", "compile_conditions", "entity_fields", "get_matchable_value", "matches", "payload_matches"]

Matcher = Callable[[Any, GlobalContext], bool]
"""Judges a payload and the request's context."""

_ENTITIES = {
    "tool_pre_invoke": ("tools", "name"),
    "tool_post_invoke": ("tools", "name"),
    "prompt_pre_fetch": ("prompts", "prompt_id"),
    "prompt_post_fetch": ("prompts", "prompt_id"),
    "resource_pre_fetch": ("resources", "uri"),
    "resource_post_fetch": ("resources", "uri"),
    "agent_pre_invoke": ("agents", "agent_id"),
    "agent_post_invoke": ("agents", "agent_id"),
    "token_delegate": ("tools", "target_name"),
}
"""`{hook: (set of the condition, attribute of the payload)}`. Hooks that are absent have no entity in an attribute."""

_MESSAGE_HOOK = "evaluate"
_MESSAGE_PREFIX = "cmf."
_PARTS = {
    "tool_call": ("tools", "name"),
    "tool_result": ("tools", "tool_name"),
    "prompt_request": ("prompts", "name"),
    "prompt_result": ("prompts", "prompt_name"),
    "resource": ("resources", "uri"),
    "resource_ref": ("resources", "uri"),
}
"""`{content type of a message's part: (set of the condition, attribute of the part's content)}`."""
_MESSAGE_FIELDS = frozenset(field for field, _ in _PARTS.values())
_ENTITY_FIELDS = ("tools", "prompts", "resources", "agents")
_USER_KEYS = ("email", "id", "user_id", "name")


def entity_fields(hook_type: str) -> frozenset[str]:
    """Which of `tools`, `prompts`, `resources` and `agents` can restrict anything on a hook; often one, often none."""
    hook = _plain(hook_type)
    if _is_message_hook(hook):
        return _MESSAGE_FIELDS
    return frozenset({_ENTITIES[hook][0]}) if hook in _ENTITIES else frozenset()


def get_matchable_value(payload: Any, hook_type: str) -> str | None:
    """The name of the tool, prompt, resource or agent that a payload is about; `None` when the hook has none.

    A message may name several, so there is no single one for `evaluate` and the `cmf.` hooks.
    """
    entity = _ENTITIES.get(_plain(hook_type))
    value = getattr(payload, entity[1], None) if entity is not None else None
    return value if value is None or isinstance(value, str) else str(value)


def matches(condition: PluginCondition, context: GlobalContext) -> bool:
    """Whether what a condition asks of the request holds: server, tenant, content type, user."""
    return all(test(None, context) for test in _request_tests(condition))


def payload_matches(
    payload: Any, hook_type: str, conditions: Sequence[PluginCondition], context: GlobalContext
) -> bool:
    """Whether one of the conditions holds; without conditions always."""
    judge = compile_conditions(conditions, hook_type)
    return judge is None or judge(payload, context)


def compile_conditions(conditions: Iterable[PluginCondition], hook_type: str) -> Matcher | None:
    """Turn the conditions of a plugin into one judge for one hook; `None` when they hold whatever comes.

    The conditions are read now: what is changed in them later has no effect.
    """
    hook = _plain(hook_type)
    alternatives = [tuple(_request_tests(each)) + tuple(_entity_tests(each, hook)) for each in conditions]
    if not all(alternatives):
        # One of them asks for nothing, so the others cannot restrict anything.
        return None
    if len(alternatives) <= 1:
        return _all_hold(alternatives[0]) if alternatives else None
    judges = [_all_hold(tests) for tests in alternatives]
    return lambda payload, context: any(judge(payload, context) for judge in judges)


def _all_hold(tests: tuple[Matcher, ...]) -> Matcher:
    if len(tests) == 1:
        return tests[0]
    return lambda payload, context: all(test(payload, context) for test in tests)


def _plain(hook_type: str) -> str:
    return str(hook_type.value) if isinstance(hook_type, Enum) else hook_type


def _is_message_hook(hook: str) -> bool:
    return hook == _MESSAGE_HOOK or hook.startswith(_MESSAGE_PREFIX)


def _request_tests(condition: PluginCondition) -> Iterator[Matcher]:
    if condition.server_ids:
        servers = frozenset(condition.server_ids)
        yield lambda _, context: context.server_id in servers
    if condition.tenant_ids:
        tenants = frozenset(condition.tenant_ids)
        yield lambda _, context: context.tenant_id in tenants
    if condition.content_types:
        # Blank entries are left out, or a request without a content type would match them.
        types = frozenset(filter(None, map(base_content_type, condition.content_types)))
        yield lambda _, context: base_content_type(context.content_type) in types
    if condition.user_patterns:
        patterns = tuple(condition.user_patterns)
        yield lambda _, context: any(pattern in name for name in _known_names(context) for pattern in patterns)


def _known_names(context: GlobalContext) -> list[str]:
    """All names of the user: those of `user`, and those that the host has authenticated."""
    names = _user_names(context.user)
    known = context.user_context
    return names if known is None else [*names, *filter(None, (known.email, known.user_id, known.full_name))]


def _user_names(user: Any) -> list[str]:
    """What a user is known by: the telling values of a dict, or its text, also of what a host assigned unchecked."""
    if not user:
        return []
    if isinstance(user, Mapping):
        return [str(user[key]) for key in _USER_KEYS if user.get(key)]
    return [user if isinstance(user, str) else str(user)]


def _entity_tests(condition: PluginCondition, hook: str) -> Iterator[Matcher]:
    for field in _ENTITY_FIELDS:
        wanted = getattr(condition, field)
        if not wanted or field not in entity_fields(hook):
            continue
        names = frozenset(wanted)
        if _is_message_hook(hook):
            yield _in_message(field, names)
        else:
            yield _in_attribute(_ENTITIES[hook][1], names)


def _in_attribute(attribute: str, names: frozenset[str]) -> Matcher:
    def test(payload: Any, _: GlobalContext) -> bool:
        value = getattr(payload, attribute, None)
        return (value if isinstance(value, str) else str(value)) in names if value else False

    return test


def _in_message(field: str, names: frozenset[str]) -> Matcher:
    return lambda payload, _: any(name in names for name in _message_entities(payload, field))


def _message_entities(payload: Any, field: str) -> Iterator[str]:
    """Names of one kind that a message's parts mention, also those of the messages inside a prompt's result.

    Parts of unknown shape mention none.
    """
    todo = [getattr(payload, "message", None)]
    entered: set[int] = set()
    while todo:
        message = todo.pop()
        parts = getattr(message, "content", None)
        # A message that contains itself is entered once. The payload keeps all of them alive, so ids are theirs alone.
        if not isinstance(parts, list | tuple) or id(message) in entered:
            continue
        entered.add(id(message))
        for part in parts:
            entity = _PARTS.get(_plain(getattr(part, "content_type", "")))
            content = getattr(part, "content", None)
            if entity is not None and entity[0] == field:
                name = getattr(content, entity[1], None)
                if isinstance(name, str) and name:
                    yield name
            nested = getattr(content, "messages", None)
            if isinstance(nested, list | tuple):
                todo.extend(nested)
