"""Plugins in other processes: one contract, three transports.

`port.py` says what a transport is; `mcp`, `grpc` and `unix` are three, `memory.py` is one without a network. `wire.py`,
`frames.py` and `restoring.py` know what crosses, `session.py` keeps a connection, `plugin.py` is the plugin as the host
sees it, and `server.py` is the other end. Nothing here is imported before a configuration asks for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpex.framework.external.mcp.client import ExternalPlugin
    from cpex.framework.registry import ExternalHookRef

__all__ = ["ExternalHookRef", "ExternalPlugin"]

_HOMES = {
    "ExternalHookRef": "cpex.framework.registry",
    "ExternalPlugin": "cpex.framework.external.mcp.client",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
