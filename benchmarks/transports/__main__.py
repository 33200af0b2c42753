"""The command line: `python -m benchmarks.transports [--calls N] [--rounds N] [--only WAY]`.

Host and server are of the same side: this tree, or the published release. Both run in turn, round after round, so that
a busy machine is busy for both. A line shows the median of the rounds. Exit codes: 0 measured, 1 something was not.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import yaml

from benchmarks.sides import SideError, rival_python
from benchmarks.transports.ways import WAYS

CALLER = Path(__file__).with_name("caller.py")
LIMIT_S = 300
Figures = dict[str, list[float]]


async def measured(python: str, way: str, count: int) -> dict[str, Any]:
    """One round of one side; see `caller.py` for the shape."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        async with WAYS[way](python, folder) as entry:
            config = folder / "host.yaml"
            # Older hosts do not fetch what they need over every way.
            plugin = {"name": "noop", "kind": "external", "hooks": ["tool_pre_invoke"], **entry}
            config.write_text(yaml.safe_dump({"plugins": [plugin], "plugin_dirs": []}), encoding="utf-8")
            kept = {name: text for name, text in os.environ.items() if not name.startswith(("PLUGINS_", "PYTHON"))}
            caller = await asyncio.create_subprocess_exec(
                python, str(CALLER), str(config), str(count), env=kept, cwd=name, stdout=asyncio.subprocess.PIPE
            )
            output, _ = await asyncio.wait_for(caller.communicate(), LIMIT_S)
            if caller.returncode:
                raise SideError(f"the caller of {python} ended with {caller.returncode}")
            told: dict[str, Any] = json.loads(output.splitlines()[-1])
            return told


def add(figures: Figures, told: dict[str, Any]) -> None:
    """Keep what a round says: round trips per second, median and 99th percentile in milliseconds."""
    for callers in ("1", "32"):
        times = told[callers]
        figures.setdefault(f"{callers} rps", []).append(len(times) / told[f"wall_{callers}"])
        figures.setdefault(f"{callers} p50", []).append(median(times) * 1000)
        figures.setdefault(f"{callers} p99", []).append(quantiles(times, n=100)[98] * 1000)


def line(way: str, callers: str, ours: Figures, theirs: Figures) -> str:
    """One line of the table."""
    cells = [way, callers]
    for side in (ours, theirs):
        cells += [f"{median(side[f'{callers} {name}']):,.{digits}f}" for name, digits in _COLUMNS]
    pairs = zip(ours[f"{callers} rps"], theirs[f"{callers} rps"], strict=True)
    return "| " + " | ".join([*cells, f"{median(a / b for a, b in pairs):.2f}"]) + " |"


_COLUMNS = (("rps", 0), ("p50", 2), ("p99", 2))
_HEAD = ("way", "callers", *(f"{side} {name}" for side in ("here", "0.1.4") for name in ("/s", "p50 ms", "p99 ms")))


async def run(ways: list[str], count: int, rounds: int, rival: str) -> bool:
    """Measure and print; whether everything was measured."""
    print("| " + " | ".join([*_HEAD, "ratio /s"]) + " |\n" + "|---" * (len(_HEAD) + 1) + "|")
    complete = True
    for way in ways:
        sides: dict[str, Figures] = {sys.executable: {}, rival: {}}
        try:
            for _ in range(rounds):
                for python, figures in sides.items():
                    add(figures, await measured(python, way, count))
        except (SideError, RuntimeError, TimeoutError, OSError) as error:
            print(f"{way} was not measured: {error}", file=sys.stderr)
            complete = False
            continue
        for callers in ("1", "32"):
            print(line(way, callers, *sides.values()), flush=True)
    return complete


def main() -> int:
    """Measure what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.transports")
    parser.add_argument("--calls", type=int, default=1600, help="by one caller, and by 32, in each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", action="append", choices=list(WAYS), metavar="WAY", help="repeatable")
    options = parser.parse_args()
    try:
        rival = str(rival_python())
    except SideError as error:
        print(error, file=sys.stderr)
        return 1
    return 0 if asyncio.run(run(options.only or list(WAYS), options.calls, options.rounds, rival)) else 1


if __name__ == "__main__":
    sys.exit(main())
