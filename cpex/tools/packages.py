"""What the installer asks pip and Git to do."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

from cpex.framework.isolated.commands import CommandFailed, run_command
from cpex.framework.models.manifest import GitRepo

__all__ = ["GitSource", "download", "install", "pinned", "project_name", "uninstall"]

LIMIT_S = 600
"""Seconds for one call of pip."""
_GIT_LIMIT_S = 120


class GitSource:
    """A plugin's own repository: `Name @ git+URL[@ref]`."""

    def __init__(self, text: str) -> None:
        """Read it.

        Raises:
            ValueError: It is written otherwise, or the address or the reference is refused.
        """
        name, found, address = text.partition(" @ ")
        if not found or not name.strip():
            raise ValueError(
                f"Invalid Git URL format: `{text}`. Expected format: Name @ git+https://host/repo.git[@ref]"
            )
        address = address.strip()
        if not address.startswith("git+"):
            raise ValueError(f"Git URL must start with 'git+': `{address}`")
        self.name = name.strip()
        self.url, self.ref = _split(address.removeprefix("git+"))
        try:
            self.repository = GitRepo(git_repository=self.url, git_branch_tag_commit=self.ref)
        except ValueError as error:
            raise ValueError(f"Invalid Git repository URL: `{self.url}`: {error}") from error

    def requirement(self, commit: str | None = None) -> str:
        """As pip takes it, at a commit or at the reference that was given."""
        at = commit or self.ref
        return f"{self.name} @ git+{self.url}" + (f"@{at}" if at else "")


def _split(address: str) -> tuple[str, str | None]:
    # In `git@host:path` the sign belongs to the address.
    scheme, sign, rest = address.partition("://")
    place, at, ref = (rest if sign else "").rpartition("@")
    return (f"{scheme}://{place}", ref) if at and place else (address, None)


def pinned(source: GitSource) -> str | None:
    """The commit that a reference stands for; `None` when the repository does not tell (it is a commit itself).

    Raises:
        RuntimeError: The repository cannot be asked.
    """
    command = ["git", "ls-remote", "--", source.url, source.ref or "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RuntimeError(f"Failed to download {source.name}: git cannot ask {source.url}: {error}") from error
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it gave no reason"])[-1]
        raise RuntimeError(f"Failed to download {source.name}: git cannot read {source.url}: {last}")
    lines = [line.split("\t") for line in done.stdout.splitlines() if "\t" in line]
    return next((commit for commit, _ in lines), None)


def pip(python: str, arguments: list[str], failure: str) -> None:
    """Run pip.

    Raises:
        RuntimeError: It failed; the text starts with `failure`, and ends with pip's last lines.
    """
    try:
        asyncio.run(run_command([python, "-m", "pip", *arguments], LIMIT_S))
    except CommandFailed as error:
        raise RuntimeError(f"{failure}: pip {error.reason}{error.told()}") from error
    except OSError as error:
        raise RuntimeError(f"{failure}: {python} cannot be run: {error}") from error


def download(requirement: str, folder: Path, *, index: list[str], wheels_only: bool = False) -> Path:
    """Download one package, without what it depends on.

    Raises:
        RuntimeError: pip failed, or downloaded nothing.
    """
    options = ["--no-deps", "--quiet", *(["--only-binary", ":all:"] if wheels_only else []), "--dest", str(folder)]
    pip(sys.executable, ["download", *options, *index, requirement], f"Failed to download {requirement}")
    files = [path for path in folder.iterdir() if path.is_file()]
    if not files:
        raise RuntimeError(f"No files downloaded for {requirement}: No package archive found")
    return files[0]


def install(arguments: list[str], name: str, *, python: str | Path = sys.executable) -> None:
    """Install into an environment.

    Args:
        arguments: What pip is to install, and options.

    Raises:
        RuntimeError: pip failed.
    """
    pip(str(python), ["install", "--quiet", *arguments], f"Failed to install {name}")


def editable(folder: Path, *, own_environment: bool) -> list[str]:
    """Arguments that install a folder so that changes in it count at once.

    What builds it is used as it is here, when it is here, so that a plugin whose dependencies are met installs offline.
    """
    with (folder / "pyproject.toml").open("rb") as file:
        needs = tomllib.load(file).get("build-system", {}).get("requires", [])
    here = not own_environment and bool(needs) and all(map(_is_met, needs))
    return [*(["--no-build-isolation"] if here else []), "--editable", str(folder)]


def _is_met(text: object) -> bool:
    try:
        requirement = Requirement(str(text))
        return requirement.specifier.contains(version(requirement.name), prereleases=True)
    except (InvalidRequirement, PackageNotFoundError):
        return False


def uninstall(package: str, *, python: str | Path = sys.executable) -> None:
    """Remove a package from an environment.

    Raises:
        RuntimeError: pip failed.
    """
    pip(str(python), ["uninstall", "--quiet", "--yes", package], f"Failed to uninstall {package}")


def project_name(folder: Path) -> str:
    """The name of the project in a folder.

    Raises:
        FileNotFoundError: It has no `pyproject.toml`.
        ValueError: That is no TOML, or names no project.
    """
    file = folder / "pyproject.toml"
    if not file.is_file():
        raise FileNotFoundError(f"pyproject.toml not found in {folder}")
    with file.open("rb") as opened:
        name = tomllib.load(opened).get("project", {}).get("name")
    if not isinstance(name, str) or not name:
        raise ValueError(f"{file} has no [project] name")
    return name
