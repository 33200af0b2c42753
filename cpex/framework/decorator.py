"""How a method becomes a hook when its name is not the hook's.

`@hook` marks a function with the hooks it handles. The mark is all that it adds; finding marked methods and checking
their signatures is done when the plugin is registered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel

from cpex.framework.hooks.registry import get_hook_registry

__all__ = ["HookMetadata", "get_hook_metadata", "has_hook_metadata", "hook"]

_HOOK_METADATA_ATTR = "_plugin_hook_metadata"

F = TypeVar("F", bound=Callable[..., Any])


class HookMetadata:
    """What `@hook` has noted on a function."""

    def __init__(
        self,
        hook_types: list[str],
        payload_type: type[BaseModel] | None = None,
        result_type: type[BaseModel] | None = None,
    ) -> None:
        self.hook_types = hook_types
        """Hooks that the function handles, as they were given: text or enum members."""
        self.payload_type = payload_type
        self.result_type = result_type

    @property
    def hook_type(self) -> str:
        """The first of the hooks; empty when there are none."""
        return self.hook_types[0] if self.hook_types else ""

    def matches(self, hook_type: str) -> bool:
        """Whether the function handles a hook."""
        return hook_type in self.hook_types

    def __repr__(self) -> str:
        return f"HookMetadata({self.hook_types!r}, {self.payload_type!r}, {self.result_type!r})"


def hook(
    hook_type: str | Iterable[str],
    payload_type: type[BaseModel] | None = None,
    result_type: type[BaseModel] | None = None,
) -> Callable[[F], F]:
    """Mark a plugin's method as the handler of one or more hooks.

    With both classes given, a hook that nobody has registered yet is registered with them; an existing entry stays.
    Applied twice, the outer mark counts.

    Args:
        hook_type: A hook name or several, as text or enum members. A name may be made up.

    Raises:
        ValueError: No hook name was given.

    Example:
        >>> @hook("email_pre_send")
        ... async def check(self, payload, context): ...
        >>> get_hook_metadata(check).hook_types
        ['email_pre_send']
    """
    hook_types = [hook_type] if isinstance(hook_type, str) else list(hook_type)
    if not hook_types or not all(hook_types):
        raise ValueError('@hook needs the name of a hook, e.g. @hook("tool_pre_invoke")')
    if payload_type is not None and result_type is not None:
        _register(hook_types, payload_type, result_type)

    def mark(function: F) -> F:
        setattr(function, _HOOK_METADATA_ATTR, HookMetadata(hook_types, payload_type, result_type))
        return function

    return mark


def _register(hook_types: list[str], payload_type: type[BaseModel], result_type: type[BaseModel]) -> None:
    registry = get_hook_registry()
    for name in hook_types:
        if not registry.is_registered(name):
            registry.register_hook(name, payload_type, result_type)


def get_hook_metadata(func: Callable[..., Any]) -> HookMetadata | None:
    """What `@hook` has noted on a function or method; `None` when it is not marked."""
    return getattr(func, _HOOK_METADATA_ATTR, None)


def has_hook_metadata(func: Callable[..., Any]) -> bool:
    """Whether a function or method is marked with `@hook`."""
    return get_hook_metadata(func) is not None
