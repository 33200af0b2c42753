"""The two processes that act scenarios out: this interpreter, and one that holds the published package."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

RUNNER = Path(__file__).parent / "side" / "runner.py"


class SideError(Exception):
    """A side ended, or could not act a scenario out."""


def clean_environment() -> dict[str, str]:
    """The environment without what could change the framework or its imports."""
    dropped = ("PLUGINS_", "PYTHON", "VIRTUAL_ENV")
    return {key: value for key, value in os.environ.items() if not key.startswith(dropped)}


class Side:
    """A process that acts out one scenario after another. Use it as a context manager."""

    def __init__(self, python: Path) -> None:
        """Name the interpreter; it is started on entry."""
        self._python = python
        self.framework = ""
        """Where its `cpex.framework` lies; known once it is started."""

    def __enter__(self) -> Self:
        # An empty working directory: no `.env` and no package of the framework's name are in sight.
        self._folder = tempfile.TemporaryDirectory()
        self._process = subprocess.Popen(
            [str(self._python), str(RUNNER)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=clean_environment(),
            cwd=self._folder.name,
        )
        self.framework = self._answer()["framework"]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Closes its input, at whose end the process ends by itself.
        with self._process:
            if kind is not None:
                self._process.kill()
        self._folder.cleanup()

    def tell(self, scenario: dict[str, Any]) -> None:
        """Start a scenario; its outcome is the next `outcome()`."""
        assert self._process.stdin is not None  # a pipe was asked for
        self._process.stdin.write(json.dumps(scenario) + "\n")
        self._process.stdin.flush()

    def outcome(self) -> dict[str, Any]:
        """Wait for the outcome of the scenario told last.

        Raises:
            SideError: The process ended, or the scenario could not be acted out.
        """
        answer = self._answer()
        if "broken" in answer:
            raise SideError(answer["broken"])
        return answer

    def act(self, scenario: dict[str, Any]) -> dict[str, Any]:
        """Act one scenario out; see `outcome`."""
        self.tell(scenario)
        return self.outcome()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # a pipe was asked for
        line = self._process.stdout.readline()
        if not line:
            raise SideError(f"`{self._python}` ended before it answered; its message stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer
