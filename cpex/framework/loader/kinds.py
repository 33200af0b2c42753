"""Which class a plugin's kind means.

A kind is a dotted path to a class, a name that a package has registered under the entry-point group `cpex.plugins`, or
the name of a transport. What the operator put beside the configuration wins over what is installed: a module of the
configuration's own `plugin_dirs` is taken first, even when another module of that name is already loaded. A registered
name that is also an importable path is refused, because either could be meant.

This module finds and imports classes. It makes no plugin.

Source: docs/reference/config-errors.md, "Kinds".
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.machinery
import importlib.util
import logging
import os
import stat
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

from cpex.framework.base import Plugin
from cpex.framework.errors import PluginError
from cpex.framework.loader.suggest import closest, join_names, shown
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.result import PluginErrorModel
from cpex.framework.utils import import_module, parse_class_name

__all__ = ["TRANSPORTS", "PluginKindError", "find_class", "registered_class", "registered_kinds", "transport_of"]

logger = logging.getLogger(__name__)

GROUP = "cpex.plugins"
"""Entry-point group under which packages register kinds."""

TRANSPORTS = {
    "external over grpc": "cpex.framework.external.grpc.client:GrpcExternalPlugin",
    "external over unix_socket": "cpex.framework.external.unix.client:UnixSocketExternalPlugin",
    "external over mcp": "cpex.framework.external.mcp.client:ExternalPlugin",
    "isolated_venv": "cpex.framework.isolated.client:IsolatedVenvPlugin",
}
"""Transport -> the class that speaks it, as `module:Class`; imported on first use."""

_UNLOADABLE = frozenset({"native", "builtin", "wasm", "PDP"})
"""Kinds of manifests that name no class."""


class PluginKindError(PluginError, ImportError):
    """A kind does not lead to a plugin class. `__cause__` holds what the import raised, if that was it."""


def _refusal(message: str) -> PluginKindError:
    return PluginKindError(PluginErrorModel(message=message, plugin_name="", code="plugin_kind"))


def transport_of(config: PluginConfig) -> str | None:
    """The key of `TRANSPORTS` for a plugin that runs elsewhere; `None` for one that runs in this process."""
    if config.kind == "external":
        # In this order, should a configuration that was not validated have more than one.
        chosen = next((name for name in ("grpc", "unix_socket") if getattr(config, name) is not None), "mcp")
        return f"external over {chosen}"
    return config.kind if config.kind in TRANSPORTS else None


def transport_class(transport: str) -> type[Plugin]:
    """The class behind a key of `TRANSPORTS`.

    Raises:
        PluginKindError: This installation lacks the transport, or something that the transport needs.
    """
    module, _, name = TRANSPORTS[transport].partition(":")
    try:
        return _checked(getattr(importlib.import_module(module), name), transport)
    except ModuleNotFoundError as error:
        missing = error.name or module
        own = module == missing or module.startswith(missing + ".")
        mend = "install a release of cpex that has it" if own else f"install the package that provides `{missing}`"
        raise _refusal(f"plugins of kind `{transport}` need module `{missing}`, which is missing; {mend}") from error
    except (ImportError, AttributeError) as error:
        raise _refusal(f"plugins of kind `{transport}` cannot be used: `{module}`: {error}") from error


def find_class(kind: str, plugin_dirs: Sequence[str], beside: str | None = None) -> type[Plugin]:
    """The class that a kind names, imported.

    Args:
        kind: A dotted path or a registered name; no transport.
        plugin_dirs: Folders of the configuration, searched first.
        beside: The configuration's own folder, searched last: only for a module that there is nowhere else.

    Raises:
        PluginKindError: Nothing has that name, more than one thing has, it is no plugin class, or importing it failed.
    """
    module, name = parse_class_name(kind)
    place = _find_in(plugin_dirs, module)
    own = None if place is None else _guarded(kind, module, lambda: _import_from(module, *place))
    if own is not None and hasattr(own, name):
        return _checked(getattr(own, name), kind)
    entry = _registration(kind)
    if entry is not None:
        return _registered_class(kind, entry)
    if not module:
        raise _refusal(_unknown_kind(kind))
    imported = own if own is not None else _guarded(kind, module, lambda: _import_anywhere(module, beside))
    if not hasattr(imported, name):
        raise _refusal(_no_class(kind, imported, name))
    return _checked(getattr(imported, name), kind)


def _import_anywhere(module: str, beside: str | None) -> ModuleType:
    """Import a module from the search path; one that is not there, from the folder beside the configuration."""
    try:
        imported: ModuleType = import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or module
        if beside is None or not (module == missing or module.startswith(missing + ".")):
            raise
        place = _find_in([beside], module)
        if place is None:
            raise
        if place[0].stat().st_mode & stat.S_IWOTH:
            logger.warning("Plugin folder %s is world-writable: anyone on this machine can change plugins", place[0])
        # SECURITY: under a name of its own, or the module of one tenant would guard another one that has its own.
        imported = _import_as(_alias(module.partition(".")[0], place[0]), module, place[0])
    return imported


@cache
def registered_kinds() -> dict[str, tuple[EntryPoint, ...]]:
    """Registered name -> what registers it; more than one when packages disagree. Read once per process."""
    from importlib.metadata import entry_points

    kinds: dict[str, dict[str, EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        # An editable install may be listed twice; only different targets are different registrations.
        kinds.setdefault(entry.name, {}).setdefault(entry.value, entry)
    return {name: tuple(entries.values()) for name, entries in kinds.items()}


def _registration(kind: str) -> EntryPoint | None:
    entries = registered_kinds().get(kind, ())
    if len(entries) > 1:
        targets = " and ".join(f"`{entry.value}` ({_distribution(entry)})" for entry in entries)
        raise _refusal(f"kind `{kind}` is registered more than once, by {targets}; write the dotted path of one")
    return entries[0] if entries else None


def registered_class(kind: str) -> type[Plugin]:
    """The class that a name is registered for, imported, whatever else the name may lead to.

    Raises:
        PluginKindError: Nothing is registered under it, more than one thing is, it is no plugin class, or importing
            it failed.
    """
    entry = _registration(kind)
    if entry is None:
        raise _refusal(_unknown_kind(kind))
    return _checked(_guarded(kind, entry.module, entry.load), kind)


def _registered_class(kind: str, entry: EntryPoint) -> type[Plugin]:
    target = _guarded(kind, entry.module, entry.load)
    module, name = parse_class_name(kind)
    other = _importable(kind, module, name) if module else None
    if other is not None and other is not target:
        file = getattr(sys.modules.get(module), "__file__", None) or module
        path = entry.value.replace(":", ".")
        raise _refusal(
            f"kind `{kind}` is ambiguous: registered for `{entry.value}` ({_distribution(entry)}), and importable from "
            f"{file}; for the first write `{path}`, for the other name its folder in `plugin_dirs`"
        )
    return _checked(target, kind)


def _importable(kind: str, module: str, name: str) -> Any:
    """What a dotted path leads to outside of `plugin_dirs`; `None` when it leads nowhere."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError):
        return None
    if spec is None:
        return None
    return getattr(_guarded(kind, module, lambda: import_module(module)), name, None)


def _guarded(kind: str, module: str, load: Any) -> Any:
    """Import something; what goes wrong gets the kind's name and a way to mend it, and keeps its cause."""
    try:
        return load()
    except PluginKindError:
        raise
    except ModuleNotFoundError as error:
        missing = error.name or module
        if module == missing or module.startswith(missing + "."):
            text = f"kind `{kind}`: there is no module `{missing}`; {_where_to_put(kind)}"
        else:
            text = f"kind `{kind}`: module `{module}` needs `{missing}`, which is missing; install what provides it"
        raise _refusal(text) from error
    # SECURITY: a script without a guard around its main part would end the process, and with 0 look like a success.
    except SystemExit as error:
        raise _refusal(
            f"kind `{kind}`: importing `{module}` called sys.exit(); put what is run as a program under "
            '`if __name__ == "__main__":`'
        ) from error
    # Plugin boundary: importing runs the plugin author's code, which may raise anything.
    except Exception as error:
        raise _refusal(f"kind `{kind}`: importing `{module}` failed: {type(error).__name__}: {error}") from error


def _checked(found: Any, kind: str) -> type[Plugin]:
    if isinstance(found, type) and issubclass(found, Plugin):
        return found
    what = f"class {found.__name__}" if isinstance(found, type) else f"a {type(found).__name__}"
    raise _refusal(
        f"kind `{kind}` names {what}, which is not derived from `cpex.framework.Plugin`; derive it from that"
    )


def _unknown_kind(kind: str) -> str:
    if kind in _UNLOADABLE:
        return f"plugins of kind `{kind}` have no loader; write the dotted path of the plugin's class as its kind"
    return f"unknown kind {shown(kind)}: it is neither a dotted path nor a registered name; {_where_to_put(kind)}"


def _no_class(kind: str, module: ModuleType, name: str) -> str:
    near = closest(name, [each for each in vars(module) if not each.startswith("_")])
    hint = f"; did you mean `{near}`?" if near else ""
    return f"kind `{kind}`: module `{module.__name__}` has no class `{name}`{hint}"


def _where_to_put(kind: str) -> str:
    known = sorted({*registered_kinds(), "external", "isolated_venv"})
    near = closest(kind, known)
    hint = f"did you mean `{near}`? if not, " if near else ""
    listed = "" if near else f"; registered kinds: {join_names(known)}"
    return f"{hint}add the folder of the module to `plugin_dirs`, or install its package{listed}"


def _distribution(entry: EntryPoint) -> str:
    return f"package {entry.dist.name}" if entry.dist is not None else "an unnamed package"


def _find_in(plugin_dirs: Sequence[str], module: str) -> tuple[Path, Path] | None:
    """The first folder that holds a module, and the module's file."""
    parts = module.split(".")
    if not all(part.isidentifier() for part in parts) or parts[0] in sys.stdlib_module_names:
        return None
    for folder in plugin_dirs:
        file = _module_file(Path(folder, *parts))
        if file is not None:
            return Path(folder).resolve(), file
    return None


def _module_file(base: Path) -> Path | None:
    candidates = [
        base / "__init__.py",
        *(base.with_name(base.name + each) for each in importlib.machinery.all_suffixes()),
    ]
    return next((each.resolve() for each in candidates if each.is_file()), None)


def _import_from(module: str, folder: Path, file: Path) -> ModuleType:
    """Import a module from a folder, whatever else has its name."""
    top = module.partition(".")[0]
    if _comes_from(top, folder):
        imported: ModuleType = import_module(module)
        if _is_file(imported, file):
            return imported
    taken = getattr(sys.modules.get(top), "__file__", None) or "another folder of the search path"
    alias = _alias(top, folder)
    logger.warning("Module name %s is taken by %s; %s is loaded as %s", top, taken, file, alias)
    return _import_as(alias, module, folder)


def _alias(top: str, folder: Path) -> str:
    """The private name of what a folder calls `top`."""
    return f"_cpex_{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}_{top}"


def _import_as(alias: str, module: str, folder: Path) -> ModuleType:
    """Import a module of a folder with a private name in place of its topmost one."""
    top = module.partition(".")[0]
    if alias not in sys.modules:
        _load_as(alias, folder / top)
    return importlib.import_module(alias + module[len(top) :])


def _comes_from(top: str, folder: Path) -> bool:
    """Whether importing that name takes it from the folder."""
    loaded = sys.modules.get(top)
    spec = loaded.__spec__ if loaded is not None else importlib.machinery.PathFinder.find_spec(top)
    if spec is None:
        return False
    places = [spec.origin] if spec.has_location else list(spec.submodule_search_locations or ())
    expected = {_module_file(folder / top), (folder / top).resolve()}
    return any(place is not None and Path(place).resolve() in expected for place in places)


def _is_file(module: ModuleType, file: Path) -> bool:
    return module.__file__ is not None and Path(module.__file__).resolve() == file


def _load_as(alias: str, base: Path) -> None:
    """Load a module or package under another name. Its relative imports stay inside of it."""
    file = _module_file(base)
    if file is None:
        spec = importlib.machinery.ModuleSpec(alias, None, is_package=True)
        spec.submodule_search_locations = [str(base)]
    else:
        inner = [str(base)] if file.parent == base.resolve() else None
        found = importlib.util.spec_from_file_location(alias, file, submodule_search_locations=inner)
        if found is None:
            raise ImportError(f"{file} is no Python module", name=alias)
        spec = found
    module = importlib.util.module_from_spec(spec)
    sys.modules[alias] = module
    try:
        if spec.loader is not None:
            spec.loader.exec_module(module)
    except BaseException:
        sys.modules.pop(alias, None)
        raise
