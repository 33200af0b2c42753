"""Which of a plugin's changes the chain takes over.

Values in, values out: nothing here knows of phases, records or tasks.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from cpex.framework.hooks.http import HttpHeaderPayload
from cpex.framework.hooks.policies import DefaultHookPolicy, HookPayloadPolicy
from cpex.framework.memory.grafting import graft
from cpex.framework.models.copying import copy_tree
from cpex.framework.models.lazy import complete
from cpex.framework.pipeline.plan import HookPlan

# The name under which hosts filter rejected writes.
logger = logging.getLogger("cpex.framework.hooks.policies")


class ForeignPayload(TypeError):
    """A plugin returned a payload that this hook has no use for."""


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of a returned payload: the new payload of the chain or the new reply."""

    payload: Any = None
    reply: Any = None
    is_reply: bool = False


@dataclass(frozen=True, slots=True)
class Rules:
    """What may be written in one hook: the host's policy for it, or the default for hooks without one."""

    policy: HookPayloadPolicy | None
    default: DefaultHookPolicy

    @property
    def closed(self) -> bool:
        """Whether nothing may be written."""
        return self.policy is None and self.default is DefaultHookPolicy.DENY


def accept(
    plan: HookPlan, rules: Rules, plugin: str, *, current: Any, shown: Any, returned: Any, reply: Any
) -> Accepted | None:
    """Decide about a payload that a plugin returned.

    Args:
        current: The chain's payload, which no plugin has held.
        shown: The view that the plugin was handed.
        returned: What it gave back; may be `shown` itself, edited.
        reply: The reply gathered so far, for hooks whose reply is of another type than their payload.

    Returns:
        The accepted change, made of nothing that the plugin still holds, or `None`.

    Raises:
        ForeignPayload: The value is of a class that the hook does not know.
        pydantic.ValidationError: It is a dict that does not fit the hook's payload or reply.
    """
    if rules.closed:
        logger.warning(
            "Plugin %s: modified payload of hook %s was rejected: the hook has no policy and the default is deny",
            plugin,
            plan.hook,
        )
        return None
    kind = type(current)
    if plan.reply_type is not None and not (isinstance(returned, kind) and kind is not dict):
        return Accepted(reply=_merge_reply(reply, _as_reply(plan, plugin, returned)), is_reply=True)
    returned = _as_payload(plan, rules, plugin, kind, returned)
    if isinstance(returned, kind) and rules.policy is not None and isinstance(current, BaseModel):
        return _filtered(rules.policy, plugin, current, returned)
    grafted = graft(current, returned)
    if grafted is not current:
        return Accepted(payload=grafted)
    if returned is shown:
        return None
    # An equal object of the plugin's own making: it asked for a replacement, and gets one.
    return Accepted(payload=current.model_copy() if isinstance(current, BaseModel) else copy_tree(current))


def _as_payload(plan: HookPlan, rules: Rules, plugin: str, kind: type[Any], returned: Any) -> Any:
    if isinstance(returned, kind):
        return returned
    if plan.payload_type is not None and isinstance(returned, plan.payload_type) and rules.policy is None:
        return returned
    if isinstance(returned, dict) and issubclass(kind, BaseModel):
        return kind.model_validate(returned)
    if plan.payload_type is None and rules.policy is None:
        # Nobody registered the hook, so nobody has said what its payload is.
        return returned
    raise ForeignPayload(
        f"plugin {plugin} returned a modified payload of type {type(returned).__name__} for hook {plan.hook}; "
        f"expected {kind.__name__}"
    )


def _filtered(policy: HookPayloadPolicy, plugin: str, current: BaseModel, returned: BaseModel) -> Accepted | None:
    """Take over the writable fields that differ, those that no class declares included; WARN about the others."""
    complete(returned)
    extra, more = current.__pydantic_extra__ or {}, returned.__pydantic_extra__ or {}
    before, after = {**current.__dict__, **extra}, {**returned.__dict__, **more}
    updates: dict[str, Any] = {}
    rejected = {name for name in extra if name not in after}
    for name in (*type(current).model_fields, *more):
        if name not in after:
            continue
        value = graft(before[name], after[name]) if name in before else copy_tree(after[name])
        if name in before and value is before[name]:
            continue
        # What the payload's class has no place for would be lost in the copy.
        if name in policy.writable_fields and (name not in more or current.__pydantic_extra__ is not None):
            updates[name] = value
        else:
            rejected.add(name)
    if rejected:
        logger.warning("Plugin %s: changes of fields %s were rejected by the hook's policy", plugin, sorted(rejected))
    return Accepted(payload=current.model_copy(update=updates)) if updates else None


def _as_reply(plan: HookPlan, plugin: str, returned: Any) -> Any:
    expected = plan.reply_type
    assert expected is not None  # the caller has asked for it
    if isinstance(returned, expected):
        return copy_tree(returned)
    if isinstance(returned, dict) and issubclass(expected, BaseModel):
        return expected.model_validate(copy_tree(returned))
    raise ForeignPayload(
        f"plugin {plugin} returned a reply of type {type(returned).__name__} for hook {plan.hook}; "
        f"expected {expected.__name__}"
    )


def _merge_reply(before: Any, now: Any) -> Any:
    """Headers accumulate; of other replies the last one stands, whole."""
    if isinstance(before, HttpHeaderPayload) and isinstance(now, HttpHeaderPayload):
        return HttpHeaderPayload({**before.root, **now.root})
    return now
