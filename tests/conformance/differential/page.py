"""Makes the page of differences: `python -m tests.conformance.differential --write-page`."""

from __future__ import annotations

from pathlib import Path

from .departures import CHAPTERS, Departure
from .expectations import EXPECTATIONS
from .translation import REWRITES

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "differences.md"
COMMAND = "python -m tests.conformance.differential --write-page"

_HEAD = f"""# Differences

Names, signatures, wire formats and accepted values are those of `cpex` 0.1. Where behaviour differs from the published
release 0.1.4, it does so on purpose, and stands here.

Rows marked ● are acted out: `python -m tests.conformance.differential --examples 5000` makes thousands of scenarios
(plugins, modes, priorities, policies, conditions, payloads, failures), runs each here and, put into the words of the
published package, there, and compares what the host and every plugin saw, field by field. Whatever differs beyond this
page is a fault. The other rows are held by tests of their own.

This page is generated: `{COMMAND}`
"""


def compared() -> frozenset[str]:
    """The decisions that a differential run acts out."""
    return frozenset(decision for decision, _ in (*REWRITES, *EXPECTATIONS) if decision)


def text() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *(_chapter(heading, rows) for heading, rows in CHAPTERS)])


def _chapter(heading: str, rows: tuple[Departure, ...]) -> str:
    lines = [f"## {heading}", "", "| | | what | 0.1.4 | here |", "| --- | --- | --- | --- | --- |"]
    acted_out = compared()
    for row in rows:
        mark = "●" if row.decision in acted_out else ""
        lines.append(f"| {row.decision} | {mark} | {row.topic} | {row.published} | {row.here} |")
    return "\n".join([*lines, ""])
