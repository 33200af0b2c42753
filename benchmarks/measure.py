"""Measuring one row: both sides in turn, round after round."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from benchmarks.rows import Row
from benchmarks.sides import Driver, SideError, run_cold

Unit = Literal["us", "s", "MiB", "us/event"]
Series = list[float]

_FIRST_CALLS = 20


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    ours: Path
    """The interpreter with this tree."""
    rival: Path
    """The interpreter with the published package."""
    events: Path
    rounds: int = 15
    cold_rounds: int = 7
    loop_s: float = 0.1
    """Seconds that one loop of one round should take."""


@dataclass
class Measurement:
    """The rounds of one figure. Smaller is better; entries of one index were measured next to each other."""

    row: Row
    title: str
    unit: Unit
    ours: Series = field(default_factory=list)
    rival: Series = field(default_factory=list)
    ours_baseline: Series = field(default_factory=list)
    rival_baseline: Series = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """A row that could not be measured."""

    row: Row
    message: str


def measure(row: Row, plan: Plan) -> list[Measurement] | Failure:
    """All figures of one row: one for a loop or a stream, time and memory for a fresh interpreter."""
    kinds: dict[str, Callable[[Row, Plan], list[Measurement]]] = {"loop": _loop, "stream": _stream}
    try:
        return kinds.get(row.kind, _cold)(row, plan)
    except SideError as error:
        return Failure(row, str(error))


def in_turn(first: Callable[[], None], second: Callable[[], None], rounds: int) -> None:
    """Run both `rounds` times, the other one first every second time, so that drift of the machine hits both alike."""
    for number in range(rounds):
        for run in (first, second) if number % 2 == 0 else (second, first):
            run()


class _LoopSide:
    """One side of a loop row: warmed up, with the number of calls that fills the wanted time."""

    def __init__(self, driver: Driver, row: Row, loop_s: float) -> None:
        driver.ask(do="prepare", case=row.key)
        self._driver = driver
        self._calls = {what: self._calibrated(what, loop_s) for what in ("baseline", "subject")}

    def _calibrated(self, what: str, loop_s: float) -> int:
        # The first loops also warm up: caches, specialised byte code, the allocator.
        calls, wanted_ns = _FIRST_CALLS, loop_s * 1e9
        while True:
            ns: int = self._driver.ask(do="loop", what=what, calls=calls)["ns"]
            if ns * 2 >= wanted_ns:
                return max(1, int(calls * wanted_ns / ns))
            calls *= 2

    def microseconds(self, what: str) -> float:
        """Time of one call, averaged over one loop."""
        calls = self._calls[what]
        ns: int = self._driver.ask(do="loop", what=what, calls=calls)["ns"]
        return ns / calls / 1000


def _loop(row: Row, plan: Plan) -> list[Measurement]:
    found = Measurement(row, row.title, "us")
    with ExitStack() as stack:
        ours, rival = (
            _LoopSide(stack.enter_context(Driver(python)), row, plan.loop_s) for python in (plan.ours, plan.rival)
        )

        def turn(side: _LoopSide, baseline: Series, subject: Series) -> None:
            baseline.append(side.microseconds("baseline"))
            subject.append(side.microseconds("subject"))

        in_turn(
            lambda: turn(ours, found.ours_baseline, found.ours),
            lambda: turn(rival, found.rival_baseline, found.rival),
            plan.rounds,
        )
    return [found]


def _cold(row: Row, plan: Plan) -> list[Measurement]:
    time = Measurement(row, f"{row.title}: time", "s")
    memory = Measurement(row, f"{row.title}: memory", "MiB")

    def turn(python: Path, series: Callable[[Measurement], tuple[Series, Series]]) -> None:
        subject = run_cold(python, row.kind, row.argument)
        series(time)[0].append(subject["seconds"])
        series(memory)[0].append(subject["mib"])
        if row.baseline:
            baseline = run_cold(python, row.kind, row.baseline)
            series(time)[1].append(baseline["seconds"])
            series(memory)[1].append(baseline["mib"])

    # Unrecorded: writes byte code and fills the file cache.
    for python in (plan.ours, plan.rival):
        run_cold(python, row.kind, row.argument)
    in_turn(
        lambda: turn(plan.ours, lambda found: (found.ours, found.ours_baseline)),
        lambda: turn(plan.rival, lambda found: (found.rival, found.rival_baseline)),
        plan.cold_rounds,
    )
    return [time, memory]


def _stream(row: Row, plan: Plan) -> list[Measurement]:
    found = Measurement(row, row.title, "us/event")
    builtin = row.argument == "builtin"
    with ExitStack() as stack:
        ours, rival = (stack.enter_context(Driver(python)) for python in (plan.ours, plan.rival))

        def ask(driver: Driver, builtin: bool) -> dict[str, Any]:
            return driver.ask(do="stream", events=str(plan.events), builtin=builtin)

        # The first pass warms up, and shows that both sides do the same work.
        tally = [_tally(ask(ours, builtin)), _tally(ask(rival, False))]
        if not builtin and tally[0] != tally[1]:
            raise SideError(f"the two sides decided differently: {tally[0]} and {tally[1]}")
        found.notes = {"ours": tally[0], "rival": tally[1]}
        in_turn(
            lambda: found.ours.append(_per_event(ask(ours, builtin))),
            lambda: found.rival.append(_per_event(ask(rival, False))),
            plan.cold_rounds,
        )
    return [found]


def _tally(answer: dict[str, Any]) -> dict[str, int]:
    return {key: answer[key] for key in ("events", "denied", "changed")}


def _per_event(answer: dict[str, Any]) -> float:
    return float(answer["ns"] / answer["events"] / 1000)
