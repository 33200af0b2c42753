"""The command `cpex plugin`: what is installed, what can be, and changing that."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cpex.tools.console import clean_end, complain
from cpex.tools.exit_codes import ExitCode
from cpex.tools.plugin_reading import nothing, show_info, show_installed, show_search, show_verify, show_versions

if TYPE_CHECKING:
    # Loaded when there is something to do, so that help and version cost little.
    from cpex.framework.models.manifest import PluginManifest
    from cpex.tools.catalog import PluginCatalog
    from cpex.tools.installing import InstallType
    from cpex.tools.logs import LogPrinter

__all__ = ["plugin"]

ACTIONS = ("list", "info", "search", "versions", "install", "uninstall", "verify", "refresh")
_NEED_SOURCE = ("install", "uninstall")
_FORMATS = ("text", "json")


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
    chosen = _checked_type(install_type)
    with clean_end(), logs_to_stderr() as printer:
        _show_progress(printer)
        if output not in _FORMATS:
            typer.echo(f"warning: unknown format `{output}`, so it is text; known: {', '.join(_FORMATS)}", err=True)
        as_json = as_json or output == "json"
        _run(action, source, chosen, yes=yes, as_json=as_json, convert=not no_convert, refresh=refresh)


def _show_progress(printer: LogPrinter) -> None:
    """Let the installer's own messages through, such as the hash of what it takes from a repository."""
    name = "cpex.tools.catalog"
    logging.getLogger(name).setLevel(logging.INFO)
    printer.setLevel(logging.INFO)
    printer.thresholds[name] = logging.INFO


def _checked_type(word: str | None) -> InstallType | None:
    from cpex.tools.installing import TYPES

    found = next((each for each in TYPES if each == word), None)
    if word is not None and found is None:
        known = ", ".join(TYPES)
        raise typer.BadParameter(f"Unsupported installation type: {word}; known: {known}", param_hint="--type")
    return found


def _run(
    action: str,
    source: str | None,
    install_type: InstallType | None,
    *,
    yes: bool,
    as_json: bool,
    convert: bool,
    refresh: bool,
) -> None:
    from cpex.tools.catalog import PluginCatalog

    catalog = PluginCatalog()
    if refresh or action == "refresh":
        _refresh(catalog, fatal=action == "refresh")
    if action == "list":
        show_installed(as_json)
    elif action == "info":
        show_info(source, as_json)
    elif action == "search":
        show_search(catalog, source, as_json)
    elif action == "versions":
        show_versions(catalog, source, as_json)
    elif action == "verify":
        show_verify(source, as_json)
    elif action == "install":
        _install(catalog, source or "", install_type, yes=yes, convert=convert)
    elif action == "uninstall":
        _uninstall(catalog, source or "", yes=yes)


def _refresh(catalog: PluginCatalog, *, fatal: bool) -> None:
    from cpex.tools.refreshing import refresh_catalog

    typer.echo("Update catalog", err=True)
    failed = refresh_catalog(catalog)
    typer.echo("Catalog update failed." if failed else "Catalog update completed.", err=True)
    if failed and fatal:
        raise typer.Exit(ExitCode.OPERATION)


def _install(
    catalog: PluginCatalog, source: str, install_type: InstallType | None, *, yes: bool, convert: bool
) -> None:
    from cpex.framework.settings import get_catalog_settings
    from cpex.tools import installing
    from cpex.tools.plugin_registry import PluginRegistry

    kind = install_type or "monorepo"
    request = installing.Request(source, kind, convert, _git_user())
    record = installing.installed_already(request, catalog, PluginRegistry())
    if record is not None:
        typer.echo(f"{record.name} is already installed at version {record.version}")
        return
    chosen = _chosen(catalog, source, yes=yes) if kind == "monorepo" else None
    if kind in ("pypi", "test-pypi", "git"):
        enabled = "enabled" + (" (hash will be computed and logged)" if kind == "git" else "")
        verify = get_catalog_settings().verify_package_integrity
        typer.echo(f"Package integrity verification: {enabled if verify else 'disabled'}", err=True)
    manifest = _guarded(lambda: installing.install(request, catalog, chosen), "Installation")
    typer.echo(f"✅ {manifest.name} installation complete.")


def _git_user() -> str:
    from cpex.tools.projects import git_config

    return git_config("user.name")


def _chosen(catalog: PluginCatalog, word: str, *, yes: bool) -> PluginManifest:
    """The plugin of a repository of many that a word means; asked for when there are several."""
    found = [each for each in catalog.search(word) or [] if each.monorepo is not None]
    if not found:
        typer.echo("No matching plugins found.")
        typer.echo("help: `--refresh` asks the repositories first; `--type` installs from elsewhere", err=True)
        raise typer.Exit(ExitCode.NOT_FOUND)
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
        nothing(f"{name} {lack}.", as_json=True)
    typer.echo(f"plugin:  {record.name}", err=True)
    typer.echo(f"version: {record.version} installation type: {record.installation_type.value}", err=True)
    typer.echo(f"path:    {record.installation_path}", err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to ask on; add -y", param_hint="--yes")
        if not typer.confirm("Uninstall?", default=False, err=True):
            typer.echo("Uninstall cancelled.")
            return
    names = _guarded(lambda: installing.remove(record, manifest, catalog), "Uninstall")
    kept = f"; removed from the configuration: {', '.join(names)}" if names else ""
    typer.echo(f"✅ {record.name} uninstalled{kept}.")
