"""What a plugin package says of itself, which versions there are, and which plugins are installed here."""

from __future__ import annotations

import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, Field, model_validator

from cpex.framework.models.config import PluginConfig
from cpex.framework.models.mode import PluginInstallationType, PluginMode

if TYPE_CHECKING:
    from packaging.version import Version

__all__ = [
    "GitRepo",
    "InstalledPluginInfo",
    "InstalledPluginRegistry",
    "Monorepo",
    "PluginManifest",
    "PluginPackageInfo",
    "PluginVersionInfo",
    "PluginVersionRegistry",
    "PyPiRepo",
]

logger = logging.getLogger(__name__)

REGISTRY_FILE = "installed-plugins.json"

_MAX_PACKAGE_NAME = 214
_MAX_TEXT = 255
_PACKAGE_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_CONSTRAINT = re.compile(r"(?:===|==|!=|<=|>=|~=|<|>)\s*\d+(?:\.\d+)*(?:[A-Za-z0-9._-]*)")
_GIT_URL = re.compile(r"(?:https?://|git://|git@)[A-Za-z0-9.-]+(?::\d+)?[/:][A-Za-z0-9._/-]+")
_GIT_REF = re.compile(r"(?![/.-])[A-Za-z0-9._/-]+(?<![/.])")


def _filled(value: str | None, what: str, max_length: int = _MAX_TEXT) -> str | None:
    """`None` for empty text, else the text, which must be neither blank nor too long."""
    if not value:
        return None
    if not value.strip():
        raise ValueError(f"{what} cannot be empty or blank")
    if len(value) > max_length:
        raise ValueError(f"{what} is too long ({len(value)} characters; at most {max_length})")
    return value


def _package_name(value: str | None) -> str | None:
    name = _filled(value, "PyPI package name", _MAX_PACKAGE_NAME)
    if name is not None and not _PACKAGE_NAME.fullmatch(name):
        raise ValueError(
            f"PyPI package name {name!r} is not valid; it starts and ends with an ASCII letter or digit "
            "and holds only letters, digits, dots, underscores and hyphens"
        )
    return name


def _version_constraint(value: str | None) -> str | None:
    constraint = _filled(value, "version constraint")
    if constraint is None:
        return None
    parts = [part.strip() for part in constraint.split(",")]
    if not all(parts):
        raise ValueError(f"version constraint {constraint!r} has an empty part")
    if not all(_CONSTRAINT.fullmatch(part) for part in parts):
        raise ValueError(
            f"version constraint {constraint!r} is not valid; write operators and versions as in PEP 440, "
            "e.g. '>=1.0', '~=1.2.3' or '>=1,<2'"
        )
    return constraint


def _git_url(value: str | None) -> str | None:
    url = _filled(value, "Git repository URL", 2048)
    if url is None:
        return None
    if url.startswith(("http://", "https://")):
        from cpex.framework.validators import validate_plugin_url

        validate_plugin_url(url, "Git repository URL")
    if not _GIT_URL.fullmatch(url):
        raise ValueError(
            f"Git repository URL {url!r} is not valid; write https://host/user/repo.git or git@host:user/repo.git"
        )
    return url


def _git_ref(value: str | None) -> str | None:
    ref = _filled(value, "Git branch, tag or commit")
    # SECURITY: the text becomes an argument of git; a leading hyphen would make it an option.
    if ref is not None and not _GIT_REF.fullmatch(ref):
        raise ValueError(
            f"Git branch, tag or commit {ref!r} is not valid; it holds only ASCII letters, digits and ./_-, does not "
            "start with one of /.- and does not end with / or a dot"
        )
    return ref


PackageName = Annotated[str | None, AfterValidator(_package_name)]
"""A name on the package index; empty text becomes `None`."""
VersionConstraint = Annotated[str | None, AfterValidator(_version_constraint)]
"""Comma-separated operators and versions of PEP 440; empty text becomes `None`."""
GitUrl = Annotated[str | None, AfterValidator(_git_url)]
"""An http(s), git or `git@` URL; empty text becomes `None`."""
GitRef = Annotated[str | None, AfterValidator(_git_ref)]
"""A branch, tag or commit; empty text becomes `None`."""


class Monorepo(BaseModel):
    """Where in a repository of many plugins a plugin lies."""

    repo_url: str
    package_source: str
    package_folder: str


class PyPiRepo(BaseModel):
    """A plugin's package on the package index."""

    pypi_package: PackageName
    version_constraint: VersionConstraint = None


class GitRepo(BaseModel):
    """A plugin's own repository. Which revision must be said, `None` for the default branch."""

    git_repository: GitUrl
    git_branch_tag_commit: GitRef


class PluginPackageInfo(BaseModel):
    """What to install a plugin from: a package, a repository or both."""

    pypi_package: PackageName = None
    git_repository: GitUrl = None
    git_branch_tag_commit: GitRef = None
    version_constraint: VersionConstraint = None

    @model_validator(mode="after")
    def _check_source(self) -> Self:
        if self.git_branch_tag_commit and not self.git_repository:
            raise ValueError("'git_branch_tag_commit' needs 'git_repository'")
        if not self.pypi_package and not self.git_repository:
            raise ValueError("either 'pypi_package' or 'git_repository' must say what to install")
        return self


class PluginManifest(BaseModel):
    """What a plugin package says of itself, in `plugin-manifest.yaml`."""

    name: str
    kind: str
    description: str
    author: str
    version: str
    tags: list[str]
    available_hooks: list[str]
    """Hooks that the plugin has handlers for."""
    default_config: dict[str, Any]
    """Settings of an instance that sets none."""
    monorepo: Monorepo | None = None
    package_info: PyPiRepo | None = None
    local: str | None = None
    """Absolute path of the folder that the plugin was installed from."""
    git_repo: GitRepo | None = None

    def suggest_instance_name(self) -> str:
        """The name in lower case, spaces as hyphens."""
        return self.name.lower().replace(" ", "-")

    def create_instance_config(
        self, instance_name: str, mode: PluginMode, priority: int = 100, config: dict[str, Any] | None = None
    ) -> PluginConfig:
        """Configure an instance of the plugin on all its hooks.

        Args:
            config: Settings that replace the default of the same name, whole.
        """
        # Validated as from a file, so that a mode may be given by its word.
        return PluginConfig.model_validate(
            {
                "name": instance_name,
                "kind": self.kind,
                "description": self.description,
                "author": self.author,
                "version": self.version,
                "tags": list(self.tags),
                "hooks": list(self.available_hooks),
                "mode": mode,
                "priority": priority,
                "config": {**self.default_config, **(config or {})},
            }
        )


class PluginVersionInfo(BaseModel):
    """One released version of a plugin."""

    version: str
    released: str
    breaking_changes: bool | None = None
    deprecated: bool = False
    manifest_file: str
    changelog: str | None = None
    min_max_framework_version: str | None = "0.1.0,0.1.0"
    """Oldest and newest version of the framework that it works with, both included."""


class PluginVersionRegistry(BaseModel):
    """All released versions of a plugin, as in `versions.json`."""

    latest: PluginVersionInfo | None = None
    latest_prerelease: PluginVersionInfo | None = None
    versions: list[PluginVersionInfo]

    def get_version(self) -> PluginVersionInfo | None:
        """The latest version, if one is marked so."""
        return self.latest

    def get_latest_compatible(self, framework_version: str) -> PluginVersionInfo | None:
        """The highest version that works with a version of the framework; `None` when none does.

        Entries whose versions cannot be read are passed over. A framework version that cannot be read gives `None` and
        a WARNING.

        Source: PEP 440, "Ordering".
        """
        wanted = _version(framework_version)
        if wanted is None:
            logger.warning("Framework version %r is not a version; no plugin version is compatible", framework_version)
            return None
        compatible = [
            (version, info) for version, oldest, newest, info in self._readable() if oldest <= wanted <= newest
        ]
        return max(compatible, key=lambda each: each[0])[1] if compatible else None

    def _readable(self) -> Iterator[tuple[Version, Version, Version, PluginVersionInfo]]:
        for info in self.versions:
            versions = [_version(text) for text in (info.version, *(info.min_max_framework_version or "").split(","))]
            known = [version for version in versions if version is not None]
            if len(versions) == len(known) == 3:
                yield known[0], known[1], known[2], info


def _version(text: str) -> Version | None:
    from packaging.version import InvalidVersion, Version

    try:
        return Version(text.strip())
    except InvalidVersion:
        return None


class InstalledPluginInfo(BaseModel):
    """One installed plugin."""

    name: str
    kind: str
    version: str | None = None
    installation_type: PluginInstallationType
    installation_path: str
    installed_at: str
    """Moment in UTC, ISO 8601."""
    installed_by: str
    package_source: str | None = None
    editable: bool = False


class InstalledPluginRegistry(BaseModel):
    """The record of installed plugins, kept in a file."""

    plugins: list[InstalledPluginInfo] = Field(default_factory=list)

    def register_plugin(self, plugin: InstalledPluginInfo) -> None:
        """Add a plugin, in place of one with the same name, and save."""
        self.plugins = [each for each in self.plugins if each.name != plugin.name] + [plugin]
        self.save()

    def unregister_plugin(self, plugin_name: str) -> bool:
        """Remove a plugin and save; return whether it was there."""
        kept = [each for each in self.plugins if each.name != plugin_name]
        if len(kept) == len(self.plugins):
            return False
        self.plugins = kept
        self.save()
        return True

    def save(self, path: Path | None = None) -> None:
        """Write the record, whole or not at all.

        Args:
            path: The file; without it, `installed-plugins.json` in the folder that the settings name.

        Raises:
            OSError: The file cannot be written; the former one is still there.
        """
        target = path if path is not None else _registry_file()
        target.parent.mkdir(parents=True, exist_ok=True)
        _write_atomically(target, self.model_dump_json(indent=2))


def _registry_file() -> Path:
    from cpex.framework.settings import get_registry_settings

    return Path(get_registry_settings().plugin_registry_file) / REGISTRY_FILE


def _write_atomically(target: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(prefix=f"{target.stem}.", suffix=".tmp", dir=target.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
