"""The command line of the benchmarks.

Usage: `python -m benchmarks [--quick] [--only ROW] [--events FILE] [--json PATH]`. Exit codes: 0 all rows were
measured, 1 some could not be, 2 usage. A figure out of reach is a line in the table, not a failure.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.measure import Failure, Plan, measure
from benchmarks.report import Figures, document, figures, print_table
from benchmarks.rows import ROWS
from benchmarks.sides import Driver, SideError, rival_python

EVENTS = Path(__file__).parents[1] / "examples" / "layered" / "events.jsonl"


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """The options; a wrong one ends the program with a message and status 2."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=_summary())
    parser.add_argument("--only", action="append", metavar="ROW", choices=[row.key for row in ROWS], help="repeatable")
    parser.add_argument("--events", type=Path, default=EVENTS, metavar="FILE", help="stream for the last rows")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write every round to this file")
    parser.add_argument("--quick", action="store_true", help="few and short rounds: a try-out, not a figure")
    parser.add_argument(
        "--ours", type=Path, default=Path(sys.executable), metavar="PYTHON", help="interpreter to judge"
    )
    parser.add_argument("--rival", type=Path, metavar="PYTHON", help="interpreter with the package to compare with")
    parser.add_argument("--list", action="store_true", help="print the rows and stop")
    options = parser.parse_args(words)
    if not options.events.is_file():
        parser.error(f"no such file: {options.events}")
    return options


def _summary() -> str:
    from benchmarks import __doc__ as text

    return (text or "").splitlines()[0]


def main(words: Sequence[str] | None = None) -> int:
    """Measure, print the table, and write the document."""
    options = parse(words)
    if options.list:
        print("\n".join(f"{row.key:18} {row.title}" for row in ROWS))
        return 0
    try:
        plan = Plan(options.ours, options.rival or rival_python(), options.events.absolute())
        if options.quick:
            plan = replace(plan, rounds=3, cold_rounds=1, loop_s=0.02)
        run = describe(plan)
    except SideError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    lines, failures = run_rows(options.only, plan)
    print_table(lines, f"cpex {run['rival']['cpex']}")
    for failure in failures:
        print(f"error: row `{failure.row.key}` could not be measured: {failure.message}", file=sys.stderr)
    if options.json:
        text = json.dumps(document(lines, failures, run), indent=1, ensure_ascii=False)
        options.json.write_text(text + "\n", encoding="utf-8")
    return 1 if failures else 0


def run_rows(only: list[str] | None, plan: Plan) -> tuple[list[Figures], list[Failure]]:
    """Measure the chosen rows, all when none is chosen, one after another."""
    lines: list[Figures] = []
    failures: list[Failure] = []
    for row in ROWS:
        if only and row.key not in only:
            continue
        print(f"measuring {row.key}", file=sys.stderr)
        found = measure(row, plan)
        if isinstance(found, Failure):
            failures.append(found)
        else:
            lines += [figures(measurement) for measurement in found]
    return lines, failures


def describe(plan: Plan) -> dict[str, Any]:
    """What a reader of the figures must know of the run."""
    with Driver(plan.ours) as ours, Driver(plan.rival) as rival:
        versions = {"ours": ours.ask(do="version"), "rival": rival.ask(do="version")}
    return {
        **versions,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": platform.machine(),
        "system": platform.system(),
        "processors": os.cpu_count(),
        "events": plan.events.name,
        "rounds": plan.rounds,
        "cold_rounds": plan.cold_rounds,
        "loop_s": plan.loop_s,
    }


if __name__ == "__main__":
    sys.exit(main())
