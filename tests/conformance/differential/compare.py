"""Whether both packages do the same, but for the listed departures."""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from .case import Case
from .expectations import EXPECTATIONS
from .scenarios import Scenario
from .sides import Side
from .translation import REWRITES


@dataclass(frozen=True)
class Difference:
    """One place in which the outcome here is not the expected one."""

    path: str
    expected: Any
    ours: Any

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected!r}, got {self.ours!r}"


@dataclass
class Tally:
    """How many scenarios were compared, and in how many of them each departure showed."""

    scenarios: int = 0
    departures: Counter[str] = field(default_factory=Counter)


def compare(scenario: Scenario, ours: Side, theirs: Side, tally: Tally) -> list[Difference]:
    """Act a scenario out here and, translated, there; what is left after the listed departures is a fault.

    Raises:
        SideError: A side could not act it out.
    """
    departures: set[str] = set()
    translated = copy.deepcopy(scenario)
    for decision, rewrite in REWRITES:
        before = copy.deepcopy(translated)
        rewrite(translated)
        if translated != before:
            departures.add(decision)
    ours.tell(scenario)
    theirs.tell(translated)
    told_here, told_there = ours.outcome(), theirs.outcome()
    found = _judge(scenario, translated, told_here, told_there, departures)
    tally.scenarios += 1
    # Some expectations only even out where the script notices a failure; they belong to no decision.
    tally.departures.update(departures - {""})
    return found


def _judge(
    scenario: Scenario, translated: Scenario, here: dict[str, Any], there: dict[str, Any], departures: set[str]
) -> list[Difference]:
    found = list(_differences(there["start"], here["start"], "start"))
    earlier: list[dict[str, Any]] = []
    for number, (ours, theirs) in enumerate(zip(here["calls"], there["calls"], strict=False)):
        case = Case(scenario, translated, number, ours, theirs, earlier)
        for decision, expect in EXPECTATIONS:
            before = copy.deepcopy((case.ours, case.theirs))
            expect(case)
            if (case.ours, case.theirs) != before:
                departures.add(decision)
        found += _differences(case.theirs, case.ours, f"calls[{number}]")
        earlier.append(case.theirs)
        if case.last:
            break
    return found


def _differences(expected: Any, ours: Any, path: str) -> Iterator[Difference]:
    if isinstance(expected, dict) and isinstance(ours, dict):
        for key in {**expected, **ours}:
            yield from _differences(expected.get(key, "<absent>"), ours.get(key, "<absent>"), f"{path}.{key}")
    elif isinstance(expected, list) and isinstance(ours, list) and len(expected) == len(ours):
        for index, (one, other) in enumerate(zip(expected, ours, strict=True)):
            yield from _differences(one, other, f"{path}[{index}]")
    elif expected != ours or type(expected) is not type(ours):
        yield Difference(path, expected, ours)
