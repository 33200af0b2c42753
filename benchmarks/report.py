"""From rounds to figures: medians, ratios with their spread, and whether a row reaches what it should."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median, quantiles
from typing import Any

from benchmarks.measure import Failure, Measurement, Series
from benchmarks.rows import Target


@dataclass(frozen=True)
class Ratio:
    """A ratio of figures that were measured next to each other, over all rounds."""

    median: float
    low: float
    """First quartile."""
    high: float
    """Third quartile."""

    def __str__(self) -> str:
        return f"{self.median:.3g} ({self.low:.3g}-{self.high:.3g})"


def ratio(upper: Series, lower: Series) -> Ratio | None:
    """How many times `lower` goes into `upper`, round by round; `None` when one of them was not measured."""
    each = [a / b for a, b in zip(upper, lower, strict=False) if b > 0]
    if not each:
        return None
    low, _, high = quantiles(each, n=4, method="inclusive") if len(each) > 1 else each * 3
    return Ratio(median(each), low, high)


@dataclass(frozen=True)
class Figures:
    """One line of the table."""

    key: str
    title: str
    unit: str
    baseline: str | None
    ours: float
    rival: float
    ours_over_baseline: Ratio | None
    rival_over_baseline: Ratio | None
    speedup: Ratio | None
    reach: str
    met: bool | None
    """Whether everything in `reach` holds; `None` when there is nothing to reach."""
    notes: dict[str, Any]
    rounds: dict[str, Series]


def figures(found: Measurement) -> Figures:
    """Sum up one measurement."""
    over = ratio(found.ours, found.ours_baseline)
    speedup = ratio(found.rival, found.ours)
    reach = _reach(found, over, speedup)
    return Figures(
        key=found.row.key,
        title=found.title,
        unit=found.unit,
        baseline=found.row.baseline,
        ours=median(found.ours),
        rival=median(found.rival),
        ours_over_baseline=over,
        rival_over_baseline=ratio(found.rival, found.rival_baseline),
        speedup=speedup,
        reach=", ".join(text for text, _ in reach),
        met=all(holds for _, holds in reach) if reach else None,
        notes=found.notes,
        rounds={
            "ours": found.ours,
            "rival": found.rival,
            "ours_baseline": found.ours_baseline,
            "rival_baseline": found.rival_baseline,
        },
    )


def _reach(found: Measurement, over: Ratio | None, speedup: Ratio | None) -> list[tuple[str, bool]]:
    """What the row should reach of this figure, and whether it does."""
    target: Target = found.row.target
    times, limit = (target.memory_ratio, target.mib) if found.unit == "MiB" else (target.speedup, target.seconds)
    wanted: list[tuple[str, bool]] = []
    if limit is not None:
        wanted.append((f"≤ {limit:g} {found.unit}", median(found.ours) <= limit))
    if target.over_baseline is not None and over is not None:
        wanted.append((f"≤ {target.over_baseline:g}x {found.row.baseline}", over.median <= target.over_baseline))
    if times is not None and speedup is not None:
        wanted.append((f"≥ {times:g}x better", speedup.median >= times))
    return wanted


def amount(value: float, unit: str) -> str:
    """A figure as the table shows it: small times in their own unit, a stream as events a second."""
    if unit == "us/event":
        return f"{1e6 / value:,.0f}/s"
    if unit == "us":
        return f"{value:,.2f} µs"
    return f"{value * 1000:,.1f} ms" if unit == "s" else f"{value:,.1f} MiB"


def document(lines: Iterable[Figures], failures: Iterable[Failure], run: dict[str, Any]) -> dict[str, Any]:
    """Everything about a run as one JSON object: `run`, `rows` with all rounds, and `failures`."""
    return {
        "run": run,
        "rows": [asdict(line) for line in lines],
        "failures": [{"key": failure.row.key, "message": failure.message} for failure in failures],
    }


def print_table(lines: Iterable[Figures], rival: str) -> None:
    """Print the table on standard output; without a terminal it is plain text, as wide as it needs to be."""
    from rich.console import Console
    from rich.table import Table

    table = Table("measure", "ours", "x baseline", rival, "x baseline", "better", "reach", "met")
    for column in (1, 2, 3, 4, 5):
        table.columns[column].justify = "right"
    for line in lines:
        table.add_row(
            line.title,
            amount(line.ours, line.unit),
            str(line.ours_over_baseline or ""),
            amount(line.rival, line.unit),
            str(line.rival_over_baseline or ""),
            f"{line.speedup}x" if line.speedup else "",
            line.reach,
            {True: "yes", False: "no", None: ""}[line.met],
        )
    console = Console()
    console = console if console.is_terminal else Console(width=220)
    console.print(table)
