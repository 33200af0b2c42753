"""The command `cpex plugin`: what is installed, what can be, and changing that."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cpex.tools.console import clean_end, complain, print_json
from cpex.tools.exit_codes import ExitCode

if TYPE_CHECKING:
    # Loaded when there is something to do, so that help and version cost little.
    from cpex.framework.models.manifest import PluginManifest
    from cpex.tools.catalog import PluginCatalog

__all__ = ["plugin"]

ACTIONS = ("list", "info", "search", "versions", "install", "uninstall", "verify", "refresh")
_NEED_SOURCE = ("install", "uninstall", "versions")


def plugin(
    action: Annotated[str, typer.Argument(metavar="ACTION", help=f"One of: {', '.join(ACTIONS)}.")],
    source: Annotated[
        str | None, typer.Argument(metavar="SOURCE", help="A name, a word, an address or a folder.")
    ] = None,
    install_type: Annotated[
        str | None,
        typer.Option("--type", "-t", metavar="TYPE", help="monorepo (default), pypi, test-pypi, git or local."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Ask nothing.")] = False,
    output: Annotated[str, typer.Option("--format", "-f", metavar="FORMAT", help="text or json.")] = "text",
    as_json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    no_convert: Annotated[
        bool, typer.Option("--no-convert", help="Keep a class path; without it the plugin gets an environment.")
    ] = False,
    refresh: Annotated[bool, typer.Option("--refresh", help="Ask the repositories for their plugins first.")] = False,
) -> None:
    """List, find, install and remove plugins.

    Nothing but install, refresh and --refresh uses the network.

    Examples: cpex plugin install --type local ./my_filter,
    cpex plugin install --type pypi 'my-filter@>=1.2', cpex plugin list
    """
    from cpex.tools.logs import logs_to_stderr

    if action not in ACTIONS:
        raise typer.BadParameter(f"unknown action `{action}`; known: {', '.join(ACTIONS)}", param_hint="ACTION")
    if action in _NEED_SOURCE and not source:
        raise typer.BadParameter(f"`{action}` needs a plugin: cpex plugin {action} SOURCE", param_hint="SOURCE")
    with clean_end(), logs_to_stderr():
        as_json = as_json or output == "json"
        _run(action, source, install_type, yes=yes, as_json=as_json, convert=not no_convert, refresh=refresh)


def _run(
    action: str, source: str | None, install_type: str | None, *, yes: bool, as_json: bool, convert: bool, refresh: bool
) -> None:
    from cpex.tools.catalog import PluginCatalog

    catalog = PluginCatalog()
    if refresh or action == "refresh":
        _refresh(catalog, fatal=action == "refresh")
    if action == "list":
        _list(as_json)
    elif action == "info":
        _info(source, as_json)
    elif action == "search":
        _search(catalog, source, as_json)
    elif action == "versions":
        _versions(catalog, source or "", as_json)
    elif action == "verify":
        _verify(source, as_json)
    elif action == "install":
        _install(catalog, source or "", install_type, yes=yes, convert=convert)
    elif action == "uninstall":
        _uninstall(catalog, source or "", yes=yes)


def _list(as_json: bool) -> None:
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


def _info(word: str | None, as_json: bool) -> None:
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
        _nothing("No plugins found", as_json)


def _nothing(text: str, as_json: bool) -> NoReturn:
    typer.echo(text, err=as_json)
    raise typer.Exit(ExitCode.NOT_FOUND)


def _search(catalog: PluginCatalog, word: str | None, as_json: bool) -> None:
    found = catalog.search(word) or []
    rows = [{"name": each.name, "version": each.version, "installation_type": _origin(each)} for each in found]
    if as_json:
        print_json({"results": rows}, sys.stdout)
    else:
        for row in rows:
            typer.echo(f"name: {row['name']} version: {row['version']} installation type: {row['installation_type']}")
    if not rows:
        _nothing("No plugins found.", as_json)


def _origin(manifest: PluginManifest) -> str:
    if manifest.monorepo is not None:
        return "monorepo"
    if manifest.package_info is not None:
        return "pypi"
    return "git" if manifest.git_repo is not None else "local"


def _versions(catalog: PluginCatalog, name: str, as_json: bool) -> None:
    known = catalog.find(name)
    registry = catalog.versions(known.name) if known is not None else None
    entries = [each.model_dump(mode="json", exclude_none=True) for each in registry.versions] if registry else []
    latest = registry.latest.version if registry is not None and registry.latest is not None else None
    if as_json:
        print_json({"name": name, "latest": latest, "versions": entries}, sys.stdout)
    else:
        for each in entries:
            known_marks = {"latest": each["version"] == latest, "deprecated": each["deprecated"]}
            marks = [word for word, said in known_marks.items() if said]
            typer.echo(f"{each['version']} released {each['released']}" + (f" ({', '.join(marks)})" if marks else ""))
    if not entries:
        _nothing(f"No versions of {name} are known.", as_json)


def _verify(word: str | None, as_json: bool) -> None:
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
        _nothing("No plugins found", as_json)
    if not all(row["ok"] for row in rows):
        raise typer.Exit(ExitCode.FAILURE)


def _refresh(catalog: PluginCatalog, *, fatal: bool) -> None:
    from cpex.tools.refreshing import refresh_catalog

    typer.echo("Update catalog", err=True)
    failed = refresh_catalog(catalog)
    typer.echo("Catalog update failed." if failed else "Catalog update completed.", err=True)
    if failed and fatal:
        raise typer.Exit(ExitCode.OPERATION)


def _install(catalog: PluginCatalog, source: str, install_type: str | None, *, yes: bool, convert: bool) -> None:
    from cpex.framework.settings import get_catalog_settings
    from cpex.tools import installing
    from cpex.tools.plugin_registry import PluginRegistry

    kind = install_type or "monorepo"
    if kind not in installing.TYPES:
        known = ", ".join(installing.TYPES)
        raise typer.BadParameter(f"Unsupported installation type: {kind}; known: {known}", param_hint="--type")
    request = installing.Request(source, kind, convert, _git_user())
    record = installing.installed_already(request, catalog, PluginRegistry())
    if record is not None:
        typer.echo(f"{record.name} is already installed at version {record.version}")
        return
    chosen = _chosen(catalog, source, yes=yes) if kind == "monorepo" else None
    if kind in ("pypi", "test-pypi"):
        enabled = get_catalog_settings().verify_package_integrity
        typer.echo(f"Package integrity verification: {'enabled' if enabled else 'disabled'}", err=True)
    manifest = _guarded(lambda: installing.install(request, catalog, chosen), "Installation")
    typer.echo(f"✅ {manifest.name} installation complete.")


def _git_user() -> str:
    from cpex.tools.projects import git_config

    return git_config("user.name")


def _chosen(catalog: PluginCatalog, word: str, *, yes: bool) -> PluginManifest:
    """The plugin of a repository of many that a word means; asked for when there are several."""
    found = [each for each in catalog.search(word) or [] if each.monorepo is not None]
    if not found:
        _nothing("No matching plugins found.", as_json=False)
    exact = [each for each in found if each.name.lower() == word.lower()]
    names = {each.name for each in found}
    if exact or len(names) == 1:
        return (exact or found)[0]
    if yes or not sys.stdin.isatty():
        raise typer.BadParameter(f"`{word}` means {', '.join(sorted(names))}; name one of them", param_hint="SOURCE")
    for number, each in enumerate(found, start=1):
        typer.echo(f"{number}  {each.name} {each.version}  {each.description}", err=True)
    answer: int = typer.prompt("which", type=int, err=True)
    if not 1 <= answer <= len(found):
        raise typer.BadParameter(f"there is no number {answer}", param_hint="SOURCE")
    return found[answer - 1]


def _guarded(step: Any, what: str) -> Any:
    """Do it; tell what failed, in one message, and exit."""
    from cpex.framework.errors import Fault, PluginError
    from cpex.tools.config_edit import ConfigEditError
    from cpex.tools.integrity import IntegrityVerificationError

    try:
        return step()
    except (RuntimeError, ValueError, OSError, PluginError, ConfigEditError, IntegrityVerificationError) as error:
        help = "nothing was changed; mend it and run the command again"
        complain(Fault(code="plugin-failed", message=f"❌ {what} failed: {error}", help=help))
        raise typer.Exit(ExitCode.OPERATION) from None


def _uninstall(catalog: PluginCatalog, name: str, *, yes: bool) -> None:
    from cpex.tools import installing
    from cpex.tools.plugin_registry import PluginRegistry

    record = PluginRegistry().get(name)
    manifest = catalog.find(name)
    if record is None or manifest is None:
        lack = "is not installed" if record is None else "is not in the catalogue, which says how to remove it"
        _nothing(f"{name} {lack}.", as_json=True)
    typer.echo(f"{record.name} {record.version} ({record.installation_type.value})", err=True)
    typer.echo(f"in {record.installation_path}", err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to ask on; add -y", param_hint="--yes")
        if not typer.confirm("Uninstall?", default=False, err=True):
            typer.echo("Uninstall cancelled.")
            return
    names = _guarded(lambda: installing.remove(record, manifest, catalog), "Uninstall")
    kept = f"; removed from the configuration: {', '.join(names)}" if names else ""
    typer.echo(f"✅ {record.name} uninstalled{kept}.")
