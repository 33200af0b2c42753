"""Virtual environments beside the working tree that hold what ours must not: made on first use, and kept.

Benchmarks and tests compare with other packages, and run with some that are too large or too stubborn to live beside
ours. Each such environment is made by one process at a time, however many ask for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["ROOT", "Environment", "IndexUnreachable"]

ROOT = Path(__file__).resolve().parents[1]
_PIP = ("-m", "pip", "--python")
# Packages are many, and few of their modules are ever imported: compiling all of them takes three times as long as
# installing them, so each module is compiled when it is first imported.
_PIP_INSTALL = ("install", "--quiet", "--disable-pip-version-check", "--no-compile")
_UV_INSTALL = ("-m", "uv", "pip", "install", "--quiet", "--python")


class IndexUnreachable(Exception):
    """Packages could not be fetched."""


@dataclass(frozen=True, slots=True)
class Environment:
    """One environment, in a folder of the working tree's root."""

    name: str
    """Of the folder, `.venv-…`: ignored by git, removed by `make clean`."""

    @property
    def home(self) -> Path:
        """The folder."""
        return ROOT / self.name

    @property
    def python(self) -> Path:
        """The interpreter; there once the environment has been made."""
        return self.home / ("Scripts" if os.name == "nt" else "bin") / "python"

    @contextlib.contextmanager
    def lacking(self, part: str, wanted: str) -> Iterator[bool]:
        """Whether a part must be made now; it counts as made when the block ends without an exception.

        Args:
            part: What is made, e.g. `installed`.
            wanted: Whatever must change for it to be made anew.
        """
        with open(f"{self.home}.lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            stamp, note = hashlib.sha256(wanted.encode()).hexdigest(), self.home / f".{part}"
            missing = not note.exists() or note.read_text(encoding="utf-8") != stamp
            yield missing
            if missing:
                note.write_text(stamp, encoding="utf-8")

    def create(self, what: str) -> None:
        """Make it anew, with nothing in it. `what` is told on standard error: installing it takes a while."""
        print(f"installing {what} into {self.name}", file=sys.stderr)
        # Ours installs into it: unpacking another pip takes longer than many a package.
        venv.create(self.home, with_pip=False, clear=True)

    def fetch(self, *words: str) -> None:
        """Install from the index.

        Raises:
            IndexUnreachable: That failed; the text is pip's last line.
        """
        fetched = self._install(words)
        if fetched.returncode:
            raise IndexUnreachable((fetched.stderr.strip().splitlines() or ["no message"])[-1])

    def add(self, *words: str) -> None:
        """Install what is there already, or must go well.

        Raises:
            subprocess.CalledProcessError: It does not install beside what the environment holds.
        """
        added = self._install(words)
        sys.stderr.write(added.stderr)
        added.check_returncode()

    def _install(self, words: tuple[str, ...]) -> subprocess.CompletedProcess[str]:
        """Install with uv, which takes a tenth of pip's time; where it fails with pip, which may know another index."""
        for command in ((*_UV_INSTALL, str(self.python)), (*_PIP, str(self.python), *_PIP_INSTALL)):
            done = subprocess.run([sys.executable, *command, *words], capture_output=True, text=True, check=False)
            if not done.returncode:
                break
        return done
