"""What the replies of the identity hooks mean for the call: a refusal denies, a subject and a delegation take effect.

Values in, values out: the call asks for the refusal that a result carries and for the extensions that a reply leads to,
and decides what becomes of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from cpex.framework.extensions import Extensions
from cpex.framework.extensions.base import ExtensionModel, private_copy, same
from cpex.framework.extensions.delegation import DelegationExtension
from cpex.framework.extensions.narrowing import ScopeMapping
from cpex.framework.extensions.security import SecurityExtension, SubjectExtension
from cpex.framework.extensions.tiers import Capability, check_narrowing, merge_extensions
from cpex.framework.hooks.identity import IdentityHookType, IdentityResult
from cpex.framework.models.result import PluginResult, PluginViolation

__all__ = ["EFFECTS", "REJECTED", "ReplyEffects"]

REJECTED = "identity_rejected"
"""Code of the violation that a refused identity becomes."""
_UNAUTHORIZED = 401
_MAY_APPEND = frozenset({Capability.APPEND_DELEGATION.value})


@dataclass(frozen=True, slots=True)
class ReplyEffects:
    """What the replies of one hook do, beside being replies."""

    refusal: Callable[[PluginResult[Any], str], PluginViolation | None]
    """The denial that a plugin's result amounts to; `None` when it refuses nobody. Given result and plugin name."""
    extensions: Callable[[Extensions, Any, str, ScopeMapping], Extensions]
    """The extensions after an accepted reply: the given object itself when nothing changes. Given extensions, reply,
    plugin name, and what scopes may become at other audiences. Raises `TierViolationError` when a chain of delegations
    would do anything but grow, or grant more than before, and pydantic's `ValidationError` when the reply holds values
    of wrong types."""


def _refused(result: PluginResult[Any], plugin: str) -> PluginViolation | None:
    """A refused identity as a denial. The plugin's own violation stands, if it gave one.

    Raises:
        pydantic.ValidationError: The reply is a dict that does not fit.
    """
    reply = result.modified_payload
    if isinstance(reply, dict):
        reply = IdentityResult.model_validate(reply)
    if not isinstance(reply, IdentityResult) or not reply.rejected:
        return None
    reason = str(reply.reject_reason or "the identity was rejected")
    return result.violation or PluginViolation(
        reason=reason,
        description=reason,
        code=REJECTED,
        # SECURITY: `model_copy` lets any status through, and a refusal must not fail over it.
        http_status_code=reply.reject_status if isinstance(reply.reject_status, int) else _UNAUTHORIZED,
    )


def _never_refused(result: PluginResult[Any], plugin: str) -> PluginViolation | None:
    return None


def _resolved(extensions: Extensions, reply: Any, plugin: str, mapping: ScopeMapping) -> Extensions:
    """Enter the resolved subject, and the delegations that its token tells of."""
    if reply.rejected:
        return extensions
    if reply.subject is not None:
        extensions = _with_subject(extensions, _checked(reply.subject, SubjectExtension))
    if reply.delegation is not None:
        # What the caller's own token tells happened elsewhere: it is where narrowing starts from.
        extensions = _with_delegation(extensions, reply.delegation, plugin, mapping, first_is_given=True)
    return extensions


def _with_subject(extensions: Extensions, subject: SubjectExtension) -> Extensions:
    security = extensions.security
    if security is None:
        return extensions.model_copy(update={"security": SecurityExtension(subject=subject)})
    if same(security.subject, subject):
        return extensions
    return extensions.model_copy(update={"security": security.model_copy(update={"subject": subject})})


def _delegated(extensions: Extensions, reply: Any, plugin: str, mapping: ScopeMapping) -> Extensions:
    """Append the hops of an update: new hops alone, or the whole chain with new hops at its end."""
    update, old = reply.delegation_update, extensions.delegation
    if old is not None and update.chain and not any(hop in old.chain for hop in update.chain):
        update = update.model_copy(update={"chain": (*old.chain, *update.chain)})
    return _with_delegation(extensions, update, plugin, mapping)


def _with_delegation(
    extensions: Extensions, delegation: Any, plugin: str, mapping: ScopeMapping, *, first_is_given: bool = False
) -> Extensions:
    """Enter the first chain with the facts that it came with; let a chain that is there grow."""
    checked = _checked(delegation, DelegationExtension)
    old = extensions.delegation
    if checked == DelegationExtension():
        return extensions
    if old is None or not old.chain:
        if not first_is_given:
            check_narrowing(checked.chain, 0, plugin, mapping)
        return extensions if same(old, checked) else extensions.model_copy(update={"delegation": checked})
    if not checked.chain:
        return extensions
    returned = extensions.model_copy(update={"delegation": checked})
    merged = merge_extensions(extensions, returned, _MAY_APPEND, plugin, scope_mapping=mapping)
    assert merged is not None  # there were extensions to merge into
    return merged


def _checked(value: Any, expected: type[ExtensionModel]) -> Any:
    """A validated copy, of which neither the plugin nor the reply holds a part."""
    cls = type(value) if isinstance(value, expected) else expected
    return private_copy(cls.model_validate(dict(value)))


EFFECTS: dict[str, ReplyEffects] = {
    IdentityHookType.IDENTITY_RESOLVE.value: ReplyEffects(_refused, _resolved),
    IdentityHookType.TOKEN_DELEGATE.value: ReplyEffects(_never_refused, _delegated),
}
"""By hook."""
