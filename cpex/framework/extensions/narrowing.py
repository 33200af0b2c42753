"""Whether each step of a delegation grants no more than the step before it.

A hop that states scopes may only state such as the nearest hop before it that states any was granted, and, when the
chain has been at the same audience before, such as it was granted there. Scopes of another audience may have other
names: what they may become there is said by whoever configures the plugin that exchanges tokens, not by the plugin.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from cpex.framework.extensions.delegation import DelegationHop

__all__ = ["ScopeMapping", "widening"]

ScopeMapping: TypeAlias = Mapping[str, Mapping[str, Sequence[str]]]
"""`{audience: {scope held before: [what it may become there]}}`; a scope that is not listed keeps its name."""

_NO_MAPPING: ScopeMapping = {}


def widening(chain: Sequence[DelegationHop], known: int, mapping: ScopeMapping | None = None) -> str | None:
    """What is wrong with the first hop that grants more than it may; `None` when every new hop is narrow enough.

    Args:
        known: How many hops were there before; they are not judged.
        mapping: What scopes may become at other audiences.
    """
    granted: frozenset[str] | None = None
    audience: str | None = None
    granted_at: dict[str | None, frozenset[str]] = {}
    for place, hop in enumerate(chain):
        # A hop that names no audience stays where the chain is, or leaving the name out would lift the limit.
        there = hop.audience if hop.audience is not None else audience
        # No scopes: nothing is stated, and what was granted before holds on.
        stated = frozenset(hop.scopes_granted)
        if place >= known and stated and granted is not None:
            limit = granted if there == audience else _mapped(granted, (mapping or _NO_MAPPING).get(there or "", {}))
            excess = stated - (limit & granted_at.get(there, limit))
            if excess:
                return _told(place, hop, excess, moved=there != audience)
        if stated:
            granted = granted_at[there] = stated
        audience = there
    return None


def _mapped(scopes: frozenset[str], mapping: Mapping[str, Sequence[str]]) -> frozenset[str]:
    return frozenset(new for scope in scopes for new in mapping.get(scope, (scope,)))


def _told(place: int, hop: DelegationHop, excess: frozenset[str], *, moved: bool) -> str:
    scopes = ", ".join(f"`{scope}`" for scope in sorted(excess))
    help_ = (
        f"; if scopes have other names at `{hop.audience}`, list them in the plugin's `scope_mapping`" if moved else ""
    )
    return f"hop {place} of the chain grants {scopes}, which the hops before it were not granted{help_}"
