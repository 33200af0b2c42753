"""An environment for each framework that adapters adapt: this package with the extra, made on first use and kept.

The frameworks are heavy, and one's pins need not agree with another's.
"""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

from benchmarks.environments import ROOT, Environment, IndexUnreachable

__all__ = ["CASES", "IndexUnreachable", "python_with", "run_cases"]

CASES = Path(__file__).parent
_OPTIONS = ("-q", "--noconftest", "-p", "no:cacheprovider", "-o", "filterwarnings=default")
TOOLS = ("pytest>=8.3", "pytest-asyncio>=1.0", "pytest-timeout>=2.3")


@cache
def python_with(extra: str) -> Path:
    """The interpreter of a framework's environment.

    Raises:
        IndexUnreachable: The framework is not installed and could not be fetched.
        subprocess.CalledProcessError: It was fetched, and does not accept this package beside it.
    """
    environment = Environment(f".venv-adapter-{extra}")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    framework = project["optional-dependencies"][extra]
    with environment.lacking("installed", repr((project["dependencies"], framework, TOOLS))) as missing:
        if missing:
            environment.create(extra)
            # Alone first: what fails here is the way to the index, what fails later is ours to answer for.
            environment.fetch("--no-deps", *framework)
            # Editable, so that a kept environment runs the working tree.
            environment.add("--editable", f"{ROOT}[{extra}]", *TOOLS)
    return environment.python


def run_cases(extra: str) -> int:
    """Run the framework's cases, `cases_<extra>.py`, in its environment; how many passed.

    Raises:
        AssertionError: One failed; its report is the text.
    """
    cases = CASES / f"cases_{extra.replace('-', '_')}.py"
    dropped = ("PLUGINS_", "PYTHON", "VIRTUAL_ENV")
    done = subprocess.run(
        # The frameworks' own warnings are theirs to mend, and what other tests share is not installed there.
        [python_with(extra), "-m", "pytest", *_OPTIONS, cases],
        capture_output=True,
        text=True,
        env={key: value for key, value in os.environ.items() if not key.startswith(dropped)},
        cwd=ROOT,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None, done.stdout
    return int(passed[1])
