"""Which plugins are installed here: the record, and how an installation gets into it.

Source: docs/reference/cli.md, "cpex plugin".
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from cpex.framework import clock
from cpex.framework.models.manifest import (
    REGISTRY_FILE,
    InstalledPluginInfo,
    InstalledPluginRegistry,
    PluginManifest,
)
from cpex.framework.models.mode import PluginInstallationType
from cpex.framework.settings import get_registry_settings

__all__ = ["PluginRegistry"]

logger = logging.getLogger(__name__)
T = TypeVar("T")


class PluginRegistry:
    """The record of installed plugins, in `installed-plugins.json` of the folder that the settings name.

    Attributes:
        registry: What was read; empty when there is no file. One that cannot be read is set aside, with an ERROR.
    """

    def __init__(self) -> None:
        self.path = Path(get_registry_settings().plugin_registry_file) / REGISTRY_FILE
        self.registry = self._load()

    def _load(self) -> InstalledPluginRegistry:
        try:
            return InstalledPluginRegistry.model_validate_json(self.path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return InstalledPluginRegistry()
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            aside = self.path.with_name(self.path.name + ".corrupted")
            logger.error("The record %s cannot be read (%s); it is set aside as %s", self.path, error, aside)
            self.path.replace(aside)
            return InstalledPluginRegistry()

    def has(self, name: str) -> bool:
        """Whether a plugin of that name is installed."""
        return self.get(name) is not None

    def get(self, name: str) -> InstalledPluginInfo | None:
        """The record of a plugin; names are compared as they are written."""
        return next((each for each in self.registry.plugins if each.name == name), None)

    def remove(self, name: str) -> bool:
        """Forget a plugin; return whether it was there."""
        kept = [each for each in self.registry.plugins if each.name != name]
        if len(kept) == len(self.registry.plugins):
            return False
        self.registry.plugins = kept
        self.registry.save(self.path)
        return True

    def update(
        self,
        manifest: PluginManifest,
        installation_type: str,
        catalog: object,
        git_user_name: str,
        plugin_path: Path | None = None,
        editable: bool = False,
    ) -> InstalledPluginInfo:
        """Note an installation, in place of one of the same name, and save.

        Args:
            installation_type: `monorepo`, `pypi`, `test-pypi`, `git` or `local`.
            catalog: Not read; part of the signature.
            plugin_path: Where the plugin lies.

        Raises:
            RuntimeError: The manifest lacks the block that says where it came from.
            ValueError: There is no such type.
        """
        kind = PluginInstallationType("pypi" if installation_type == "test-pypi" else _known(installation_type))
        record = InstalledPluginInfo(
            name=manifest.name,
            kind=manifest.kind,
            version=manifest.version,
            installation_type=kind,
            installation_path=str((plugin_path or Path()).resolve()),
            installed_at=clock.now().isoformat(),
            installed_by=git_user_name,
            package_source=_source(manifest, kind),
            editable=editable,
        )
        self.registry.plugins = [each for each in self.registry.plugins if each.name != record.name] + [record]
        self.registry.save(self.path)
        return record


def _known(installation_type: str) -> str:
    if installation_type not in ("monorepo", "pypi", "git", "local"):
        raise ValueError(f"Invalid installation type: {installation_type}")
    return installation_type


def _source(manifest: PluginManifest, kind: PluginInstallationType) -> str | None:
    """Where a plugin came from, in one text."""
    if kind is PluginInstallationType.MONOREPO:
        return _given(manifest.monorepo, "monorepo").package_source
    if kind is PluginInstallationType.PYPI:
        return _given(manifest.package_info, "package_info").pypi_package
    if kind is PluginInstallationType.LOCAL:
        return _given(manifest.local, "local")
    git = _given(manifest.git_repo, "git_repo")
    at = f"@{git.git_branch_tag_commit}" if git.git_branch_tag_commit else ""
    return f"{manifest.name} @ {git.git_repository}{at}"


def _given(value: T | None, name: str) -> T:
    if value is None:
        raise RuntimeError(f"PluginManifest.{name} can not be None.")
    return value
