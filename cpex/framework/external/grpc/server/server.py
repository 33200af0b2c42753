"""What a plugin server answers over gRPC: questions about plugins, and about its health.

Failures of plugins are answers. A status that is not OK says that the question could not be answered at all.
"""

from __future__ import annotations

import logging
from typing import Any

import grpc

from cpex.framework.external.answering import configuration, configurations, hook_answer
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.proto.plugin_service_pb2_grpc import HealthServicer, PluginServiceServicer
from cpex.framework.external.server import ExternalPluginServer

__all__ = ["GrpcHealthServicer", "GrpcPluginServicer", "add_standard_health"]

logger = logging.getLogger(__name__)


class GrpcPluginServicer(PluginServiceServicer):
    """Answers about and for the plugins of one server."""

    def __init__(self, plugin_server: ExternalPluginServer) -> None:
        self._service = plugin_server

    async def GetPluginConfig(
        self, request: messages.GetPluginConfigRequest, context: Any
    ) -> messages.GetPluginConfigResponse:
        """What the server says about one plugin."""
        try:
            return await configuration(self._service, request)
        # The boundary to whoever asks; a configuration may hold what no message can.
        except Exception as error:
            _refuse(context, error)
            return messages.GetPluginConfigResponse(found=False)

    async def GetPluginConfigs(
        self, request: messages.GetPluginConfigsRequest, context: Any
    ) -> messages.GetPluginConfigsResponse:
        """What it says about all of them."""
        try:
            return await configurations(self._service)
        # As above.
        except Exception as error:
            _refuse(context, error)
            return messages.GetPluginConfigsResponse()

    async def InvokeHook(self, request: messages.InvokeHookRequest, context: Any) -> messages.InvokeHookResponse:
        """Run a hook. When the host cancels, so is the handler."""
        return await hook_answer(self._service, request)


def _refuse(context: Any, error: Exception) -> None:
    logger.error("A question about plugins could not be answered: %s", error)
    context.set_code(grpc.StatusCode.INTERNAL)
    context.set_details(str(error))


class GrpcHealthServicer(HealthServicer):
    """Tells whether the server's plugins are running, whatever service is asked about."""

    def __init__(self, plugin_server: ExternalPluginServer | None = None) -> None:
        self._service = plugin_server

    async def Check(self, request: messages.HealthCheckRequest, context: Any) -> messages.HealthCheckResponse:
        """`SERVING` while the plugins are running."""
        running = self._service is None or self._service.running
        status = messages.HealthCheckResponse.SERVING if running else messages.HealthCheckResponse.NOT_SERVING
        return messages.HealthCheckResponse(status=status)


def add_standard_health(servicer: GrpcHealthServicer, server: Any) -> None:
    """Let the server answer `grpc.health.v1.Health` too, whose messages have the same bytes: probes know that name."""
    check = grpc.unary_unary_rpc_method_handler(
        servicer.Check,
        request_deserializer=messages.HealthCheckRequest.FromString,
        response_serializer=messages.HealthCheckResponse.SerializeToString,
    )
    handlers = grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": check})
    server.add_generic_rpc_handlers((handlers,))
