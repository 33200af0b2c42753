"""The environment that holds `presidio-analyzer` and what comes with it, made on first use and kept.

It is not among the packages that the tests install: with its language library it is ten times as large as all of them.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import venv
from pathlib import Path

__all__ = ["ROOT", "IndexUnreachable", "presidio_python"]

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".venv-presidio"
PRESIDIO = ("presidio-analyzer==2.2.366",)
GENERATORS = ("Faker==40.63.0", "pandas>=3,<4", "presidio-anonymizer>=2.2.364", "python-dotenv>=1.2")
"""What invents labelled text."""
EVALUATOR = ("presidio-evaluator==0.3.2",)
"""Without what it asks for beside these: libraries of models, which the sentences do not need."""
_PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check")


class IndexUnreachable(Exception):
    """The packages could not be fetched."""


def presidio_python(*, generators: bool = False) -> Path:
    """The environment's interpreter; it runs this working tree.

    Args:
        generators: Whether the packages that invent labelled text are needed too.

    Raises:
        IndexUnreachable: The packages are not installed and could not be fetched.
        subprocess.CalledProcessError: They were fetched, and this package does not install beside them.
    """
    python = HOME / ("Scripts" if os.name == "nt" else "bin") / "python"
    project = (ROOT / "pyproject.toml").read_bytes()
    if not _is_ready("analyzer", project, PRESIDIO):
        print(f"installing {PRESIDIO[0]} into {HOME.name}", file=sys.stderr)
        venv.create(HOME, with_pip=True, clear=True)
        _fetch(python, *PRESIDIO)
        # Editable, so that a kept environment runs the working tree.
        subprocess.run([python, *_PIP, "--editable", str(ROOT)], check=True)
        _note("analyzer", project, PRESIDIO)
    if generators and not _is_ready("generators", b"", GENERATORS + EVALUATOR):
        print(f"installing {EVALUATOR[0]} into {HOME.name}", file=sys.stderr)
        _fetch(python, *GENERATORS)
        _fetch(python, "--no-deps", *EVALUATOR)
        _note("generators", b"", GENERATORS + EVALUATOR)
    return python


def _fetch(python: Path, *words: str) -> None:
    fetched = subprocess.run([python, *_PIP, *words], capture_output=True, text=True, check=False)
    if fetched.returncode:
        raise IndexUnreachable((fetched.stderr.strip().splitlines() or ["no message"])[-1])


def _stamp(project: bytes, packages: tuple[str, ...]) -> str:
    return hashlib.sha256(project + " ".join(packages).encode()).hexdigest()


def _is_ready(name: str, project: bytes, packages: tuple[str, ...]) -> bool:
    ready = HOME / f".{name}"
    return ready.exists() and ready.read_text(encoding="utf-8") == _stamp(project, packages)


def _note(name: str, project: bytes, packages: tuple[str, ...]) -> None:
    (HOME / f".{name}").write_text(_stamp(project, packages), encoding="utf-8")
