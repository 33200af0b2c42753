"""Which fields of a hook's payload plugins may write.

The framework ships no policies: hosts pass them to the manager, one per hook, and decide what goes for hooks without.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeVar

from pydantic import BaseModel

from cpex.framework.hooks.registry import get_hook_registry

__all__ = ["DefaultHookPolicy", "HookPayloadPolicy", "apply_policy", "doubts"]

logger = logging.getLogger(__name__)

M = TypeVar("M", bound=BaseModel)

_MISSING = object()


class DefaultHookPolicy(str, Enum):
    """What goes for a hook without a policy of its own."""

    ALLOW = "allow"
    """Every field may be written."""
    DENY = "deny"
    """No field may be written."""


@dataclass(frozen=True, slots=True)
class HookPayloadPolicy:
    """The fields of one hook's payload that plugins may write."""

    writable_fields: frozenset[str]

    def __post_init__(self) -> None:
        # SECURITY: `in` on a text finds parts of it, which would make more fields writable than were named.
        if isinstance(self.writable_fields, str):
            raise TypeError(
                f"writable fields of a hook policy must be a set of names, not the text `{self.writable_fields}`; "
                f"write frozenset({{{self.writable_fields!r}}})"
            )
        if not isinstance(self.writable_fields, frozenset):
            # Whoever gave us a list or a set could still add to it.
            object.__setattr__(self, "writable_fields", frozenset(self.writable_fields))


def doubts(policies: Mapping[str, HookPayloadPolicy]) -> Iterator[str]:
    """What in a host's policies cannot mean anything, each with how to mend it.

    A policy for a hook that is called otherwise leaves that hook to the default, which may allow everything.
    """
    registry = get_hook_registry()
    for hook, policy in policies.items():
        if not registry.is_registered(hook):
            close = difflib.get_close_matches(hook, registry.get_registered_hooks(), n=1)
            hint = f"did you mean `{close[0]}`?" if close else "register it, or leave the policy out"
            yield f"the policy for hook `{hook}` applies to no hook that is known; {hint}"
            continue
        classes = (registry.get_payload_type(hook), registry.reply_type(hook))
        known = {name for cls in classes for name in getattr(cls, "model_fields", ())}
        if known and (unknown := sorted(set(policy.writable_fields) - known)):
            yield (
                f"the policy for hook `{hook}` opens {', '.join(f'`{name}`' for name in unknown)}, which its payload "
                f"does not have; known: {', '.join(sorted(known))}"
            )


def apply_policy(original: M, modified: BaseModel, policy: HookPayloadPolicy, *, apply_to: M | None = None) -> M | None:
    """Take over the changes that a policy allows; name the others in one WARNING.

    Args:
        original: What the plugin was shown; tells what has changed.
        modified: What it gave back. An attribute that was deleted counts as unchanged.
        apply_to: What the changes are written onto; `original` unless given.

    Returns:
        A changed copy of the target, whose new values are not validated, or `None` when nothing was taken over.
    """
    accepted: dict[str, Any] = {}
    rejected: list[str] = []
    for name in type(modified).model_fields:
        after = getattr(modified, name, _MISSING)
        if after is _MISSING or _equal(getattr(original, name, _MISSING), after):
            continue
        if name in policy.writable_fields:
            accepted[name] = after
        else:
            rejected.append(name)
    if rejected:
        logger.warning("Changes of payload fields %s were rejected by the hook's policy", sorted(rejected))
    target = apply_to if apply_to is not None else original
    return target.model_copy(update=accepted) if accepted else None


def _equal(before: Any, after: Any) -> bool:
    if isinstance(before, BaseModel) and isinstance(after, BaseModel):
        # Values that `model_copy` put there unvalidated would each warn when dumped.
        return bool(after.model_dump(warnings=False) == before.model_dump(warnings=False))
    return bool(after == before)
