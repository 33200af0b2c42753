"""Tell tests that fail from tests that failed once: after a run that failed, run its few failures again, alone.

Thousands of tests with real processes share a machine, and one in many runs fails by its neighbours: a port, a second,
a socket that another test left. That is a fault, too, but not of the change that is being checked. So such a test must
pass three times in a row by itself, and the run ends with its name. One more failure, or more than a few at once, and
the run has failed.

Usage, after `python -m pytest --cache-clear`: `python tests/rerun_failed.py STATUS`, with the run's exit status.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

__all__ = ["FEW", "ROUNDS", "main"]

FEW = 3
ROUNDS = 3
_SOME_TESTS_FAILED = 1
"""pytest's status; others tell that it was interrupted, used wrongly, or found no tests."""
_LAST_FAILED = Path(".pytest_cache/v/cache/lastfailed")


def main(status: int) -> int:
    """Judge the run that has just ended; the exit status of all."""
    if status != _SOME_TESTS_FAILED:
        return status
    failed = list(json.loads(_LAST_FAILED.read_text(encoding="utf-8"))) if _LAST_FAILED.is_file() else []
    if not 0 < len(failed) <= FEW:
        return status
    for test in failed:
        for number in range(1, ROUNDS + 1):
            print(f"\nAgain, by itself, {number} of {ROUNDS}: {test}", flush=True)
            command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test]
            if again := subprocess.run(command, check=False).returncode:
                return again
    print(f"\nFAILED ONCE, and passed {ROUNDS} times alone. Each is a race, or met what a neighbour left: mend it.")
    for test in failed:
        print(f"  {test}")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
