"""Who may see and who may change which slot.

Every slot has a tier (may it change at all, and how) and an access policy (which capability opens it).
`filter_extensions` makes what a plugin is shown, `merge_extensions` decides what of its answer counts,
`validate_tier_constraints` judges a change strictly. All three read one table.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from types import MappingProxyType
from typing import Any

from pydantic import BaseModel

from cpex.framework.extensions.base import private_copy, same
from cpex.framework.extensions.constants import FIELD_DELEGATION, SlotName
from cpex.framework.extensions.delegation import DelegationExtension, DelegationHop
from cpex.framework.extensions.extensions import Extensions
from cpex.framework.extensions.http import HttpExtension
from cpex.framework.extensions.narrowing import ScopeMapping, widening
from cpex.framework.extensions.security import SecurityExtension, SubjectExtension
from cpex.framework.models.lazy import PENDING, build, raw_dict, set_raw_dict

__all__ = [
    "AccessPolicy",
    "Capability",
    "MutabilityTier",
    "SlotPolicy",
    "TierViolationError",
    "check_narrowing",
    "filter_extensions",
    "merge_extensions",
    "validate_tier_constraints",
]


class MutabilityTier(str, Enum):
    """How a slot may change."""

    IMMUTABLE = "immutable"
    """Only by the host, or wholesale by a plugin that holds the slot's write capability."""
    MONOTONIC = "monotonic"
    """It may grow, never shrink."""
    MUTABLE = "mutable"
    """Freely."""


class AccessPolicy(str, Enum):
    """Who may see a slot."""

    UNRESTRICTED = "unrestricted"
    CAPABILITY_GATED = "capability_gated"


class Capability(str, Enum):
    """What a plugin may be granted in its configuration."""

    READ_SUBJECT = "read_subject"
    READ_ROLES = "read_roles"
    READ_TEAMS = "read_teams"
    READ_CLAIMS = "read_claims"
    READ_PERMISSIONS = "read_permissions"
    READ_AGENT = "read_agent"
    READ_HEADERS = "read_headers"
    WRITE_HEADERS = "write_headers"
    READ_LABELS = "read_labels"
    APPEND_LABELS = "append_labels"
    READ_DELEGATION = "read_delegation"
    APPEND_DELEGATION = "append_delegation"


@dataclass(frozen=True, slots=True)
class SlotPolicy:
    """The rules of one slot."""

    tier: MutabilityTier
    access: AccessPolicy = AccessPolicy.UNRESTRICTED
    read_cap: Capability | None = None
    """Opens a gated slot."""
    write_cap: Capability | None = None
    """Allows changes, and implies reading."""


_OPEN = SlotPolicy(MutabilityTier.IMMUTABLE)


def _gated(
    read: Capability, write: Capability | None = None, tier: MutabilityTier = MutabilityTier.IMMUTABLE
) -> SlotPolicy:
    return SlotPolicy(tier, AccessPolicy.CAPABILITY_GATED, read, write)


_slot_registry: Mapping[SlotName, SlotPolicy] = MappingProxyType(
    {
        SlotName.REQUEST: _OPEN,
        SlotName.PROVENANCE: _OPEN,
        SlotName.COMPLETION: _OPEN,
        SlotName.LLM: _OPEN,
        SlotName.FRAMEWORK: _OPEN,
        SlotName.MCP: _OPEN,
        SlotName.META: _OPEN,
        SlotName.AGENT: _gated(Capability.READ_AGENT),
        SlotName.SECURITY_SUBJECT: _gated(Capability.READ_SUBJECT),
        SlotName.SECURITY_SUBJECT_ROLES: _gated(Capability.READ_ROLES),
        SlotName.SECURITY_SUBJECT_TEAMS: _gated(Capability.READ_TEAMS),
        SlotName.SECURITY_SUBJECT_CLAIMS: _gated(Capability.READ_CLAIMS),
        SlotName.SECURITY_SUBJECT_PERMISSIONS: _gated(Capability.READ_PERMISSIONS),
        SlotName.SECURITY_OBJECTS: _OPEN,
        SlotName.SECURITY_DATA: _OPEN,
        SlotName.SECURITY_LABELS: _gated(Capability.READ_LABELS, Capability.APPEND_LABELS, MutabilityTier.MONOTONIC),
        SlotName.HTTP: _gated(Capability.READ_HEADERS, Capability.WRITE_HEADERS),
        SlotName.DELEGATION: _gated(Capability.READ_DELEGATION, Capability.APPEND_DELEGATION, MutabilityTier.MONOTONIC),
        SlotName.CUSTOM: SlotPolicy(MutabilityTier.MUTABLE),
    }
)
"""The rules of every slot, in the order in which they are checked."""

_SUBJECT_PARTS = frozenset(
    {Capability.READ_ROLES, Capability.READ_TEAMS, Capability.READ_CLAIMS, Capability.READ_PERMISSIONS}
)
"""Each of them shows the subject's `id` and `type` as well."""


class TierViolationError(Exception):
    """A plugin changed a slot in a way that the slot's tier or the plugin's capabilities do not allow."""

    def __init__(self, plugin_name: str, slot: str, tier: MutabilityTier, detail: str) -> None:
        super().__init__(
            f"plugin `{plugin_name}` broke the {MutabilityTier(tier).value} tier of extension slot `{slot}`: {detail}"
        )
        self.plugin_name = plugin_name
        self.slot = slot
        self.tier = tier
        self.detail = detail

    def __reduce__(self) -> tuple[type[TierViolationError], tuple[str, str, MutabilityTier, str]]:
        return type(self), (self.plugin_name, self.slot, self.tier, self.detail)


Capabilities = Container[str] | Iterable[str]


def _held(capabilities: Capabilities) -> frozenset[str]:
    if isinstance(capabilities, frozenset):
        return capabilities
    if isinstance(capabilities, str):
        return frozenset({capabilities})
    if isinstance(capabilities, Iterable):
        return frozenset(capabilities)
    return frozenset(capability for capability in Capability if capability in capabilities)


def _may_read(policy: SlotPolicy, held: frozenset[str]) -> bool:
    return (
        policy.access is AccessPolicy.UNRESTRICTED
        or policy.read_cap in held
        or (policy.write_cap is not None and policy.write_cap in held)
        or (policy.read_cap is Capability.READ_SUBJECT and not held.isdisjoint(_SUBJECT_PARTS))
    )


@lru_cache(maxsize=256)
def _readable(held: frozenset[str]) -> frozenset[SlotName]:
    """The slots that a set of capabilities opens. Few sets exist: one per plugin configuration."""
    return frozenset(slot for slot, policy in _slot_registry.items() if _may_read(policy, held))


# Showing.

_FIELDS = tuple(Extensions.model_fields)


class _Visible:
    """Fills the slots of a plugin's view when they are first read; see `models/lazy.py`."""

    __slots__ = ("_readable", "original")

    def __init__(self, original: Extensions, readable: frozenset[SlotName]) -> None:
        self.original = original
        self._readable = readable

    def fields(self) -> tuple[str, ...]:
        return _FIELDS

    def fill(self, name: str) -> Any:
        value = getattr(self.original, name)
        if value is None:
            return None
        if name == "security":
            return _visible_security(value, self._readable)
        # INVARIANT: a slot that the table does not name stays hidden.
        return private_copy(value) if name in self._readable else None

    def state(self) -> tuple[set[str], None, None]:
        return set(_FIELDS), None, None


def _visible_security(security: SecurityExtension, readable: frozenset[SlotName]) -> SecurityExtension:
    # SECURITY: built from named fields, so that nothing a host's subclass adds is shown by accident.
    subject = security.subject
    shown: SecurityExtension = build(
        SecurityExtension,
        {
            "labels": security.labels if SlotName.SECURITY_LABELS in readable else frozenset(),
            "classification": security.classification,
            "subject": _visible_subject(subject, readable)
            if subject is not None and SlotName.SECURITY_SUBJECT in readable
            else None,
            "objects": private_copy(security.objects),
            "data": private_copy(security.data),
        },
    )
    return shown


def _visible_subject(subject: SubjectExtension, readable: frozenset[SlotName]) -> SubjectExtension:
    shown: SubjectExtension = build(
        SubjectExtension,
        {
            "id": subject.id,
            "type": subject.type,
            "roles": subject.roles if SlotName.SECURITY_SUBJECT_ROLES in readable else frozenset(),
            "permissions": subject.permissions if SlotName.SECURITY_SUBJECT_PERMISSIONS in readable else frozenset(),
            "teams": subject.teams if SlotName.SECURITY_SUBJECT_TEAMS in readable else frozenset(),
            "claims": private_copy(subject.claims) if SlotName.SECURITY_SUBJECT_CLAIMS in readable else {},
        },
    )
    return shown


def filter_extensions(extensions: Extensions | None, capabilities: Capabilities) -> Extensions | None:
    """Make what a plugin is shown: the slots that its capabilities open, the others `None`.

    Args:
        capabilities: Names or members of `Capability`, in any container or iterable.

    Returns:
        A container of the plugin's own, whose slots are made when they are first read; nothing that can be changed in
        place is shared with `extensions`. `None` when there are no extensions.
    """
    if extensions is None:
        return None
    view: Extensions = object.__new__(Extensions)
    set_raw_dict(view, {PENDING: _Visible(extensions, _readable(_held(capabilities)))})
    return view


# Taking back.


def merge_extensions(
    original: Extensions | None,
    plugin_output: Extensions | None,
    capabilities: Capabilities,
    plugin_name: str,
    *,
    scope_mapping: ScopeMapping | None = None,
) -> Extensions | None:
    """Decide which of a plugin's changes come back into the authoritative container.

    `http` is replaced with `write_headers`, labels and delegation hops are added with `append_labels` and
    `append_delegation`, `custom` is replaced freely. Any other change is ignored, so slots that the plugin could not
    see survive. The facts about a delegation chain (depth, origin, actor, age) are recomputed from its hops.

    Args:
        plugin_output: What the plugin returned; may be its view, edited in place.
        capabilities: Names or members of `Capability`, in any container or iterable.
        scope_mapping: What the scopes of a delegation may become at other audiences; see `narrowing.py`.

    Returns:
        `original` itself when nothing was accepted, else a new container. The plugin holds no part of it.

    Raises:
        TierViolationError: The plugin took labels away, shortened or rewrote the delegation chain, or appended a hop
            that grants more than the hops before it.
        pydantic.ValidationError: An accepted slot holds values of wrong types.
    """
    if original is None or plugin_output is None:
        return original
    if not isinstance(plugin_output, Extensions):
        plugin_output = Extensions.model_validate(plugin_output)
    held = _held(capabilities)
    returned = _touched(plugin_output, original)
    updates: dict[str, Any] = {}
    if Capability.WRITE_HEADERS in held and returned.get("http") is not None:
        updates["http"] = _replaced_http(original.http, returned["http"])
    if Capability.APPEND_LABELS in held and returned.get("security") is not None:
        updates["security"] = _labelled(original.security, returned["security"], plugin_name)
    if Capability.APPEND_DELEGATION in held and returned.get("delegation") is not None:
        updates["delegation"] = _extended(original.delegation, returned["delegation"], plugin_name, scope_mapping)
    if "custom" in returned:
        updates["custom"] = _replaced_custom(original.custom, returned["custom"])
    changed = {slot: value for slot, value in updates.items() if value is not getattr(original, slot)}
    return original.model_copy(update=changed) if changed else original


def _touched(output: Extensions, original: Extensions) -> dict[str, Any]:
    """The slots that a plugin may have changed: of a view of `original`, those that it has read."""
    values = raw_dict(output)
    filler = values.get(PENDING)
    if isinstance(filler, _Visible) and filler.original is original:
        return {name: value for name, value in values.items() if name != PENDING}
    return dict(output.__dict__)


# Each of the following returns the old value itself when nothing changed. What a plugin returns is validated again:
# `model_copy` and edits in place put anything anywhere.


def _replaced_http(old: HttpExtension | None, new: Any) -> HttpExtension:
    kind = type(old) if old is not None else HttpExtension
    value = private_copy(kind.model_validate(dict(new) if isinstance(new, BaseModel) else new))
    return old if old is not None and same(old, value) else value


def _replaced_custom(old: dict[str, Any] | None, new: Any) -> dict[str, Any] | None:
    value = Extensions.model_validate({"custom": new}).custom
    if value is None or old is None:
        return private_copy(value)
    # Entries that the plugin left alone stay the host's own objects.
    kept = {key for key, item in value.items() if key in old and same(old[key], item)}
    if len(kept) == len(old) == len(value):
        return old
    return {key: old[key] if key in kept else private_copy(item) for key, item in value.items()}


def _labelled(old: SecurityExtension | None, new: Any, plugin_name: str) -> SecurityExtension | None:
    returned = SecurityExtension.model_validate(new).labels
    labels = SecurityExtension.model_validate({"labels": returned}).labels
    before: frozenset[str] = old.labels if old is not None else frozenset()
    if not _has_grown(before, labels):
        gone = ", ".join(f"`{label}`" for label in sorted(before - labels))
        raise _broken_growth(plugin_name, SlotName.SECURITY_LABELS, f"labels may be added, never removed; gone: {gone}")
    if labels == before:
        return old
    return old.model_copy(update={"labels": labels}) if old is not None else SecurityExtension(labels=labels)


def _extended(
    old: DelegationExtension | None, new: Any, plugin_name: str, mapping: ScopeMapping | None
) -> DelegationExtension:
    chain = tuple(DelegationExtension.model_validate(new).chain)
    before = old if old is not None else DelegationExtension()
    if not _has_grown(before.chain, chain):
        detail = (
            f"the chain of {len(before.chain)} hops came back with {len(chain)}"
            if len(chain) < len(before.chain)
            else "a hop that was already in the chain has changed"
        )
        raise _broken_growth(plugin_name, FIELD_DELEGATION, detail)
    # SECURITY: of hops that nobody has checked, scopes could be anything that can be put into a frozen model.
    chain = (*before.chain, *(DelegationHop.model_validate(dict(hop)) for hop in chain[len(before.chain) :]))
    check_narrowing(chain, len(before.chain), plugin_name, mapping)
    return _with_hops(before, chain[len(before.chain) :])


def _with_hops(delegation: DelegationExtension, hops: Iterable[DelegationHop]) -> DelegationExtension:
    for hop in hops:
        delegation = delegation.with_new_hop(hop)
    return delegation


def check_narrowing(
    chain: tuple[DelegationHop, ...], known: int, plugin_name: str, mapping: ScopeMapping | None
) -> None:
    """Refuse a chain in which a hop after the first `known` ones grants more than it may; see `narrowing.py`.

    Raises:
        TierViolationError: One does.
    """
    if (fault := widening(chain, known, mapping)) is not None:
        raise _broken_growth(plugin_name, FIELD_DELEGATION, fault)


def _broken_growth(plugin_name: str, slot: str, detail: str) -> TierViolationError:
    return TierViolationError(plugin_name, slot, MutabilityTier.MONOTONIC, detail)


def _has_grown(before: Any, after: Any) -> bool:
    """Whether `after` continues `before`: a superset of labels, or a chain that starts with all the old hops."""
    if isinstance(before, frozenset):
        return isinstance(after, frozenset) and before <= after
    return isinstance(after, tuple) and after[: len(before)] == before


# Judging.


def validate_tier_constraints(
    before: Extensions | None,
    after: Extensions | None,
    capabilities: Capabilities,
    plugin_name: str,
    *,
    scope_mapping: ScopeMapping | None = None,
) -> None:
    """Judge every difference between two unfiltered containers by the rules of its slot.

    For hosts and tests that want to know rather than to have foreign changes ignored; the pipeline itself merges.

    Args:
        capabilities: Names or members of `Capability`, in any container or iterable.
        scope_mapping: What the scopes of a delegation may become at other audiences.

    Raises:
        TierViolationError: The first slot, in the order of the table, that changed in a way its rules do not allow.
    """
    if before is None and after is None:
        return
    held = _held(capabilities)
    for slot, policy in _slot_registry.items():
        old, new = _resolve(before, slot), _resolve(after, slot)
        if old != new:
            _judge(slot, policy, held, plugin_name, old, new)
            if isinstance(new, DelegationExtension):
                check_narrowing(new.chain, len(old.chain) if old is not None else 0, plugin_name, scope_mapping)


def _resolve(extensions: Extensions | None, slot: SlotName) -> Any:
    value: Any = extensions
    for name in slot.split("."):
        value = getattr(value, name, None)
    return value


def _judge(slot: SlotName, policy: SlotPolicy, held: frozenset[str], plugin_name: str, old: Any, new: Any) -> None:
    if policy.write_cap is None:
        if policy.tier is MutabilityTier.MUTABLE:
            return
        raise TierViolationError(plugin_name, slot, policy.tier, "no plugin may change this slot")
    if policy.write_cap not in held:
        raise TierViolationError(
            plugin_name, slot, policy.tier, f"changing it needs the capability `{policy.write_cap.value}`"
        )
    if policy.tier is MutabilityTier.MONOTONIC and not _is_legal_growth(old, new):
        raise TierViolationError(plugin_name, slot, policy.tier, "it may grow, never shrink or be rewritten")


def _is_legal_growth(old: Any, new: Any) -> bool:
    if old is None:
        return True
    if isinstance(old, DelegationExtension):
        chain = new.chain if new is not None else ()
        if not _has_grown(old.chain, chain):
            return False
        if len(chain) == len(old.chain):
            # The chain is as it was, so the difference lies in the facts about it, which are nobody's to write.
            return new is None
        expected = _with_hops(old, chain[len(old.chain) :])
        # Age depends on the moment of the append.
        return bool(new.model_copy(update={"age_seconds": expected.age_seconds}) == expected)
    return _has_grown(old, new if new is not None else frozenset())
