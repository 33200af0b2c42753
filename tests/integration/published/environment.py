"""An environment that holds this package and plugin packages from the index, made on first use and kept."""

from __future__ import annotations

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.environments import ROOT, Environment, IndexUnreachable

__all__ = ["IndexUnreachable", "plugin_python", "serve"]

HOST = Path(__file__).parent / "host.py"
PACKAGES = (
    "cpex-encoded-exfil-detection==0.3.10",
    "cpex-pii-filter==0.3.9",
    "cpex-rate-limiter==0.1.12",
    "cpex-retry-with-backoff==0.3.11",
    "cpex-secrets-detection==0.3.14",
    "cpex-sql-sanitizer==0.1.4",
    "cpex-url-reputation==0.3.9",
)
"""All of them ask for `cpex>=0.1.4,<0.2`."""


@cache
def plugin_python() -> Path:
    """The environment's interpreter.

    Raises:
        IndexUnreachable: The packages are not installed and could not be fetched.
        subprocess.CalledProcessError: They were fetched, and do not accept this package beside them.
    """
    environment = Environment(".venv-plugins")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    with environment.lacking("installed", f"{project}{PACKAGES}") as missing:
        if missing:
            environment.create("plugin packages")
            # Alone first: what fails here is the way to the index, what fails later is ours to answer for.
            environment.fetch("--no-deps", *PACKAGES)
            # Editable, so that a kept environment runs the working tree.
            environment.add("--editable", str(ROOT))
            environment.add(*PACKAGES)
    return environment.python


def serve(config: Path, calls: list[dict[str, Any]]) -> dict[str, Any]:
    """Let a host in that environment make some calls; see `host.py` for the shapes."""
    dropped = ("PLUGINS_", "PYTHON", "VIRTUAL_ENV")
    done = subprocess.run(
        [plugin_python(), HOST],
        input=json.dumps({"config": str(config), "calls": calls}),
        capture_output=True,
        text=True,
        encoding="utf-8",
        env={key: value for key, value in os.environ.items() if not key.startswith(dropped)},
        cwd=config.parent,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers
