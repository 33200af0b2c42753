"""An environment that holds this package and plugin packages from the index, made on first use and kept."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import venv
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
HOME = ROOT / ".venv-plugins"
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
_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


class IndexUnreachable(Exception):
    """The plugin packages could not be fetched."""


@cache
def plugin_python() -> Path:
    """The environment's interpreter.

    Raises:
        IndexUnreachable: The packages are not installed and could not be fetched.
        subprocess.CalledProcessError: They were fetched, and do not accept this package beside them.
    """
    python = HOME / ("Scripts" if os.name == "nt" else "bin") / "python"
    ready = HOME / ".installed"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + " ".join(PACKAGES).encode()).hexdigest()
    if ready.exists() and ready.read_text(encoding="utf-8") == wanted:
        return python
    venv.create(HOME, with_pip=True, clear=True)
    # Alone first: what fails here is the way to the index, what fails later is ours to answer for.
    fetched = subprocess.run([python, *_PIP, "--no-deps", *PACKAGES], capture_output=True, text=True, check=False)
    if fetched.returncode:
        raise IndexUnreachable((fetched.stderr.strip().splitlines() or ["no message"])[-1])
    # Editable, so that a kept environment runs the working tree.
    subprocess.run([python, *_PIP, "--editable", str(ROOT)], check=True)
    subprocess.run([python, *_PIP, *PACKAGES], check=True)
    ready.write_text(wanted, encoding="utf-8")
    return python


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
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers
