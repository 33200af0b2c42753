"""What `cpex plugin` reads: what is installed, what can be, in which versions, and whether it is there."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from cpex.tools.console import print_json
from cpex.tools.exit_codes import ExitCode

if TYPE_CHECKING:
    # Loaded when there is something to do, so that help and version cost little.
    from cpex.framework.models.manifest import PluginManifest, PluginVersionRegistry
    from cpex.tools.catalog import PluginCatalog

__all__ = ["nothing", "show_info", "show_installed", "show_search", "show_verify", "show_versions"]


def show_installed(as_json: bool) -> None:
    """Name, version and origin of what is installed."""
    from cpex.tools.plugin_registry import PluginRegistry

    installed = PluginRegistry().registry.plugins
    if as_json:
        rows = [
            {"name": each.name, "version": each.version, "installation_type": each.installation_type.value}
            for each in installed
        ]
        print_json({"plugins": rows}, sys.stdout)
        return
    for each in installed:
        typer.echo(f"name: {each.name} version: {each.version} installation type: {each.installation_type.value}\n")


def show_info(word: str | None, as_json: bool) -> None:
    """The records of what is installed, of those whose name or kind contains the word."""
    from cpex.tools.plugin_registry import PluginRegistry

    wanted = (word or "").lower()
    found = [
        each.model_dump(mode="json")
        for each in PluginRegistry().registry.plugins
        if wanted in each.name.lower() or wanted in each.kind.lower()
    ]
    if as_json:
        print_json({"plugins": found}, sys.stdout)
    else:
        for record in found:
            print_json(record, sys.stdout)
    if not found:
        nothing("No plugins found", as_json)


def nothing(text: str, as_json: bool) -> NoReturn:
    """Say that there is nothing, beside the document that says so too, and end."""
    typer.echo(text, err=as_json)
    raise typer.Exit(ExitCode.NOT_FOUND)


def show_search(catalog: PluginCatalog, word: str | None, as_json: bool) -> None:
    """What the catalogue has, newest first."""
    found = catalog.search(word) or []
    rows = [{"name": each.name, "version": each.version, "installation_type": _origin(each)} for each in found]
    if as_json:
        print_json({"results": rows}, sys.stdout)
    else:
        for row in rows:
            typer.echo(f"name: {row['name']} version: {row['version']} installation type: {row['installation_type']}")
    if not rows:
        nothing("No plugins found.", as_json)


def _origin(manifest: PluginManifest) -> str:
    if manifest.monorepo is not None:
        return "monorepo"
    if manifest.package_info is not None:
        return "pypi"
    return "git" if manifest.git_repo is not None else "local"


def show_versions(catalog: PluginCatalog, name: str | None, as_json: bool) -> None:
    """The versions of one plugin, or of each; a plugin with none that are known is left out."""
    if name is not None:
        found = [each for each in [catalog.find(name)] if each is not None]
    else:
        found = catalog.search(None) or []
    known = {each.name: registry for each in found if (registry := catalog.versions(each.name)) is not None}
    rows = [{"name": each, **_versions_of(registry)} for each, registry in known.items() if registry.versions]
    if as_json:
        none: dict[str, Any] = {"name": name, "latest": None, "versions": []}
        print_json({"plugins": rows} if name is None else (rows or [none])[0], sys.stdout)
    else:
        for row in rows:
            before = f"{row['name']} " if name is None else ""
            for each in row["versions"]:
                known_marks = {"latest": each["version"] == row["latest"], "deprecated": each["deprecated"]}
                marks = ", ".join(word for word, said in known_marks.items() if said)
                typer.echo(f"{before}{each['version']} released {each['released']}" + (f" ({marks})" if marks else ""))
    if not rows:
        nothing(f"No versions of {name} are known." if name is not None else "No versions are known.", as_json)


def _versions_of(registry: PluginVersionRegistry) -> dict[str, Any]:
    entries = [each.model_dump(mode="json", exclude_none=True) for each in registry.versions]
    return {"latest": registry.latest.version if registry.latest is not None else None, "versions": entries}


def show_verify(word: str | None, as_json: bool) -> None:
    """Whether what the record says is installed is there."""
    from pathlib import Path

    from cpex.tools.plugin_registry import PluginRegistry

    rows = [
        {"name": each.name, "ok": Path(each.installation_path).exists(), "installation_path": each.installation_path}
        for each in PluginRegistry().registry.plugins
        if not word or word.lower() == each.name.lower()
    ]
    if as_json:
        print_json({"ok": all(row["ok"] for row in rows), "plugins": rows}, sys.stdout)
    else:
        for row in rows:
            typer.echo(f"{row['name']}: {'ok' if row['ok'] else 'missing'} ({row['installation_path']})")
    if not rows:
        nothing("No plugins found", as_json)
    if not all(row["ok"] for row in rows):
        raise typer.Exit(ExitCode.FAILURE)
