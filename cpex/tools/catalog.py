"""The catalogue: manifests of plugins that can be installed, in a folder, and installing them.

Each `install_*` method returns the manifest and where the plugin lies, and raises `RuntimeError` (or a `ValueError`
about what was asked for, an `OSError` about files) whose text says what failed. Nothing here writes the record of
installed plugins or a configuration; `installing.py` does, as one step.

Source: docs/reference/cli.md, "cpex plugin".
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml
from packaging.utils import InvalidSdistFilename, InvalidWheelFilename, parse_sdist_filename, parse_wheel_filename
from packaging.version import InvalidVersion, Version
from pydantic import ValidationError

from cpex.framework import clock
from cpex.framework.isolated.client import IsolatedVenvPlugin
from cpex.framework.isolated.environment import python_of
from cpex.framework.models.manifest import PluginManifest, PluginVersionInfo, PluginVersionRegistry, PyPiRepo
from cpex.framework.models.mode import PluginMode
from cpex.framework.settings import get_catalog_settings
from cpex.framework.utils import find_package_path, manifest_filename_for_class
from cpex.tools import integrity, packages
from cpex.tools.manifests import (
    MANIFEST,
    classify_plugin_kind,
    convert_fqn_kind_in_place,
    manifest_in,
    manifest_of,
    supported_kinds_message,
    unpack,
)
from cpex.tools.templates import cpex_requirement

# The functions about kinds are here for release 0.1, too.
__all__ = ["PluginCatalog", "classify_plugin_kind", "convert_fqn_kind_in_place", "supported_kinds_message"]

logger = logging.getLogger(__name__)

VERSIONS = "versions.json"
_ISOLATED = "isolated_venv"


class PluginCatalog:
    """Plugins that can be installed.

    Attributes:
        folder: `<package name>/plugin-manifest*.yaml` and `versions.json`.
        manifests: What `load` read.
        before_installing: Called when a manifest is known and nothing of it is installed; what it raises ends it there.
    """

    def __init__(self) -> None:
        settings = get_catalog_settings()
        self.folder = Path(settings.catalog_folder)
        self.plugin_folder = Path(settings.folder)
        self.strict = settings.strict_integrity_mode
        self.manifests: list[PluginManifest] = []
        self.before_installing: Callable[[PluginManifest], None] = lambda manifest: None

    # The folder.

    def load(self) -> None:
        """Read all manifests; one that cannot be read is left out, with an ERROR."""
        self.manifests = []
        for path in sorted(self.folder.rglob("plugin-manifest*.yaml")):
            try:
                text = path.read_text(encoding="utf-8")
                self.manifests.append(manifest_of(text, path.parent.name, convert=False, require_runnable=False))
            except (OSError, UnicodeDecodeError, RuntimeError) as error:
                logger.error("Manifest %s is left out: %s", path, error)

    def find(self, name: str) -> PluginManifest | None:
        """The newest manifest of that name, in any case."""
        return next((each for each in self._newest_first() if each.name.lower() == name.lower()), None)

    def search(self, name: str | None) -> list[PluginManifest] | None:
        """Manifests whose name contains the word, or that have it as a tag, newest first; `None` when there is none.

        Args:
            name: In any case; without it, all.
        """
        word = (name or "").lower()
        found = [each for each in self._newest_first() if word in each.name.lower() or word in each.tags]
        return found or None

    def versions(self, name: str) -> PluginVersionRegistry | None:
        """What `versions.json` of a plugin says; `None` when there is none that can be read."""
        path = self.folder / name / VERSIONS
        try:
            return PluginVersionRegistry.model_validate_json(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            logger.error("Versions %s are left out: %s", path, error)
            return None

    def _newest_first(self) -> Iterator[PluginManifest]:
        if not self.manifests:
            self.load()
        by_version = sorted(self.manifests, key=lambda each: _version(each.version), reverse=True)
        yield from sorted(by_version, key=lambda each: each.name.lower())

    def save_manifest(self, manifest: PluginManifest, relative: str | Path) -> None:
        """Write a manifest below the folder."""
        path = self.folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        text = yaml.safe_dump(manifest.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)
        path.write_text(text, encoding="utf-8")

    def update_plugin_version_registry(self, manifest: PluginManifest, relpath: str | Path) -> None:
        """Add a manifest to the `versions.json` beside it; the highest version becomes the latest."""
        path = (self.folder / relpath).parent / VERSIONS
        known = self.versions(path.parent.name)
        entries = [each for each in known.versions if each.version != manifest.version] if known else []
        released = next(
            (each.released for each in known.versions if each.version == manifest.version) if known else iter(()),
            clock.now().date().isoformat(),
        )
        entries.append(PluginVersionInfo(version=manifest.version, released=released, manifest_file=Path(relpath).name))
        latest = max(entries, key=lambda each: _version(each.version))
        path.parent.mkdir(parents=True, exist_ok=True)
        registry = PluginVersionRegistry(latest=latest, versions=entries)
        path.write_text(registry.model_dump_json(indent=2), encoding="utf-8")

    def update_catalog_with_pyproject(self) -> bool:
        """Ask the configured repositories for their plugins; False when it is done, True when it FAILED."""
        from cpex.tools.refreshing import refresh_catalog

        return refresh_catalog(self)

    # Installing.

    def install_from_pypi(
        self,
        name: str,
        version_constraint: str | None = None,
        use_pytest: bool = False,
        verify_integrity: bool = True,
        convert: bool = True,
    ) -> tuple[PluginManifest, Path]:
        """Install a package of the index.

        Args:
            use_pytest: Take it from the test index, and what it depends on from either.
            verify_integrity: Compare what is downloaded with the index's hash. The compared file is the one installed.

        Raises:
            IntegrityVerificationError: It differs.
        """
        info = PyPiRepo(pypi_package=name, version_constraint=version_constraint)
        requirement = f"{info.pypi_package}{info.version_constraint or ''}"
        index = []
        if use_pytest:
            index = ["--index-url", f"{integrity.index_url(True)}/"]
        with TemporaryDirectory(prefix="cpex-") as scratch:
            archive = _downloaded(requirement, Path(scratch) / "archive", index)
            if verify_integrity:
                self._verify(archive, name, use_pytest)
            manifest = self._unpacked_manifest(archive, Path(scratch) / "unpacked", name, convert)
            manifest.package_info = info
            extra = ["--extra-index-url", f"{integrity.index_url()}/"] if use_pytest else []
            source = manifest_in(Path(scratch) / "unpacked").parent
            path = self._install(manifest, [str(archive)], requirement, [*index, *extra], source)
            self._into_catalogue(manifest, Path(scratch) / "unpacked")
        return manifest, path

    def install_from_git(
        self, url: str, verify_integrity: bool = True, convert: bool = True
    ) -> tuple[PluginManifest, Path]:
        """Install from a repository, `Name @ git+URL[@ref]`, at the commit that the reference stands for now."""
        source = packages.GitSource(url)
        commit = packages.pinned(source)
        requirement = source.requirement(commit)
        with TemporaryDirectory(prefix="cpex-") as scratch:
            archive = packages.download(requirement, _made(Path(scratch) / "archive"), index=[])
            if verify_integrity:
                logger.info("SHA-256 of %s: %s", archive.name, integrity.compute_file_hash(archive))
            manifest = self._unpacked_manifest(archive, Path(scratch) / "unpacked", source.name, convert)
            manifest.git_repo = source.repository.model_copy(update={"git_branch_tag_commit": commit or source.ref})
            source_folder = manifest_in(Path(scratch) / "unpacked").parent
            path = self._install(manifest, [requirement], requirement, source=source_folder)
            self._into_catalogue(manifest, Path(scratch) / "unpacked")
        return manifest, path

    def install_from_local(self, path: str | Path, convert: bool = True) -> tuple[PluginManifest, Path]:
        """Install a folder with `pyproject.toml` and a manifest, in it or one level below, so that changes count."""
        folder = Path(path).resolve()
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {path}")
        name = packages.project_name(folder)
        found = next(
            (each for each in [folder / MANIFEST, *sorted(folder.glob(f"*/{MANIFEST}"))] if each.is_file()), None
        )
        if found is None:
            raise FileNotFoundError(f"{MANIFEST} not found in {folder} or one level below")
        manifest = manifest_of(found.read_text(encoding="utf-8"), name, convert=convert)
        manifest.local = str(folder)
        arguments = packages.editable(folder, own_environment=manifest.kind == _ISOLATED)
        with TemporaryDirectory(prefix="cpex-") as scratch:
            if manifest.kind == _ISOLATED:
                arguments += _with_this_cpex(Path(scratch))
            where = self._install(manifest, arguments, f"{name} @ {folder.as_uri()}", source=found.parent)
        self._into_catalogue(manifest, found.parent)
        return manifest, where if manifest.kind == _ISOLATED else found.parent

    def install_folder_via_pip(self, manifest: PluginManifest, verify_integrity: bool = True) -> Path | None:
        """Install a plugin of a repository of many, as its manifest in the catalogue says."""
        if manifest.monorepo is None:
            raise RuntimeError("PluginManifest.monorepo can not be None.")
        requirement = f"git+{manifest.monorepo.package_source}"
        return self._install(manifest, [requirement], f"{manifest.name} @ {requirement}")

    def uninstall_package(self, name: str, manifest: PluginManifest) -> bool:
        """Remove a plugin's package, and the environment of one that has its own; return whether that was done."""
        try:
            if manifest.kind == _ISOLATED:
                self._isolated(manifest).remove_venv()
            else:
                packages.uninstall(name)
        except FileNotFoundError:
            return False
        return True

    def _verify(self, archive: Path, name: str, use_test: bool) -> None:
        version = _version_of(archive)
        try:
            hashes = integrity.fetch_pypi_package_hashes(name, version, use_test)
            expected = integrity.find_matching_hash(archive, hashes, name)
            why = f"the index has no hash of {archive.name}"
        except RuntimeError as error:
            expected, why = None, str(error)
        if expected is not None:
            integrity.verify_package_integrity(archive, expected, name)
        elif self.strict:
            raise RuntimeError(f"integrity of `{name}` cannot be confirmed, and strict mode is on: {why}")
        else:
            logger.warning("Integrity of %s is not confirmed: %s", name, why)

    def _unpacked_manifest(self, archive: Path, folder: Path, name: str, convert: bool) -> PluginManifest:
        unpack(archive, folder)
        return manifest_of(manifest_in(folder).read_text(encoding="utf-8"), name, convert=convert)

    def _install(
        self,
        manifest: PluginManifest,
        arguments: list[str],
        requirement: str,
        index: list[str] | None = None,
        source: Path | None = None,
    ) -> Path:
        """Install into this environment, or into one of the plugin's own; return where it lies."""
        self.before_installing(manifest)
        if manifest.kind != _ISOLATED:
            packages.install([*arguments, *(index or [])], manifest.name)
            return _location(manifest)
        plugin = self._isolated(manifest)
        self._prepare_folder(manifest, plugin.plugin_path, source)
        fresh = not (plugin.plugin_path / ".venv").exists()
        try:
            asyncio.run(plugin.initialize(defer_cache_metadata=True))
            python = python_of(plugin.plugin_path / ".venv")
            packages.install([*arguments, *(index or [])], manifest.name, python=python)
        # Whatever went wrong, nothing half made is left; it is told below.
        except Exception as error:
            if fresh:
                shutil.rmtree(plugin.plugin_path / ".venv", ignore_errors=True)
                shutil.rmtree(plugin.plugin_path / ".cpex", ignore_errors=True)
            if isinstance(error, RuntimeError) and str(error).startswith("Failed to install"):
                raise
            raise RuntimeError(f"Failed to initialize isolated venv for {manifest.name}: {error}") from error
        plugin.commit_cache_metadata([requirement])
        return plugin.plugin_path

    def _isolated(self, manifest: PluginManifest) -> IsolatedVenvPlugin:
        config = manifest.create_instance_config(manifest.suggest_instance_name(), PluginMode.SEQUENTIAL)
        return IsolatedVenvPlugin(config=config, plugin_dirs=[str(self.plugin_folder.resolve())])

    def _prepare_folder(self, manifest: PluginManifest, folder: Path, source: Path | None) -> None:
        """Put beside the environment what decides whether it is still good: manifest and requirements."""
        name = manifest.default_config.get("requirements_file")
        listed = source / str(name) if source is not None and name else None
        if listed is not None and listed.is_file() and listed.resolve().is_relative_to(source or Path()):
            (folder / str(name)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(listed, folder / str(name))
        text = yaml.safe_dump(manifest.model_dump(mode="json", exclude_none=True), sort_keys=False, allow_unicode=True)
        file = folder / manifest_filename_for_class(str(manifest.default_config["class_name"]))
        file.write_text(text, encoding="utf-8")

    def _into_catalogue(self, manifest: PluginManifest, source: Path) -> None:
        relative = Path(manifest.name) / MANIFEST
        self.save_manifest(manifest, relative)
        shipped = next(iter(sorted(source.rglob(VERSIONS))), None)
        if shipped is not None:
            shutil.copyfile(shipped, self.folder / manifest.name / VERSIONS)
        self.update_plugin_version_registry(manifest, relative)
        self.manifests = []


def _downloaded(requirement: str, folder: Path, index: list[str]) -> Path:
    try:
        return packages.download(requirement, _made(folder), index=index, wheels_only=True)
    except RuntimeError:
        # SECURITY: pip runs the build code of a source archive to learn what it depends on, before anything is checked.
        logger.warning("%s has no wheel for this interpreter; its source archive is taken", requirement)
        return packages.download(requirement, _made(folder), index=index)


def _with_this_cpex(scratch: Path) -> list[str]:
    """Arguments by which a plugin that needs cpex gets this one, where it came from elsewhere than an index."""
    requirement = cpex_requirement()
    if " @ " not in requirement:
        return []
    file = scratch / "constraints.txt"
    file.write_text(f"{requirement}\n", encoding="utf-8")
    return ["--constraint", str(file)]


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _location(manifest: PluginManifest) -> Path:
    package = manifest.kind.partition(".")[0]
    for name in (manifest.name, package):
        try:
            return find_package_path(name)
        except RuntimeError:
            continue
    return Path(sys.prefix)


def _version_of(archive: Path) -> str | None:
    try:
        if archive.suffix == ".whl":
            return str(parse_wheel_filename(archive.name)[1])
        return str(parse_sdist_filename(archive.name)[1])
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidVersion):
        return None


def _version(text: str | None) -> Version:
    """For ordering; what cannot be read counts as 0."""
    try:
        return Version(text or "0")
    except InvalidVersion:
        return Version("0")
