"""Makes the page of differences: `python -m tests.conformance.differential --write-page`."""

from __future__ import annotations

from pathlib import Path

from ..manifest import Requirement, requirements
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

The chapters are those of the manifest of required behaviours (`tests/conformance/manifest.yaml`), and what it demands
stands below each table. Every entry of it is tied to its tests, both ways.

This page is generated: `{COMMAND}`
"""


def compared() -> frozenset[str]:
    """The decisions that a differential run acts out."""
    return frozenset(decision for decision, _ in (*REWRITES, *EXPECTATIONS) if decision)


def text() -> str:
    """The whole page, from the manifest; the departures say how the published release differs."""
    demanded: dict[str, list[Requirement]] = {}
    for entry in requirements():
        if entry.id[0] in "DEMPV":
            demanded.setdefault(entry.id.split(".")[0], []).append(entry)
    chapters = [_chapter(heading, rows, demanded) for heading, rows in CHAPTERS]
    # What is left was told by no departure: the published release has nothing to compare it with.
    return "\n".join([_HEAD, *chapters, "## Beyond the published release", "", *_demands(demanded, list(demanded)), ""])


def _chapter(heading: str, rows: tuple[Departure, ...], demanded: dict[str, list[Requirement]]) -> str:
    lines = [f"## {heading}", "", "| | | what | 0.1.4 | here |", "| --- | --- | --- | --- | --- |"]
    acted_out = compared()
    for row in rows:
        mark = "●" if row.decision in acted_out else ""
        lines.append(f"| {row.decision} | {mark} | {row.topic} | {row.published} | {row.here} |")
    return "\n".join([*lines, "", *_demands(demanded, [row.decision for row in rows]), ""])


def _demands(demanded: dict[str, list[Requirement]], decisions: list[str]) -> list[str]:
    """What the manifest demands by these decisions; each is told once."""
    told = [entry for decision in decisions for entry in demanded.pop(decision, ())]
    return [f"- **{entry.id}** {entry.behaviour}{_not_yet(entry)}" for entry in told]


def _not_yet(entry: Requirement) -> str:
    return f" *Not yet: {entry.reason}*" if entry.status == "not yet" else ""
