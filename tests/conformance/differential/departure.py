"""One row of the table of departures."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Departure:
    """One decision to differ."""

    decision: str
    topic: str
    published: str
    here: str
