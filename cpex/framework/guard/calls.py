"""How a payload that plugins have left becomes a call of the host's own function."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from types import CoroutineType
from typing import Any

from cpex.framework.errors import GuardError
from cpex.framework.utils import StructuredData

__all__ = ["AGENT_SETTINGS", "Resolve", "agent_call", "awaited", "performer"]

Resolve = Callable[[str], Callable[..., Any]]
"""Finds what performs an operation of another name, when a plugin rewrote the name."""


async def awaited(result: Any) -> Any:
    """A result, awaited where that is what it takes.

    Raises:
        Exception: Whatever the operation raises.
    """
    # What it nearly always is, some times faster to tell.
    if type(result) is CoroutineType or inspect.isawaitable(result):
        return await result
    return result


def performer(
    kind: str,
    field: str,
    name: str,
    call: Callable[..., Any],
    resolve: Resolve | None,
    arguments: Callable[[Any], tuple[Sequence[Any], Mapping[str, Any]]],
) -> Callable[[Any], Any]:
    """Makes what performs an operation, or its replacement where a plugin rewrote the name.

    Args:
        field: Where in the payload the name is.
        resolve: Finds the replacement; without it a rewritten name is an error.
        arguments: Makes the arguments of the call from the payload that plugins left.

    Returns:
        A function of that payload. It raises `GuardError` when the name was rewritten and there is no `resolve`, and
        otherwise what the called function or `resolve` raises.
    """

    def perform(ready: Any) -> Any:
        named = getattr(ready, field)
        target = call
        if named != name:
            if resolve is None:
                raise GuardError(
                    f"a plugin rewrote {kind} `{name[:200]}` to `{str(named)[:200]}`, and the host gave no `resolve` "
                    "to find it with; pass `resolve=`, or do not let plugins write the name (a hook policy does that)"
                )
            target = resolve(named)
        positional, named_arguments = arguments(ready)
        return target(*positional, **named_arguments)

    return perform


AGENT_SETTINGS = ("tools", "model", "system_prompt", "parameters")
"""What plugins see of an agent beside its messages."""


def agent_call(
    messages: list[Any], settings: Mapping[str, Any]
) -> Callable[[Any], tuple[Sequence[Any], Mapping[str, Any]]]:
    """Makes the arguments of an agent's `invoke` of a payload.

    Args:
        messages: As the host gave them.
        settings: As the host gave them; of others, those are handed over that plugins have set.
    """

    def arguments(ready: Any) -> tuple[Sequence[Any], Mapping[str, Any]]:
        # Dicts were made readable by attribute for the plugins; the host gets dicts.
        as_dicts = any(isinstance(each, Mapping) for each in messages)
        told = [each.model_dump() if as_dicts and isinstance(each, StructuredData) else each for each in ready.messages]
        values = {name: getattr(ready, name) for name in AGENT_SETTINGS}
        return (told,), {name: value for name, value in values.items() if name in settings or value}

    return arguments
