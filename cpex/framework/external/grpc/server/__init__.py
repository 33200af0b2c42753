"""The serving end of gRPC."""

from __future__ import annotations

from cpex.framework.external.grpc.server.server import GrpcHealthServicer, GrpcPluginServicer

__all__ = ["GrpcHealthServicer", "GrpcPluginServicer"]
