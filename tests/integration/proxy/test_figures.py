"""The benchmark of the proxy measures every way; an instant of it tells whether it still runs."""

from __future__ import annotations

import subprocess
import sys

from benchmarks.environments import ROOT


def test_every_way_is_measured() -> None:
    few = ("--calls", "2", "--rounds", "1", "--sessions", "2", "--memory-calls", "100")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.proxy", *few],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=540,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    names = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("| ")]
    ways = ["direct", "bare proxy", "cpex proxy, no plugins", "cpex proxy, allow list and redactor"]
    assert names[:5] == names[5:10] == ["way", *ways]
    assert names[-1] == "100"
