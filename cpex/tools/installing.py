"""Installing and removing a plugin as one step: package, catalogue, record and configuration, or none of them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from packaging.version import InvalidVersion, Version

from cpex.framework.constants import ISOLATED_VENV_PLUGIN_TYPE
from cpex.framework.models.manifest import InstalledPluginInfo, PluginManifest
from cpex.framework.models.mode import PluginMode
from cpex.framework.settings import get_catalog_settings, get_startup_settings
from cpex.tools.catalog import PluginCatalog
from cpex.tools.config_edit import ConfigEdit
from cpex.tools.manifests import classify_plugin_kind
from cpex.tools.plugin_registry import PluginRegistry

__all__ = ["TYPES", "InstallType", "Request", "install", "installed_already", "remove"]

logger = logging.getLogger(__name__)

InstallType = Literal["monorepo", "pypi", "test-pypi", "git", "local"]
TYPES: tuple[InstallType, ...] = ("monorepo", "pypi", "test-pypi", "git", "local")


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be installed, from where."""

    source: str
    type: InstallType
    convert: bool = True
    git_user: str = ""

    @property
    def name(self) -> str:
        """The name part of the source."""
        if self.type == "git":
            return self.source.partition(" @ ")[0].strip()
        return self.source.partition("@")[0].strip() if self.type in ("pypi", "test-pypi") else self.source

    @property
    def constraint(self) -> str | None:
        """The version part of the source."""
        return self.source.partition("@")[2].strip() or None if self.type in ("pypi", "test-pypi") else None


def installed_already(request: Request, catalog: PluginCatalog, registry: PluginRegistry) -> InstalledPluginInfo | None:
    """The record of a plugin that is installed as the catalogue has it; `None` when there is work to do."""
    record, known = registry.get(request.name), catalog.find(request.name)
    if record is None or known is None or request.constraint or request.type == "local":
        return None
    if request.type != "monorepo" and _may_have_other_form(request, record):
        return None
    try:
        same = Version(known.version) == Version(record.version or "")
    except InvalidVersion:
        same = known.version == record.version
    return record if same else None


def install(request: Request, catalog: PluginCatalog, chosen: PluginManifest | None = None) -> PluginManifest:
    """Install a plugin, note it, and add an instance to the configuration; what was done is undone when a part fails.

    A repeated installation keeps the instance that there is and writes its version. One with an environment of its own
    is not installed without one besides, nor the other way round.

    Args:
        chosen: The plugin of a repository of many.

    Raises:
        RuntimeError, ValueError, OSError, ConfigEditError, IntegrityVerificationError: What failed, in its text.
    """
    # What cannot be edited afterwards is refused before anything is installed.
    edit = ConfigEdit(Path(get_startup_settings().config_file))
    registry = PluginRegistry()
    catalog.before_installing = lambda manifest: _refuse_second_copy(manifest, registry.get(manifest.name))
    with ExitStack() as undo:
        manifest, path = _fetched(request, catalog, chosen, undo)
        before = registry.registry.model_copy(deep=True)
        registry.update(manifest, request.type, catalog, request.git_user, path, editable=request.type == "local")
        undo.callback(before.save, registry.path)
        undo.callback(edit.undo)
        _into_config(edit, manifest)
        undo.pop_all()
    return manifest


def _fetched(
    request: Request, catalog: PluginCatalog, chosen: PluginManifest | None, undo: ExitStack
) -> tuple[PluginManifest, Path]:
    verify = get_catalog_settings().verify_package_integrity
    former = _version_here(request.name)
    made: tuple[PluginManifest, Path]
    if request.type in ("pypi", "test-pypi"):
        test = request.type == "test-pypi"
        made = catalog.install_from_pypi(request.name, request.constraint, test, verify, request.convert)
    elif request.type == "git":
        made = catalog.install_from_git(request.source, verify, request.convert)
    elif request.type == "local":
        made = catalog.install_from_local(request.source, request.convert)
    else:
        if chosen is None:
            raise ValueError(f"no plugin of the catalogue matches `{request.source}`")
        made = chosen, catalog.install_folder_via_pip(chosen, verify) or Path(sys.prefix)
    if former is None:
        # A version that was here before is not brought back: pip has removed it, and where it came from is not known.
        undo.callback(_quietly, lambda: catalog.uninstall_package(made[0].name, made[0]))
    return made


def _may_have_other_form(request: Request, record: InstalledPluginInfo) -> bool:
    """Whether the manifest may come out with another kind than was installed; it has to be fetched to know."""
    return classify_plugin_kind(record.kind) == "fqn" if request.convert else _has_environment(record.kind)


def _has_environment(kind: str) -> bool:
    return kind == ISOLATED_VENV_PLUGIN_TYPE


def _refuse_second_copy(manifest: PluginManifest, record: InstalledPluginInfo | None) -> None:
    """Let no plugin be installed both in an environment of its own and without one: it would run twice."""
    if record is None or _has_environment(record.kind) == _has_environment(manifest.kind):
        return
    here, there = "in an environment of its own", "without one"
    if not _has_environment(record.kind):
        here, there = "without an environment of its own", "in one"
    raise ValueError(
        f"{manifest.name} {record.version} is installed {here}; "
        f"to have it {there}, remove it first: cpex plugin uninstall {manifest.name}"
    )


def _version_here(name: str) -> str | None:
    try:
        return version(name)
    except (PackageNotFoundError, ValueError):
        return None


def _quietly(step: Callable[[], Any]) -> None:
    try:
        step()
    # The failure that led here is the one to report.
    except Exception as error:
        logger.warning("What was installed could not be removed again: %s", error)


def _into_config(edit: ConfigEdit, manifest: PluginManifest) -> None:
    names = {str(each.get("name")) for each in edit.plugins}
    own = [str(each.get("name")) for each in edit.plugins if is_of(each, manifest)]
    if own:
        for name in own:
            edit.set_version(name, manifest.version)
    else:
        edit.add(_entry(manifest, names))
    edit.need_folder(get_catalog_settings().folder)
    edit.save()


def is_of(entry: dict[str, Any], manifest: PluginManifest) -> bool:
    """Whether an instance was made from a manifest: the same kind and class, and a name that comes from its name."""
    suggested = manifest.suggest_instance_name()
    name, _, number = str(entry.get("name")).rpartition("_")
    named = entry.get("name") == suggested or (name == suggested and number.isdigit())
    settings = entry.get("config") if isinstance(entry.get("config"), dict) else {}
    same_class = (settings or {}).get("class_name") == manifest.default_config.get("class_name")
    return named and entry.get("kind") == manifest.kind and same_class


def _entry(manifest: PluginManifest, taken: set[str]) -> dict[str, Any]:
    suggested = manifest.suggest_instance_name()
    name = suggested
    for number in range(1, len(taken) + 2):
        if name not in taken:
            break
        name = f"{suggested}_{number}"
    config = manifest.create_instance_config(name, PluginMode.SEQUENTIAL)
    entry: dict[str, Any] = {"name": name, "kind": config.kind, "mode": config.mode.value, "priority": config.priority}
    entry |= {"description": config.description, "author": config.author, "version": config.version}
    return {**entry, "tags": config.tags, "hooks": config.hooks, "config": config.config or {}}


def remove(record: InstalledPluginInfo, manifest: PluginManifest, catalog: PluginCatalog) -> list[str]:
    """Remove a plugin: its instances, its package or environment, its record.

    Returns:
        Names of the instances that were in the configuration.

    Raises:
        RuntimeError, OSError, ConfigEditError: What failed, in its text; the configuration is as it was.
    """
    edit = ConfigEdit(Path(get_startup_settings().config_file))
    names = [str(each.get("name")) for each in edit.plugins if is_of(each, manifest)]
    edit.remove(names)
    with ExitStack() as undo:
        edit.save()
        undo.callback(edit.undo)
        catalog.uninstall_package(_package(record, manifest), manifest)
        PluginRegistry().remove(record.name)
        undo.pop_all()
    return names


def _package(record: InstalledPluginInfo, manifest: PluginManifest) -> str:
    """What pip knows the plugin as."""
    if manifest.package_info is not None and manifest.package_info.pypi_package:
        return manifest.package_info.pypi_package
    if manifest.local is not None and (Path(manifest.local) / "pyproject.toml").is_file():
        from cpex.tools.packages import project_name

        return project_name(Path(manifest.local))
    return record.name
