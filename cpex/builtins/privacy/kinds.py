"""The kinds of personal data, and what a finding of one is."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["Finding", "PiiType", "new_tuple", "settled"]


class PiiType(StrEnum):
    """Kinds of personal data. Where spans overlap, the kind that comes first in this list wins."""

    EMAIL = "email"
    IBAN = "iban"
    CARD = "card"
    SSN = "ssn"
    IP = "ip"
    PHONE = "phone"


class Finding(NamedTuple):
    """One piece of personal data: `text[start:end]`."""

    start: int
    end: int
    type: str
    """A `PiiType`, or the name of a kind that another engine knows."""


# Half the time of calling `Finding`, which would unpack and pack its arguments.
new_tuple = tuple.__new__

_RANK: dict[str, int] = {type_: rank for rank, type_ in enumerate(PiiType)}


def settled(found: list[Finding]) -> list[Finding]:
    """Findings of our types in order, without those that overlap one of a type that goes before."""
    if len(found) < 2:
        return found
    found.sort()
    last_end = 0
    for start, end, _ in found:
        if start < last_end:
            return _without_overlaps(found)
        last_end = end
    return found


def _without_overlaps(found: list[Finding]) -> list[Finding]:
    kept: list[Finding] = []
    # Of those that start together, the type that goes before is met first.
    for finding in sorted(found, key=lambda finding: (finding.start, _RANK[finding.type], finding.end)):
        if kept and finding.start < kept[-1].end:
            if _RANK[finding.type] >= _RANK[kept[-1].type]:
                continue
            kept.pop()
        kept.append(finding)
    return kept
