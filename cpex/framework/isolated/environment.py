"""Virtual environments of plugins: where they lie, when they are built, how they are filled, and who may do it.

One environment serves all plugins of a package: `<folder>/.venv`, with its record under `<folder>/.cpex/venv_cache`. It
is checked and built under a lock between processes, and the record is written last, so an environment with a record is
finished, whatever happened to whoever built it.

Source: docs/isolated.md, "When the environment is built".
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cpex.framework.isolated.commands import CommandFailed, run_command
from cpex.framework.isolated.locking import locked
from cpex.framework.isolated.record import RECORD_FILE, Wanted, read_record, write_record

__all__ = ["Environment", "EnvironmentFailed", "python_of", "site_packages_of"]

logger = logging.getLogger(__name__)

BUILD_TIMEOUT_S = 120.0
"""Seconds for making an empty environment."""
INSTALL_TIMEOUT_S = 600.0
"""Seconds for one run of pip."""
_OWNERS_FILE = "owners.json"
"""Written by hosts in Rust that share the folder; never touched here."""
_TOOLS = frozenset({"pip", "setuptools", "wheel"})


class EnvironmentFailed(RuntimeError):
    """An environment could not be built or filled. There is no record of it, so the next start begins anew."""


def python_of(venv: Path) -> Path:
    """The interpreter of an environment, whether it is there or not."""
    return venv / "Scripts" / "python.exe" if os.name == "nt" else venv / "bin" / "python"


def site_packages_of(venv: Path) -> Iterator[Path]:
    """The folders for packages of an environment."""
    for pattern in ("lib/python*/site-packages", "Lib/site-packages"):
        yield from (path for path in sorted(venv.glob(pattern)) if path.is_dir())


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment of one plugin."""

    plugin: str
    """Name, for messages."""
    wanted: Wanted
    cache: Path
    install_timeout_s: float = INSTALL_TIMEOUT_S

    @property
    def venv(self) -> Path:
        """Its folder."""
        return self.wanted.venv

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Keep other processes, and other plugins of the same package, from checking or building it meanwhile."""
        self.cache.mkdir(parents=True, exist_ok=True)
        async with locked(self.cache / ".lock"):
            yield

    def why_build(self) -> str | None:
        """Why the environment must be built, for a log line; `None` when the one on disk can be used."""
        if not self.venv.is_dir():
            return "there is none yet"
        if not os.access(python_of(self.venv), os.X_OK):
            return "its interpreter is gone"
        return self.wanted.mismatch(read_record(self.cache))

    def lacks_class(self) -> bool:
        """Whether the one on disk was filled for other classes of the package only."""
        return self.wanted.missing_in(read_record(self.cache))

    async def build(self) -> list[str]:
        """Make it anew, empty but for pip. Must be alone.

        Returns:
            What had been installed into the former one beside its requirements file, as pip takes it; it is to be
            installed again, since an installer may have put the plugin itself there.

        Raises:
            EnvironmentFailed: It could not be made.
        """
        before = self._installed()
        with contextlib.suppress(FileNotFoundError):
            (self.cache / RECORD_FILE).unlink()
        _delete(self.venv)
        command = [sys.executable, "-m", "venv", *([] if os.name == "nt" else ["--symlinks"]), str(self.venv)]
        try:
            await run_command(command, BUILD_TIMEOUT_S)
        except (CommandFailed, OSError) as error:
            raise EnvironmentFailed(
                f"plugin `{self.plugin}`: the environment {self.venv} could not be made: `{sys.executable} -m venv` "
                f"{_reason(error)}"
            ) from error
        return before

    async def install(self, again: Sequence[str] = ()) -> None:
        """Fill it: the requirements file if there is one, then what had been there before. Must be alone.

        Raises:
            EnvironmentFailed: pip failed or took too long; the text has the last lines it wrote. It starts with
                `Failed to install requirements from …`.
        """
        file = self.wanted.requirements
        if file is not None and file.is_file():
            await self._pip(["-r", str(file)], str(file), file.parent)
        if again:
            await self._pip(list(again), "the former environment", None)

    async def _pip(self, arguments: list[str], source: str, cwd: Path | None) -> None:
        command = [str(python_of(self.venv)), "-m", "pip", "install", "--quiet", *arguments]
        try:
            await run_command(command, self.install_timeout_s, str(cwd) if cwd is not None else None)
        except (CommandFailed, OSError) as error:
            raise EnvironmentFailed(
                f"Failed to install requirements from {source} for plugin `{self.plugin}`: pip {_reason(error)}\n"
                f"  help: run `{python_of(self.venv)} -m pip install {' '.join(arguments)}` to see all of it; the next "
                f"start builds the environment anew"
            ) from error

    def commit(self, installed: Sequence[str] = ()) -> None:
        """Write the record that makes the environment usable for later starts.

        Args:
            installed: What was put there beside the requirements file, as pip takes it.
        """
        self.cache.mkdir(parents=True, exist_ok=True)
        write_record(self.cache, self.wanted.record(installed, read_record(self.cache)))

    def _installed(self) -> list[str]:
        """What the environment holds that its requirements file did not bring and somebody asked for by name."""
        record = read_record(self.cache) or {}
        listed = record.get("installed")
        if isinstance(listed, list) and listed:
            return [str(each) for each in listed]
        if record.get("requirements_file"):
            # Its own list brings everything back; what else is there came along with it.
            return []
        return sorted(set(requested_in(self.venv)))

    def remove(self) -> None:
        """Delete the environment and its record.

        Raises:
            FileNotFoundError: One of them is not there.
            EnvironmentFailed: Another host has a claim on it.
        """
        if (self.cache / _OWNERS_FILE).exists():
            raise EnvironmentFailed(
                f"the environment {self.venv} is claimed by another host in {self.cache / _OWNERS_FILE}; remove the "
                "plugin there first"
            )
        if not self.venv.exists():
            raise FileNotFoundError(f"there is no environment {self.venv}")
        shutil.rmtree(self.cache.parent)
        _delete(self.venv)


def _delete(venv: Path) -> None:
    if venv.is_symlink():
        # Of an environment that lies elsewhere only the link is ours.
        venv.unlink()
    elif venv.exists():
        shutil.rmtree(venv)


def _reason(error: Exception) -> str:
    return f"{error.reason}{error.told()}" if isinstance(error, CommandFailed) else f"could not be started: {error}"


def requested_in(venv: Path) -> Iterator[str]:
    """What was installed into an environment by name, as pip takes it: `name==version`, or `name @ address`."""
    # Reading metadata draws in the mail parser; only a rebuild comes here.
    from importlib.metadata import distributions

    for folder in site_packages_of(venv):
        for found in distributions(path=[str(folder)]):
            name = found.metadata["Name"]
            if name and name.lower() not in _TOOLS and found.read_text("REQUESTED") is not None:
                yield _as_pip_takes_it(name, found.version, found.read_text("direct_url.json"))


def _as_pip_takes_it(name: str, version: str, direct: str | None) -> str:
    with contextlib.suppress(ValueError):
        source: Any = json.loads(direct) if direct else None
        if isinstance(source, dict) and isinstance(source.get("url"), str):
            control = source.get("vcs_info")
            if isinstance(control, dict):
                return f"{name} @ {control.get('vcs')}+{source['url']}@{control.get('commit_id')}"
            return f"{name} @ {source['url']}"
    return f"{name}=={version}"
