"""Where things of an isolated plugin lie: its folder, its requirements file, the worker in its environment.

Source: docs/isolated.md, "Where everything lies".
"""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any

from pydantic import BaseModel

from cpex.framework.errors import PluginError
from cpex.framework.isolated.environment import INSTALL_TIMEOUT_S, python_of, site_packages_of
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.result import PluginErrorModel
from cpex.framework.utils import find_package_path

__all__ = ["IsolatedSettings", "plugin_class_name", "plugin_folder", "requirements_of", "worker_script"]

_WORKER = PurePath("cpex", "framework", "isolated", "worker.py")
_FIND = (
    "import importlib.util as u; s = u.find_spec('cpex.framework'); "
    "print(next(iter(s.submodule_search_locations)) if s else '')"
)
_FIND_TIMEOUT_S = 20.0


class IsolatedSettings(BaseModel, extra="allow", frozen=True):
    """What the host reads below `config`, beside the plugin's own settings."""

    class_name: str
    """The dotted path of the plugin's class; its first part names the plugin's folder."""
    requirements_file: str | None = None
    """What the environment is filled from: a file in the installed package of the plugin's name, else in its folder."""
    timeout_secs: float | None = None
    """Seconds for one call, where the plugin has no `timeout_s`; 30 without it."""
    install_timeout_s: float = INSTALL_TIMEOUT_S
    """Seconds for one run of pip."""
    worker_env: list[str] | None = None
    """Names of variables of the host that the worker gets as well."""
    script_path: str | None = None
    """Without effect; tools of other hosts write it."""


def refusal(plugin: str, message: str) -> PluginError:
    """A configuration of an isolated plugin cannot be used."""
    text = f"plugin `{plugin}` of kind `isolated_venv`: {message}"
    return PluginError(PluginErrorModel(message=text, plugin_name=plugin, code="isolated_config"))


def plugin_class_name(config: PluginConfig) -> str:
    """The class that the worker loads.

    Raises:
        PluginError: The configuration names none, or one that cannot be a class.
    """
    name: Any = (config.config or {}).get("class_name")
    if not isinstance(name, str) or not name:
        raise refusal(config.name, "`config` needs `class_name`, the dotted path of the plugin's class")
    parts = name.split(".")
    # SECURITY: the first part becomes a folder, so a name that is a path would lead out of `plugin_dirs`.
    if len(parts) < 2 or not all(part.isidentifier() for part in parts):
        raise refusal(config.name, f"`class_name: {name}` is no dotted path of a class; write `package.module.Class`")
    return name


def plugin_folder(config: PluginConfig, class_name: str, plugin_dirs: Sequence[str]) -> Path:
    """`<folder of plugin_dirs>/<first part of the class name>`: where it exists, else in the first folder. Absolute.

    Raises:
        PluginError: There is no folder.
    """
    if not plugin_dirs:
        raise refusal(config.name, "`plugin_dirs` of the configuration names no folder that exists; add one")
    package = class_name.partition(".")[0]
    # pip and the worker run in other working directories.
    folders = [Path(entry).expanduser().absolute() / package for entry in plugin_dirs]
    return next((folder for folder in folders if folder.is_dir()), folders[0])


def requirements_of(config: PluginConfig, folder: Path) -> Path | None:
    """The requirements file: of the installed package of the plugin's name, else of its folder; may not exist.

    Raises:
        PluginError: The path leads out of the folder.
    """
    name: Any = (config.config or {}).get("requirements_file")
    if name is None or name == "":
        return None
    path = PurePath(str(name))
    if path.is_absolute() or ".." in path.parts:
        raise refusal(
            config.name, f"`requirements_file: {name}` leads out of the plugin's folder; write a path below it"
        )
    try:
        packaged = find_package_path(config.name) / path
    except RuntimeError:
        return folder / path
    return packaged if packaged.is_file() else folder / path


def worker_script(venv: Path, plugin: str) -> Path:
    """The worker of the release that is installed in an environment.

    Raises:
        PluginError: There is none.
    """
    for folder in site_packages_of(venv):
        if (folder / _WORKER).is_file():
            return folder / _WORKER
    # Installed so that its files lie elsewhere, as an editable install does: the interpreter knows.
    found = _package_in(venv)
    if found is not None and (found / "isolated" / "worker.py").is_file():
        return found / "isolated" / "worker.py"
    if found is not None:
        lack = f"the `cpex` in the environment {venv} is too old for isolated plugins; add `cpex>=0.1.3`"
    else:
        lack = f"the environment {venv} holds no `cpex`, which the worker is part of; add `cpex`"
    raise refusal(plugin, f"{lack} to the plugin's requirements file; remove the folder {venv} if it was made by hand")


def _package_in(venv: Path) -> Path | None:
    try:
        done = subprocess.run(
            [str(python_of(venv)), "-I", "-c", _FIND],
            capture_output=True,
            text=True,
            timeout=_FIND_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return Path(done.stdout.strip()) if done.returncode == 0 and done.stdout.strip() else None
