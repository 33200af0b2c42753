"""The asking end of gRPC. Its channel carries any number of questions side by side, and tells of cancellation."""

from __future__ import annotations

import logging
from typing import Any, ClassVar

import grpc
import grpc.aio

from cpex.framework.errors import PluginError
from cpex.framework.external.answering import answer_of, frame_of, plain_question
from cpex.framework.external.grpc.targets import judged
from cpex.framework.external.grpc.tls_utils import create_insecure_channel, create_secure_channel
from cpex.framework.external.plugin import RemotePlugin
from cpex.framework.external.port import Link, LinkError
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.proto.plugin_service_pb2_grpc import PluginServiceStub
from cpex.framework.external.proto_convert import struct_to_settings
from cpex.framework.external.running import LOOPBACK
from cpex.framework.external.session import Attempts
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.result import PluginErrorModel
from cpex.framework.models.tls import GRPCClientTLSConfig
from cpex.framework.models.transport import GRPCClientConfig
from cpex.framework.settings import get_ssrf_settings

__all__ = ["GrpcExternalPlugin", "GrpcLink"]

logger = logging.getLogger(__name__)

CONFIG_TIMEOUT_S = 10.0
"""Seconds for the question about a plugin's configuration, which needs no plugin."""
MESSAGE_BYTES = 16 * 1024 * 1024
"""The least size of message that both ends of ours take; a plugin's `max_content_size` may raise it."""


def channel_options(max_content_size: int) -> list[tuple[str, Any]]:
    """Options of a channel or server for payloads of that many bytes, encoded."""
    limit = max(MESSAGE_BYTES, 2 * max_content_size)
    return [
        ("grpc.max_receive_message_length", limit),
        ("grpc.max_send_message_length", limit),
        # Pauses are the session's business, which knows the operator's settings; the channel's own would come on top.
        ("grpc.initial_reconnect_backoff_ms", 50),
        # In spite of its name, how long one connection may take to stand: distance and TLS included. A socket that is
        # still connecting when its channel is closed is kept by gRPC until then.
        ("grpc.min_reconnect_backoff_ms", int(CONFIG_TIMEOUT_S * 1000)),
        ("grpc.max_reconnect_backoff_ms", 1000),
        # Proxies of the environment are for the outside, not for plugin servers.
        ("grpc.enable_http_proxy", 0),
    ]


class GrpcExternalPlugin(RemotePlugin):
    """A plugin behind gRPC."""

    _NEVER_OPENED: ClassVar[str | None] = "gRPC stub not initialized"

    def __init__(self, config: PluginConfig) -> None:
        """Keep the configuration; nothing is opened.

        Raises:
            PluginError: It has no `grpc` section.
        """
        super().__init__(config)
        if config.grpc is None:
            text = f"The grpc section must be defined for external plugin {config.name}"
            raise PluginError(PluginErrorModel(message=text, plugin_name=config.name))
        self._settings: GRPCClientConfig = config.grpc

    def _make_link(self) -> Link:
        tls = None if self._settings.uds else self._settings.tls or GRPCClientTLSConfig.from_env()
        options = channel_options(self._local.max_content_size)
        public_only = get_ssrf_settings().ssrf_protection_enabled
        return GrpcLink(self._settings.get_target(), tls, self.name, options, public_only=public_only)

    def _address(self) -> str:
        return self._settings.get_target()

    def _first_attempts(self) -> Attempts:
        return Attempts(3, float)

    def _later_attempts(self) -> Attempts:
        return Attempts(1, lambda failures: 0.1 * failures)


class GrpcLink:
    """One channel to a plugin server."""

    def __init__(
        self,
        target: str,
        tls: GRPCClientTLSConfig | None,
        plugin_name: str,
        options: list[tuple[str, Any]],
        *,
        public_only: bool = True,
    ) -> None:
        self._target = target
        self._public_only = public_only
        self._tls = tls
        self._plugin_name = plugin_name
        self._options = options
        self._channel: grpc.aio.Channel | None = None
        self._stub: Any = None
        self._opened_before = 0

    @property
    def connected(self) -> bool:
        """Whether the channel's connection stands, as far as the channel knows."""
        return self._channel is not None and self._channel.get_state() in (
            grpc.ChannelConnectivity.READY,
            # Between two uses; the next one connects by itself.
            grpc.ChannelConnectivity.IDLE,
        )

    async def open(self) -> None:
        """Judge the address and make the channel; the first question connects it."""
        if self._channel is None:
            target, pinned = await judged(self._target, self._opened_before, public_only=self._public_only)
            self._opened_before += 1
            options = [*self._options, *pinned]
            if self._tls is None:
                if not self._target.startswith(("unix:", *LOOPBACK)):
                    logger.warning("Plugin %s is reached at %s in the clear", self._plugin_name, self._target)
                self._channel = create_insecure_channel(target, options)
            else:
                self._channel = create_secure_channel(target, self._tls, self._plugin_name, options)
            self._stub = PluginServiceStub(self._channel)

    async def close(self) -> None:
        """Close the channel; questions under way end as lost."""
        channel, self._channel, self._stub = self._channel, None, None
        if channel is not None:
            await channel.close()

    async def get_plugin_config(self, name: str) -> dict[str, Any]:
        """Ask about a plugin."""
        request = messages.GetPluginConfigRequest(name=name)
        try:
            response = await self._opened().GetPluginConfig(request, timeout=CONFIG_TIMEOUT_S)
        except grpc.RpcError as error:
            # Asking about a configuration has no effects: it may always be asked again.
            raise self._failure(error, "connect", sent=False) from error
        return struct_to_settings(response.config) if response.found else {}

    async def invoke_hook(
        self, hook_type: str, plugin_name: str, payload: dict[str, Any], context: dict[str, Any]
    ) -> dict[str, Any]:
        """Ask in the plain form."""
        return answer_of(await self._invoke(plain_question(hook_type, plugin_name, payload, context)))

    async def exchange(self, frame: bytes) -> bytes:
        """Ask with a frame."""
        return frame_of(await self._invoke(messages.InvokeHookRequest(hook_type="-", plugin_name="-", frame=frame)))

    async def _invoke(self, request: messages.InvokeHookRequest) -> messages.InvokeHookResponse:
        try:
            response: messages.InvokeHookResponse = await self._opened().InvokeHook(request)
        except grpc.RpcError as error:
            raise self._failure(error, _code_of(error), sent=True) from error
        return response

    def _opened(self) -> Any:
        if self._stub is None:
            raise LinkError(f"the channel to {self._target} is closed", code="lost", sent=False)
        return self._stub

    def _failure(self, error: grpc.RpcError, code: str, *, sent: bool) -> LinkError:
        # Its frames hold the call, and a call its channel, which connects on while anybody keeps the error.
        error.with_traceback(None)
        # An asynchronous call raises one that has these; the base class does not declare them.
        status, details = error.code(), error.details()
        help = "; is the plugin server running there, and is TLS set alike on both ends?" if code == "connect" else ""
        return LinkError(f"gRPC {status.name} from {self._target}: {details}{help}", code=code, sent=sent)


def _code_of(error: grpc.RpcError) -> str:
    status = error.code()
    if status is grpc.StatusCode.UNAVAILABLE:
        return "lost"
    if status is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return "too_large"
    return "timeout" if status is grpc.StatusCode.DEADLINE_EXCEEDED else "remote"
