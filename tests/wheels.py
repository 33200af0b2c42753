"""The package as users install it: one wheel per test run, and environments made from it."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from doc_blocks import ROOT

LIMIT_S = 600
_folders: list[TemporaryDirectory[str]] = []


@cache
def wheel_folder() -> Path:
    """A folder with a wheel of this tree, built once and removed when the process ends."""
    _folders.append(TemporaryDirectory(prefix="cpex-wheel-"))
    folder = Path(_folders[-1].name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "-w", str(folder), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert done.returncode == 0, done.stderr
    return folder


def environment(**variables: str) -> dict[str, str]:
    """Variables under which pip finds that wheel beside what it finds otherwise, free of this environment's own."""
    links = " ".join(filter(None, [str(wheel_folder()), os.environ.get("PIP_FIND_LINKS", "")]))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    # Compiling packages takes longer than installing them, and most of their modules are imported by nothing.
    pip = {"PIP_FIND_LINKS": links, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_COMPILE": "1"}
    return {**inherited, **pip, "NO_COLOR": "1", **variables}
