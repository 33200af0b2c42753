"""Makes scenarios, compares them, and reduces a fault to the smallest scenario that shows it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings

from .compare import Difference, Tally, compare
from .rare import RARE
from .scenarios import Scenario, scenarios
from .sides import Side

_MOST_SHOWN = 12


class Mismatch(AssertionError):
    """The two packages differ in something that no listed departure accounts for."""

    def __init__(self, scenario: Scenario, differences: list[Difference]) -> None:
        shown = "\n".join(f"  {difference}" for difference in differences[:_MOST_SHOWN])
        more = len(differences) - _MOST_SHOWN
        rest = f"\n  and {more} more" if more > 0 else ""
        super().__init__(f"differences:\n{shown}{rest}\nscenario:\n{json.dumps(scenario, indent=1)}")
        self.scenario = scenario
        self.differences = differences


def run(rival: Path, examples: int, number: int | None = None, *, reduce: bool = True) -> Tally:
    """Compare that many scenarios.

    Args:
        rival: An interpreter that has the published package.
        number: Seed; `None` for the same scenarios every time.
        reduce: Whether to look for the smallest scenario that shows a fault; it takes a while.

    Raises:
        Mismatch: A scenario showed a difference; it is the smallest that was found.
        SideError: A side broke down.
    """
    tally = Tally()
    with Side(Path(sys.executable)) as ours, Side(rival) as theirs:
        if ours.framework == theirs.framework:
            raise ValueError(f"`{rival}` has this package, not the published one")

        for scenario in RARE:
            if found := compare(scenario, ours, theirs, tally):
                raise Mismatch(scenario, found)

        # Process start-up and time limits make single scenarios slow; nothing is wrong with them.
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            derandomize=number is None,
            phases=[Phase.generate, Phase.shrink] if reduce else [Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(scenarios())
        def check(scenario: Scenario) -> None:
            found = compare(scenario, ours, theirs, tally)
            if found:
                raise Mismatch(scenario, found)

        checked: Any = check if number is None else seed(number)(check)
        checked()
    return tally
