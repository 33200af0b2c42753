"""Isolated plugins beside the published package: the second start, and round trips for one caller and for many.

Usage: `python -m benchmarks.isolated [--rounds N] [--calls N] [--alone] [--json PATH]`. Each side runs its own host and
its own worker on the same plugin, in an environment that is built already; they take turns, and the table shows
medians. The published host finds its worker only from a folder in which `cpex` lies, so it is given one. Exit codes: 0
measured, 1 could not be measured, 2 usage.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydantic

import cpex
from benchmarks.sides import RIVAL_HOME, SideError, _environment, rival_python
from cpex.framework import PluginConfig
from cpex.framework.isolated.client import IsolatedVenvPlugin

SCRIPT = Path(__file__).parent / "side" / "isolated_calls.py"
TIMEOUT_S = 300
TARGET_START_S = 1.0
PLUGIN = """
from cpex.framework import Plugin, ToolPreInvokeResult

class Bench(Plugin):
    async def tool_pre_invoke(self, payload, context):
        changed = payload.model_copy(update={"args": {**payload.args, "seen": 1}})
        return ToolPreInvokeResult(modified_payload=changed)
"""
ROWS = (
    ("second start, s", "start_s", None, 2),
    ("one caller, calls/s", "alone", "per_s", 0),
    ("one caller, p50 ms", "alone", "p50_ms", 2),
    ("one caller, p99 ms", "alone", "p99_ms", 2),
    ("32 callers, calls/s", "together", "per_s", 0),
    ("32 callers, p50 ms", "together", "p50_ms", 2),
    ("32 callers, p99 ms", "together", "p99_ms", 2),
)


def side(folder: Path, packages: Path, environment: Path) -> Path:
    """A folder with a configuration whose environment counts as built.

    Args:
        packages: The `cpex` whose worker the published host is to find.
        environment: What the plugin's `.venv` leads to.
    """
    package = folder / "plugins" / "bench"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(PLUGIN, encoding="utf-8")
    (folder / "cpex").symlink_to(packages)
    (package / ".venv").symlink_to(environment)
    entry = {
        "name": "bench",
        "kind": "isolated_venv",
        "hooks": ["tool_pre_invoke"],
        "config": {"class_name": "bench.Bench"},
    }
    # Both releases read one record.
    IsolatedVenvPlugin(PluginConfig.model_validate(entry), [str(package.parent)])._environment().commit()
    config = folder / "plugins.yaml"
    config.write_text(json.dumps({"plugin_dirs": [str(package.parent)], "plugins": [entry]}), encoding="utf-8")
    return config


def our_environment(folder: Path) -> Path:
    """An environment that has the packages of this interpreter."""
    venv.create(folder, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    borrowed = f"import site; site.addsitedir({str(Path(pydantic.__file__).parents[1])!r})\n"
    (packages / "borrowed.pth").write_text(borrowed, encoding="utf-8")
    return folder


def run(python: Path, config: Path, calls: int) -> dict[str, Any]:
    """One round of one side.

    Raises:
        SideError: It could not be measured.
    """
    done = subprocess.run(
        [str(python), str(SCRIPT), str(config), str(calls)],
        capture_output=True,
        text=True,
        env=_environment(),
        cwd=config.parent,
        timeout=TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise SideError(done.stderr.strip()[-1000:] or f"status {done.returncode}")
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def value(measured: dict[str, Any], key: str, inner: str | None) -> float:
    """One figure of a round."""
    found = measured[key] if inner is None else measured[key][inner]
    return float(found)


def main(words: Sequence[str] | None = None) -> int:
    """Measure both sides in turn and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.isolated")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=640, help="in each of the two loops of a round")
    parser.add_argument("--alone", action="store_true", help="leave the published package out")
    parser.add_argument("--json", type=Path, metavar="PATH", help="also write every round to this file")
    options = parser.parse_args(words)
    rounds: dict[str, list[dict[str, Any]]] = {"ours": []} if options.alone else {"ours": [], "theirs": []}
    try:
        with tempfile.TemporaryDirectory() as folder:
            top = Path(folder)
            ours = side(top / "ours", Path(cpex.__file__).parent, our_environment(top / "venv"))
            sides = {"ours": (Path(sys.executable), ours)}
            if not options.alone:
                (theirs,) = rival_python().parents[1].glob("lib/python*/site-packages/cpex")
                sides["theirs"] = (rival_python(), side(top / "theirs", theirs, RIVAL_HOME))
            for number in range(options.rounds + 1):
                for name, (python, config) in sides.items():
                    print(f"round {number} of {options.rounds}: {name}", file=sys.stderr)
                    measured = run(python, config, options.calls)
                    # The first round writes byte code and fills caches.
                    if number:
                        rounds[name].append(measured)
    except (SideError, ValueError, subprocess.TimeoutExpired) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print_table(rounds)
    if options.json:
        options.json.write_text(json.dumps(rounds, indent=1) + "\n", encoding="utf-8")
    return 0


def print_table(rounds: dict[str, list[dict[str, Any]]]) -> None:
    """Medians, side by side."""
    print(f"{'':22}{'here':>12}" + (f"{'cpex 0.1.4':>12}{'ratio':>9}" if "theirs" in rounds else ""))
    for title, key, inner, digits in ROWS:
        medians = [statistics.median(value(each, key, inner) for each in some) for some in rounds.values()]
        line = "".join(f"{median:12.{digits}f}" for median in medians)
        print(f"{title:22}{line}" + (f"{medians[0] / medians[1]:9.2f}" if len(medians) > 1 else ""))
    start = statistics.median(value(each, "start_s", None) for each in rounds["ours"])
    print(f"second start from the cache: {start:.2f} s, {'within' if start < TARGET_START_S else 'NOT within'} 1 s")


if __name__ == "__main__":
    sys.exit(main())
