"""One command for the long run: `python -m tests.conformance.differential --examples 5000`."""

from __future__ import annotations

import argparse
import random
import sys
from pathlib import Path

from benchmarks.sides import SideError as InstallError
from benchmarks.sides import rival_python

from .page import PAGE, text
from .run import Mismatch, run


def main(words: list[str] | None = None) -> int:
    """Run, report, and return the exit code: 0 no faults, 1 a fault, 2 the published package is not to be had."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.differential", description=__doc__)
    parser.add_argument("--examples", type=int, default=1000, help="how many scenarios (default: 1000)")
    parser.add_argument("--seed", type=int, help="make the same scenarios again (default: a random one, printed)")
    parser.add_argument("--rival", type=Path, help="interpreter with the published package (default: installs it)")
    parser.add_argument("--write-page", action="store_true", help=f"write {PAGE.name} and end")
    options = parser.parse_args(words)
    if options.write_page:
        PAGE.write_text(text(), encoding="utf-8")
        return 0
    seed = options.seed if options.seed is not None else random.randrange(2**32)
    try:
        rival = options.rival if options.rival is not None else rival_python()
    except InstallError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{options.examples} scenarios, seed {seed}", file=sys.stderr)
    try:
        tally = run(rival, options.examples, seed)
    except Mismatch as mismatch:
        print(f"{mismatch}\n\nagain: --examples {options.examples} --seed {seed}")
        return 1
    print(f"{tally.scenarios} scenarios, no difference beyond the listed ones, which showed in:")
    for decision, count in tally.departures.most_common():
        print(f"  {decision:5} {count}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
