"""The asking end of a Unix socket: the plugin, and its link. `answers.py` brings questions and answers together."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

from cpex.framework.errors import PluginError
from cpex.framework.external.answering import answer_of, frame_of, plain_question
from cpex.framework.external.plugin import RemotePlugin
from cpex.framework.external.port import Link, LinkError
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.proto_convert import struct_to_settings
from cpex.framework.external.session import Attempts
from cpex.framework.external.unix.answers import Answers, parsed
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.result import PluginErrorModel
from cpex.framework.models.sockets import check_socket
from cpex.framework.models.transport import UnixSocketClientConfig

__all__ = ["UnixSocketExternalPlugin", "UnixSocketLink"]


class UnixSocketExternalPlugin(RemotePlugin):
    """A plugin behind a Unix socket."""

    def __init__(self, config: PluginConfig) -> None:
        """Keep the configuration; nothing is opened.

        Raises:
            PluginError: It has no `unix_socket` section.
        """
        super().__init__(config)
        if config.unix_socket is None:
            text = f"The unix_socket section must be defined for external plugin {config.name}"
            raise PluginError(PluginErrorModel(message=text, plugin_name=config.name))
        self._settings: UnixSocketClientConfig = config.unix_socket

    def _make_link(self) -> Link:
        return UnixSocketLink(self._settings.path, self._settings.timeout)

    def _address(self) -> str:
        return self._settings.path

    def _first_attempts(self) -> Attempts:
        return Attempts(1, float)

    def _later_attempts(self) -> Attempts:
        delay = self._settings.reconnect_delay
        return Attempts(self._settings.reconnect_attempts, lambda failures: delay * failures)


class UnixSocketLink:
    """One connection to a plugin server's socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._answers: Answers | None = None
        self._ids = itertools.count(1)

    @property
    def connected(self) -> bool:
        """Whether the socket is open and its answers are being read."""
        return self._answers is not None and self._answers.open

    async def open(self) -> None:
        """Connect, or do nothing when connected.

        Raises:
            LinkError: With code `connect`: nobody listens there, or others may replace the socket.
        """
        if self.connected:
            return
        loop = asyncio.get_running_loop()
        try:
            check_socket(self._path)
            _, self._answers = await loop.create_unix_connection(
                lambda: Answers(self._path, self._timeout_s), self._path
            )
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            text = f"Failed to connect to {self._path}: {reason}; is the plugin server running, and is this its socket?"
            raise LinkError(text, code="connect", sent=False) from error

    async def close(self) -> None:
        """Close the socket; questions under way end as lost."""
        answers, self._answers = self._answers, None
        if answers is not None:
            answers.abort()
            await asyncio.wait([answers.gone])

    async def get_plugin_config(self, name: str) -> dict[str, Any]:
        """Ask about a plugin."""
        request = messages.GetPluginConfigRequest(name=name)
        answer = await self._ask_in_order(request.SerializeToString())
        response = parsed(messages.GetPluginConfigResponse, answer)
        return struct_to_settings(response.config) if response.found else {}

    async def invoke_hook(
        self, hook_type: str, plugin_name: str, payload: dict[str, Any], context: dict[str, Any]
    ) -> dict[str, Any]:
        """Ask in the plain form."""
        request = plain_question(hook_type, plugin_name, payload, context)
        return answer_of(parsed(messages.InvokeHookResponse, await self._ask_in_order(request.SerializeToString())))

    async def exchange(self, frame: bytes) -> bytes:
        """Ask with a frame."""
        id = next(self._ids)
        # Names that are there make older servers refuse the question rather than take it for another kind.
        request = messages.InvokeHookRequest(hook_type="-", plugin_name="-", frame=frame, correlation_id=id)
        answers = self._to_ask()
        answer = answers.ask(id, request.SerializeToString())
        try:
            return frame_of(await answer)
        except asyncio.CancelledError:
            answers.give_up(id, answer)
            raise

    async def _ask_in_order(self, data: bytes) -> bytes:
        answers = self._to_ask()
        answer = answers.ask_in_order(data)
        try:
            return await answer
        except BaseException:
            answers.give_up_in_order(answer)
            raise

    def _to_ask(self) -> Answers:
        answers = self._answers
        if answers is None or not answers.open:
            raise LinkError(f"the connection to {self._path} is closed", code="lost", sent=False)
        return answers
