"""The asking end of a Unix socket.

Questions in frames carry a correlation id, so any number of them share one connection and answers come in any order.
A question in the plain form has no id: its answer is the next message. So only one of those is under way at a time, and
one that ends without its answer (a timeout, a cancelled caller) ends the connection with it: the late answer must never
be taken for the next question's.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import Any

from google.protobuf.message import DecodeError

from cpex.framework.errors import PluginError
from cpex.framework.external.answering import answer_of, frame_of, plain_question
from cpex.framework.external.plugin import RemotePlugin
from cpex.framework.external.port import Link, LinkError
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.proto_convert import struct_to_dict
from cpex.framework.external.session import Attempts
from cpex.framework.external.unix.protocol import MAX_MESSAGE_SIZE, ProtocolError, read_message, write_message
from cpex.framework.models.config import PluginConfig
from cpex.framework.models.result import PluginErrorModel
from cpex.framework.models.transport import UnixSocketClientConfig

__all__ = ["UnixSocketExternalPlugin", "UnixSocketLink"]

_IN_ORDER = 0
"""Correlation id of an answer that belongs to the question asked before it."""


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
        self._writer: asyncio.StreamWriter | None = None
        self._reading: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[bytes]] = {}
        self._ids = itertools.count(1)
        self._in_order = asyncio.Lock()

    @property
    def connected(self) -> bool:
        """Whether the socket is open and its answers are being read."""
        return self._reading is not None and not self._reading.done()

    async def open(self) -> None:
        """Connect."""
        if self.connected:
            return
        try:
            reader, self._writer = await asyncio.open_unix_connection(self._path)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            text = f"Failed to connect to {self._path}: {reason}; is the plugin server running, and is this its socket?"
            raise LinkError(text, code="connect", sent=False) from error
        self._reading = asyncio.create_task(self._read(reader, self._writer), name=f"cpex answers from {self._path}")

    async def close(self) -> None:
        """Close the socket and wait for its reader; questions under way end as lost."""
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.cancel()
            await asyncio.wait([reading])
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def get_plugin_config(self, name: str) -> dict[str, Any]:
        """Ask about a plugin."""
        request = messages.GetPluginConfigRequest(name=name)
        answer = await self._ask_in_order(request.SerializeToString())
        response = _parsed(messages.GetPluginConfigResponse, answer)
        return struct_to_dict(response.config) if response.found else {}

    async def invoke_hook(
        self, hook_type: str, plugin_name: str, payload: dict[str, Any], context: dict[str, Any]
    ) -> dict[str, Any]:
        """Ask in the plain form."""
        request = plain_question(hook_type, plugin_name, payload, context)
        return answer_of(_parsed(messages.InvokeHookResponse, await self._ask_in_order(request.SerializeToString())))

    async def exchange(self, frame: bytes) -> bytes:
        """Ask with a frame."""
        id = next(self._ids)
        # Names that are there make older servers refuse the question rather than take it for another kind.
        request = messages.InvokeHookRequest(hook_type="-", plugin_name="-", frame=frame, correlation_id=id)
        try:
            answer = await self._ask(id, request.SerializeToString())
        except BaseException as error:
            if self.connected and not (isinstance(error, LinkError) and not error.sent):
                self._send_quietly(messages.InvokeHookRequest(correlation_id=id, cancel=True).SerializeToString())
            raise
        return frame_of(messages.InvokeHookResponse.FromString(answer))

    async def _ask_in_order(self, data: bytes) -> bytes:
        async with self._in_order:
            try:
                return await self._ask(_IN_ORDER, data)
            except BaseException as error:
                if not (isinstance(error, LinkError) and not error.sent):
                    # SECURITY: whatever comes now would be taken for the answer to the next question.
                    self._abort()
                raise

    async def _ask(self, id: int, data: bytes) -> bytes:
        if len(data) > MAX_MESSAGE_SIZE:
            text = f"a question of {len(data)} bytes is over the {MAX_MESSAGE_SIZE} bytes that the socket carries"
            raise LinkError(text, code="too_large", sent=False)
        writer = self._writer
        if writer is None or not self.connected or writer.is_closing():
            raise LinkError(f"the connection to {self._path} is closed", code="lost", sent=False)
        answer = self._waiting[id] = asyncio.get_running_loop().create_future()
        try:
            write_message(writer, data)
            async with asyncio.timeout(self._timeout_s):
                await writer.drain()
                received: bytes = await answer
                return received
        except TimeoutError as error:
            text = f"Request timed out after {self._timeout_s:g}s (`timeout` of the `unix_socket` section)"
            raise LinkError(text, code="timeout", sent=True) from error
        except OSError as error:
            raise self._lost() from error
        finally:
            self._waiting.pop(id, None)
            # Whatever came of it is told by now; an exception that nobody fetches would be logged as forgotten.
            if not answer.cancel() and not answer.cancelled():
                answer.exception()

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Hand each answer to whoever waits for it, until there are no more; the one task that owns the connection."""
        reason: LinkError = self._lost()
        try:
            while True:
                data = await read_message(reader)
                id = _parsed(messages.InvokeHookResponse, data).correlation_id
                waiting = self._waiting.get(id)
                if waiting is not None and not waiting.done():
                    waiting.set_result(data)
                elif id == _IN_ORDER:
                    raise LinkError(f"{self._path} answered what nobody had asked", code="protocol", sent=True)
                # A late answer with an id is nobody's any more.
        except LinkError as error:
            reason = error
        except ProtocolError as error:
            reason = LinkError(f"{self._path} sent no message: {error}", code="protocol", sent=True)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(reason)

    def _lost(self) -> LinkError:
        return LinkError(f"the connection to {self._path} ended before the answer", code="lost", sent=True)

    def _abort(self) -> None:
        if self._reading is not None:
            self._reading.cancel()
        if self._writer is not None:
            self._writer.transport.abort()

    def _send_quietly(self, data: bytes) -> None:
        if self._writer is not None and not self._writer.is_closing():
            write_message(self._writer, data)


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise LinkError("the server sent something that is no message", code="protocol", sent=True) from error
