"""The two sides: their interpreters, and how they are started and spoken to."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.environments import Environment, IndexUnreachable

RIVAL = "cpex[grpc]==0.1.4"
_HERE = Path(__file__).parent
_SIDE = _HERE / "side"
RIVAL_HOME = _HERE.parent / ".venv-rival"


class SideError(Exception):
    """A side could not measure what it was asked to."""


def rival_python() -> Path:
    """The interpreter that has the published package, in an environment that is made on first use.

    Raises:
        SideError: The package could not be installed, for want of a network for example.
    """
    environment = Environment(RIVAL_HOME.name)
    try:
        with environment.lacking("installed", RIVAL) as missing:
            if missing:
                environment.create(RIVAL)
                environment.fetch(RIVAL)
    except (IndexUnreachable, OSError) as error:
        raise SideError(
            f"{RIVAL} could not be installed ({error}); name an interpreter that has it with --rival"
        ) from error
    return environment.python


def _environment() -> dict[str, str]:
    """The environment of a side: ours without what could change the framework or its imports."""
    dropped = ("PLUGINS_", "PYTHON", "VIRTUAL_ENV")
    return {key: value for key, value in os.environ.items() if not key.startswith(dropped)}


class Driver:
    """A side's process that stays, and answers one command at a time. Use it as a context manager."""

    def __init__(self, python: Path) -> None:
        """Name the interpreter; it is started on entry."""
        self._python = python

    def __enter__(self) -> Self:
        # An empty working directory: no `.env` and no package of the framework's name are in sight.
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [str(self._python), str(_SIDE / "driver.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=_environment(),
            cwd=self._folder.name,
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Closes its input, at whose end the process ends by itself.
        # One that has ended already does not take what is still on its way.
        with self._folder, contextlib.suppress(BrokenPipeError), self._process:
            if kind is not None:
                self._process.kill()

    def ask(self, **command: Any) -> dict[str, Any]:
        """Send one command and wait for its answer. See `side/driver.py` for both.

        Raises:
            SideError: The process answered with an error, or ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise SideError(f"`{self._python}` ended before it answered; its message stands above")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SideError(answer["error"])
        return answer


def run_cold(python: Path, *words: str) -> dict[str, float]:
    """One figure of `side/cold.py` from a fresh interpreter: `{"seconds": …, "mib": …}`.

    Raises:
        SideError: The interpreter failed; the last line it wrote is in the text.
    """
    command = [str(python), str(_SIDE / "cold.py"), *words]
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command, capture_output=True, text=True, encoding="utf-8", env=_environment(), cwd=folder, check=False
        )
    if done.returncode:
        raise SideError((done.stderr.strip().splitlines() or ["no message"])[-1])
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures
