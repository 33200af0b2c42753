"""The kinds of personal data, and what a finding of one is."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

__all__ = ["RANK", "Candidate", "Finding", "PiiType", "settled"]


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


_TYPES = tuple(PiiType)
RANK = {type_: rank for rank, type_ in enumerate(_TYPES)}
"""Place of a type in the list; the lower one wins."""

# Half the time of calling the class, which would unpack and pack its arguments.
_new = tuple.__new__

Candidate = tuple[int, int, int]
"""`(start, rank of the type, end)`: what recognisers add, in an order in which plain sorting settles overlaps."""


def settled(candidates: list[Candidate]) -> list[Finding]:
    """The candidates in order, without those that overlap one of a type that goes before."""
    if len(candidates) == 1:
        start, rank, end = candidates[0]
        return [_new(Finding, (start, end, _TYPES[rank]))]
    candidates.sort()
    findings: list[Finding] = []
    last_end, last_rank = 0, len(_TYPES)
    for start, rank, end in candidates:
        if start < last_end:
            if rank >= last_rank:
                continue
            findings.pop()
        findings.append(_new(Finding, (start, end, _TYPES[rank])))
        last_end, last_rank = end, rank
    return findings
