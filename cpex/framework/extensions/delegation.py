"""On whose behalf the operation runs: the chain of delegations that led to it."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import Field

from cpex.framework.clock import now
from cpex.framework.extensions.base import ExtensionModel

__all__ = ["DelegationExtension", "DelegationHop"]


class DelegationHop(ExtensionModel):
    """One step of delegation: who acts from here on, and with what."""

    subject_id: str
    subject_type: str
    """Free text; usually one of the values of `SubjectType`."""
    audience: str | None = None
    scopes_granted: tuple[str, ...] = ()
    timestamp: datetime = Field(default_factory=now)
    """By default the moment of construction, in UTC."""
    ttl_seconds: int | None = None
    strategy: str | None = None
    """Free text such as `token_exchange`, `ucan` or `passthrough`."""
    from_cache: bool = False


class DelegationExtension(ExtensionModel):
    """The chain of delegations, first hop first. Plugins may append to it, never rewrite it."""

    chain: tuple[DelegationHop, ...] = ()
    depth: int = 0
    origin_subject_id: str | None = None
    actor_subject_id: str | None = None
    delegated: bool = False
    age_seconds: float = 0.0
    """Seconds between the first hop and the latest append; zero while there is one hop only."""

    def with_new_hop(self, hop: DelegationHop) -> DelegationExtension:
        """Append a hop: a new value whose depth, origin, actor and age are recomputed.

        An origin that is already set stays. A first hop without a time zone is taken as UTC.
        """
        chain = (*self.chain, hop)
        return self.model_copy(
            update={
                "chain": chain,
                "depth": len(chain),
                "origin_subject_id": self.origin_subject_id or hop.subject_id,
                "actor_subject_id": hop.subject_id,
                "delegated": True,
                "age_seconds": _seconds_since(self.chain[0].timestamp) if self.chain else 0.0,
            }
        )


def _seconds_since(moment: datetime) -> float:
    aware = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return (now() - aware).total_seconds()
