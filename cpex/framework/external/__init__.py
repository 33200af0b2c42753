"""Plugins in other processes: one contract, three transports.

`port.py` says what a transport is; `mcp`, `grpc` and `unix` are three, `memory.py` is one without a network. `wire.py`,
`frames.py` and `restoring.py` know what crosses, `session.py` keeps a connection, `plugin.py` is the plugin as the host
sees it, and `server.py` is the other end. Nothing here is imported before a configuration asks for it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpex.framework.external.grpc.client import GrpcExternalPlugin as GrpcExternalPlugin
    from cpex.framework.external.mcp.client import ExternalPlugin
    from cpex.framework.registry import ExternalHookRef

__all__ = ["ExternalHookRef", "ExternalPlugin"]
# Beside these, `GrpcExternalPlugin` where the extra `grpc` is installed; a star import must work without it.

_HOMES = {
    "ExternalHookRef": "cpex.framework.registry",
    "ExternalPlugin": "cpex.framework.external.mcp.client",
    "GrpcExternalPlugin": "cpex.framework.external.grpc.client",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        try:
            return getattr(importlib.import_module(_HOMES[name]), name)
        except ModuleNotFoundError as error:
            raise AttributeError(f"{__name__}.{name} needs `{error.name}`, which is not installed") from error
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
