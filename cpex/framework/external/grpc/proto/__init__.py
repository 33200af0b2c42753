"""The messages and services under the address that hosts of release 0.1 know; they live in `external/proto/`."""

from __future__ import annotations

from cpex.framework.external.proto import plugin_service_pb2, plugin_service_pb2_grpc

__all__ = ["plugin_service_pb2", "plugin_service_pb2_grpc"]
