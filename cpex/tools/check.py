"""The command `cpex check`: everything that is wrong with configurations, at once.

No plugin is initialised and no hook is run. Unless told otherwise, plugins are imported and constructed, because that
is where a misspelt kind, a setting that a plugin refuses and a hook without a handler show.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cpex.tools.console import clean_end, fault_text, plugins_print_to_stderr, print_json
from cpex.tools.exit_codes import ExitCode

if TYPE_CHECKING:
    # Imported when a check begins, so that help and version cost little.
    from cpex.framework.errors import Fault
    from cpex.framework.loader.config import CheckedConfig, LoadedConfig
    from cpex.framework.models.config import PluginConfig

__all__ = ["Report", "check", "examine"]


@dataclass(frozen=True, slots=True)
class Report:
    """What there is to say about one file."""

    file: str
    plugins: int
    """Plugins that it would start; 0 when it cannot be read."""
    faults: tuple[Fault, ...]
    """In order of position."""
    warnings: tuple[Fault, ...]
    """In order of position."""


def check(
    configs: Annotated[list[str], typer.Argument(metavar="FILE", help="Configurations to look at.")],
    no_import: Annotated[
        bool, typer.Option("--no-import", help="Do not even import plugins; look at the files alone.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as one JSON document.")] = False,
) -> None:
    """Validate configurations without running a hook or starting a plugin.

    Every fault is told at once, with its place and how to mend it. Plugins
    are imported and constructed to see whether they accept their settings
    and have the hooks that they list.

    Exits with 0 when nothing is wrong, 1 when there are faults.

    Example: cpex check plugins.yaml
    """
    from cpex.tools.logs import logs_to_stderr

    with clean_end():
        with plugins_print_to_stderr(), logs_to_stderr():
            reports = [examine(config, imports=not no_import) for config in configs]
        if as_json:
            print_json(document(reports), sys.stdout)
        else:
            sys.stdout.write(text(reports))
        raise typer.Exit(ExitCode.FAILURE if any(report.faults for report in reports) else ExitCode.OK)


def examine(file: str, *, imports: bool = True) -> Report:
    """Look at one configuration.

    Args:
        imports: Import and construct its plugins, too.
    """
    from cpex.framework.errors import ConfigFileNotFound
    from cpex.framework.loader.config import ConfigLoader

    try:
        checked = ConfigLoader.check(file)
    except ConfigFileNotFound as error:
        return Report(file, 0, tuple(error.faults), ())
    faults = checked.faults
    if imports and (loaded := _usable_part(checked)) is not None:
        tried = (fault for fault in _plugin_faults(loaded) if not _may_follow_from(faults, fault))
        faults = tuple(sorted((*faults, *tried), key=lambda each: (each.line or 0, each.column or 0)))
    return Report(file, _startable(checked), faults, checked.warnings)


def _plugin_faults(loaded: LoadedConfig) -> tuple[Fault, ...]:
    from cpex.framework.loader.plugin import PluginLoader
    from cpex.framework.loader.trial import find_plugin_faults

    loader = PluginLoader(trial=True)
    loader.append_to_search_path(loaded.config.plugin_dirs, base=loaded.file)
    return find_plugin_faults(loaded, loader)


def _may_follow_from(known: Iterable[Fault], fault: Fault) -> bool:
    """Whether a fault of a trial may be there because a faulty part of the same plugin was left out of it."""
    if fault.code in ("config-kind", "config-unknown-hook"):
        return False
    entry = fault.path.partition("]")[0] + "]"
    return any(each.path.startswith(entry) for each in known)


def _startable(checked: CheckedConfig) -> int:
    plugins = (checked.config.plugins if checked.config is not None else None) or ()
    return sum(plugin.mode != "disabled" for plugin in plugins)


def _usable_part(checked: CheckedConfig) -> LoadedConfig | None:
    """The plugins without their faulty parts, in their places; `None` when the fault is larger than a plugin.

    So a misspelt mode does not hide a misspelt kind, of another plugin or of the same.
    """
    from cpex.framework.loader.config import LoadedConfig
    from cpex.framework.models.config import Config

    if checked.config is not None:
        return checked.loaded()
    node = checked.source.node(())
    paths = [fault.path for fault in checked.faults]
    if node is None or not isinstance(node.value, dict) or not all(map(_is_local, paths)):
        return None
    plugins = node.value.get("plugins")
    entries = [
        _entry(plugin, [path.removeprefix(entry) for path in paths if path.startswith(entry)])
        for entry, plugin in (
            (f"plugins[{index}]", each) for index, each in enumerate(plugins if isinstance(plugins, list) else ())
        )
    ]
    rest = Config.model_validate({"plugin_dirs": node.value.get("plugin_dirs") or []})
    return LoadedConfig(rest.model_copy(update={"plugins": entries}), checked.source, file=checked.file)


def _is_local(path: str) -> bool:
    """Whether a fault leaves the rest of the document, and where plugins are searched, beyond doubt."""
    from cpex.framework.loader.suggest import closest
    from cpex.framework.models.config import Config

    if "." in path or "[" in path:
        return not path.startswith("plugin_dirs")
    return bool(path) and closest(path, Config.model_fields) != "plugin_dirs"


def _entry(plugin: Any, faulty: list[str]) -> PluginConfig:
    """One plugin without its faulty parts; one that is nothing without them keeps its place and is not tried.

    Args:
        faulty: Paths of them, from the plugin on: `.mode`, `.conditions[0].tool`.
    """
    from pydantic import ValidationError

    from cpex.framework.loader.suggest import closest
    from cpex.framework.models.config import PluginConfig
    from cpex.framework.models.mode import PluginMode

    keys = {path.lstrip(".").partition(".")[0].partition("[")[0] for path in faulty}
    try:
        if not keys:
            return PluginConfig.model_validate(plugin)
        # A plugin that was meant to be off is not looked at.
        if (
            isinstance(plugin, dict)
            and not keys & {"", "kind"}
            and closest(plugin.get("mode"), PluginMode) != "disabled"
        ):
            rest = {key: value for key, value in plugin.items() if key not in keys - {"name"}}
            return PluginConfig.model_validate({"name": "unnamed", **rest})
    # Its fault is listed under a larger part of the document.
    except ValidationError:
        pass
    return PluginConfig.model_construct(name="", kind="", mode=PluginMode.DISABLED)


def text(reports: Iterable[Report]) -> str:
    """The reports as they are printed."""
    lines: list[str] = []
    for report in reports:
        lines += [fault_text(fault) for fault in report.faults]
        lines += [fault_text(warning, "warning") for warning in report.warnings]
        lines.append(f"{report.file}: {_verdict(report)}")
    return "\n".join(lines) + "\n"


def _verdict(report: Report) -> str:
    warnings = f", {_number(len(report.warnings), 'warning')}" if report.warnings else ""
    if report.faults:
        return f"{_number(len(report.faults), 'fault')}{warnings}"
    return f"ok, {_number(report.plugins, 'plugin')}{warnings}"


def _number(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def document(reports: Iterable[Report]) -> dict[str, Any]:
    """The reports as JSON values."""
    files = [
        {
            "file": report.file,
            "ok": not report.faults,
            "plugins": report.plugins,
            "faults": [asdict(fault) for fault in report.faults],
            "warnings": [asdict(warning) for warning in report.warnings],
        }
        for report in reports
    ]
    return {"v": 1, "ok": all(file["ok"] for file in files), "files": files}
