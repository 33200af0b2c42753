"""What a call is aimed at: the tool, prompt, resource or agent that it names, or all that a message names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from cpex.builtins.content import content_of, is_message_payload
from cpex.framework import PluginPayload

__all__ = ["Share", "Target", "TargetKind", "shares_of", "targets_of"]

TargetKind = Literal["tool", "prompt", "resource", "agent"]

_FIELDS: tuple[tuple[str, TargetKind, str], ...] = (
    ("tool_", "tool", "name"),
    ("prompt_", "prompt", "prompt_id"),
    ("resource_", "resource", "uri"),
    ("agent_", "agent", "agent_id"),
)
_PARTS: dict[str, tuple[TargetKind, str, str | None, str | None, str | None]] = {
    # Kind of part: kind, name, server, arguments, answer.
    "tool_call": ("tool", "name", "namespace", "arguments", None),
    "tool_result": ("tool", "tool_name", None, None, "content"),
    "prompt_request": ("prompt", "name", "server_id", "arguments", None),
    "prompt_result": ("prompt", "prompt_name", None, None, None),
    "resource": ("resource", "uri", None, None, None),
    "resource_ref": ("resource", "uri", None, None, None),
}


@dataclass(frozen=True, slots=True)
class Target:
    """One thing that is about to be used, or was."""

    kind: TargetKind
    name: str
    server: str | None = None
    """Where a message says that it lives; a single hook leaves that to the context."""
    args: dict[str, Any] | None = None
    """What it is given; `None` for what has answered."""
    answer: Any = None
    """What it has answered: the result as the host has it, or the part of the message that holds it."""
    place: str = ""
    """Where in a message it is named."""


def targets_of(hook: str, payload: PluginPayload) -> Iterator[Target]:
    """The target of a hook call; of a message every one that it names, in order, with repetitions."""
    if is_message_payload(payload):
        yield from _of_message(payload.message)
        return
    for prefix, kind, field in _FIELDS:
        if hook.startswith(prefix):
            args, answer = getattr(payload, "args", None), getattr(payload, "result", None)
            yield Target(kind, str(getattr(payload, field)), args=args, answer=answer)


def _of_message(message: Any) -> Iterator[Target]:
    for view in message.iter_views(recursive=True):
        facts = _PARTS.get(view.kind.value)
        if facts is None:
            continue
        kind, name, server, args, answer = facts
        part = view.raw.content
        yield Target(
            kind,
            str(getattr(part, name)),
            server=getattr(part, server) if server else None,
            args=getattr(part, args) if args else None,
            answer=part if answer else None,
            place=view.path,
        )


class Share(NamedTuple):
    """A piece of what a call carries."""

    target: Target | None
    """What it goes to or comes from; `None` for what is only said."""
    value: Any


def shares_of(hook: str, payload: PluginPayload) -> Iterator[Share]:
    """The content of a call in pieces, none of it twice: the fields of a payload, or the parts of a message."""
    if not is_message_payload(payload):
        target = next(targets_of(hook, payload), None)
        yield from (Share(target, value) for value in content_of(payload).values(payload).values())
        return
    targets = {target.place: target for target in targets_of(hook, payload)}
    for view in payload.message.iter_views():
        part: Any = view.raw
        yield Share(targets.get(view.path), part.text if view.is_text else part.content)
