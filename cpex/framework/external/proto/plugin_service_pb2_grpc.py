"""Made from `plugin_service.proto`; run `python tests/proto_stubs.py` instead of editing it."""

from __future__ import annotations

from typing import Any

import grpc

from cpex.framework.external.proto import plugin_service_pb2 as messages


class PluginServiceStub:
    """Asks `cpex.PluginService` over a channel."""

    def __init__(self, channel: Any) -> None:
        self.GetPluginConfig = channel.unary_unary(
            "/cpex.PluginService/GetPluginConfig",
            request_serializer=messages.GetPluginConfigRequest.SerializeToString,
            response_deserializer=messages.GetPluginConfigResponse.FromString,
        )
        self.GetPluginConfigs = channel.unary_unary(
            "/cpex.PluginService/GetPluginConfigs",
            request_serializer=messages.GetPluginConfigsRequest.SerializeToString,
            response_deserializer=messages.GetPluginConfigsResponse.FromString,
        )
        self.InvokeHook = channel.unary_unary(
            "/cpex.PluginService/InvokeHook",
            request_serializer=messages.InvokeHookRequest.SerializeToString,
            response_deserializer=messages.InvokeHookResponse.FromString,
        )


class PluginServiceServicer:
    """Answers `cpex.PluginService`; to be derived from."""

    async def GetPluginConfig(self, request: messages.GetPluginConfigRequest, context: Any) -> messages.GetPluginConfigResponse:
        """Answer one question."""
        raise NotImplementedError

    async def GetPluginConfigs(self, request: messages.GetPluginConfigsRequest, context: Any) -> messages.GetPluginConfigsResponse:
        """Answer one question."""
        raise NotImplementedError

    async def InvokeHook(self, request: messages.InvokeHookRequest, context: Any) -> messages.InvokeHookResponse:
        """Answer one question."""
        raise NotImplementedError


def add_PluginServiceServicer_to_server(servicer: PluginServiceServicer, server: Any) -> None:
    """Let a server answer `cpex.PluginService`."""
    handlers: dict[str, Any] = {
        "GetPluginConfig": grpc.unary_unary_rpc_method_handler(
            servicer.GetPluginConfig,
            request_deserializer=messages.GetPluginConfigRequest.FromString,
            response_serializer=messages.GetPluginConfigResponse.SerializeToString,
        ),
        "GetPluginConfigs": grpc.unary_unary_rpc_method_handler(
            servicer.GetPluginConfigs,
            request_deserializer=messages.GetPluginConfigsRequest.FromString,
            response_serializer=messages.GetPluginConfigsResponse.SerializeToString,
        ),
        "InvokeHook": grpc.unary_unary_rpc_method_handler(
            servicer.InvokeHook,
            request_deserializer=messages.InvokeHookRequest.FromString,
            response_serializer=messages.InvokeHookResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("cpex.PluginService", handlers),))


class HealthStub:
    """Asks `cpex.Health` over a channel."""

    def __init__(self, channel: Any) -> None:
        self.Check = channel.unary_unary(
            "/cpex.Health/Check",
            request_serializer=messages.HealthCheckRequest.SerializeToString,
            response_deserializer=messages.HealthCheckResponse.FromString,
        )


class HealthServicer:
    """Answers `cpex.Health`; to be derived from."""

    async def Check(self, request: messages.HealthCheckRequest, context: Any) -> messages.HealthCheckResponse:
        """Answer one question."""
        raise NotImplementedError


def add_HealthServicer_to_server(servicer: HealthServicer, server: Any) -> None:
    """Let a server answer `cpex.Health`."""
    handlers: dict[str, Any] = {
        "Check": grpc.unary_unary_rpc_method_handler(
            servicer.Check,
            request_deserializer=messages.HealthCheckRequest.FromString,
            response_serializer=messages.HealthCheckResponse.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("cpex.Health", handlers),))
