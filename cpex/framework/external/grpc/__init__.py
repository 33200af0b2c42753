"""Plugins behind gRPC. Needs the extra `grpc`; everything here is loaded on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpex.framework.external.grpc.client import GrpcExternalPlugin
    from cpex.framework.external.grpc.server.server import GrpcHealthServicer, GrpcPluginServicer
    from cpex.framework.external.grpc.tls_utils import create_client_credentials, create_server_credentials

__all__ = [
    "GrpcExternalPlugin",
    "GrpcHealthServicer",
    "GrpcPluginServicer",
    "create_client_credentials",
    "create_server_credentials",
]

_HOMES = {
    "GrpcExternalPlugin": "client",
    "GrpcHealthServicer": "server.server",
    "GrpcPluginServicer": "server.server",
    "create_client_credentials": "tls_utils",
    "create_server_credentials": "tls_utils",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
