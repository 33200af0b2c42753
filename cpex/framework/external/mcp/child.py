"""How the child process of a stdio plugin is started: which command, with which environment.

Source: docs/reference/external.md, "Standard input and output".
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cpex.framework.constants import PYTHON_SUFFIX
from cpex.framework.errors import PluginError
from cpex.framework.models.result import PluginErrorModel
from cpex.framework.models.transport import MCPClientConfig

__all__ = ["ChildCommand", "child_environment"]

_NAMES = frozenset(
    {
        # To find programs, libraries and the user's files.
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "TERM", "TMPDIR", "TEMP", "TMP", "VIRTUAL_ENV"),
        *("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
        # To speak its language and know its time.
        *("LANG", "LANGUAGE", "TZ"),
        # To trust the same authorities.
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE"),
        # To run at all on Windows.
        *("APPDATA", "COMSPEC", "HOMEDRIVE", "HOMEPATH", "LOCALAPPDATA", "PATHEXT", "PROCESSOR_ARCHITECTURE"),
        *("SYSTEMDRIVE", "SYSTEMROOT", "USERNAME", "USERPROFILE", "WINDIR"),
    }
)
_PREFIXES = ("LC_", "PYTHON", "PLUGINS_")
_TRANSPORT = "PLUGINS_TRANSPORT"


@dataclass(frozen=True, slots=True)
class ChildCommand:
    """What is run, where, and with which variables."""

    words: tuple[str, ...]
    cwd: str | None
    env: Mapping[str, str]

    @classmethod
    def of(cls, config: MCPClientConfig, plugin: str) -> ChildCommand:
        """The command of a plugin.

        Raises:
            PluginError: There is none, or its script is not there or cannot be run.
        """
        if config.cmd:
            words = list(config.cmd)
        elif config.script:
            words = _words_for(config.script, config.cwd, plugin)
        else:
            raise _refused("STDIO transport requires script or cmd", plugin)
        env = child_environment(os.environ, config.env or {}, everything=config.inherit_env)
        return cls(tuple(words), config.cwd, env)


def _words_for(script: str, cwd: str | None, plugin: str) -> list[str]:
    path = Path(script).expanduser()
    if not path.is_absolute() and cwd:
        path = Path(cwd, path)
    if not path.is_file():
        raise _refused(f"Server script {path} does not exist", plugin)
    if path.suffix == PYTHON_SUFFIX:
        return [sys.executable, str(path)]
    if path.suffix == ".sh":
        return ["sh", str(path)]
    if not os.access(path, os.X_OK):
        raise _refused(f"Server script {path} must be executable, or end in .py or .sh", plugin)
    return [str(path.resolve())]


def _refused(message: str, plugin: str) -> PluginError:
    return PluginError(PluginErrorModel(message=message, plugin_name=plugin, code="external_config"))


def child_environment(parent: Mapping[str, str], extra: Mapping[str, str], *, everything: bool) -> dict[str, str]:
    """The variables of a child.

    Args:
        extra: What the operator wrote for it; wins over everything else.
        everything: Whether it inherits all of the parent's, keys and passwords included.
    """
    # SECURITY: a plugin's process is given what programs need to run, not what the host knows.
    kept = {name: value for name, value in parent.items() if everything or _is_harmless(name)}
    # The pipes are the transport, whatever a server that listens elsewhere is told by the same variable.
    return kept | {_TRANSPORT: "stdio"} | dict(extra)


def _is_harmless(name: str) -> bool:
    upper = name.upper()
    return (upper in _NAMES or upper.startswith(_PREFIXES)) and not upper.endswith("PASSWORD")
