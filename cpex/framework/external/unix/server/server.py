"""The serving end of a Unix socket.

Messages have no tag, so what kind of question one is, is told by what it parses as, in a fixed order. Questions without
a correlation id are answered strictly in the order of asking; those with one run side by side.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat
from typing import Any

from google.protobuf.message import DecodeError

from cpex.framework.external.answering import configuration, configurations, failed, hook_answer
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.server import ExternalPluginServer
from cpex.framework.external.unix.protocol import (
    MAX_MESSAGE_SIZE,
    ProtocolError,
    read_message,
    write_message,
)
from cpex.framework.models.transport import UnixSocketServerConfig

__all__ = ["UnixSocketPluginServer", "run_server"]

logger = logging.getLogger(__name__)

DEFAULT_SOCKET_PATH: str = UnixSocketServerConfig.model_fields["path"].default
IDLE_LIMIT_S = 300.0
"""Seconds after which a connection without a question is closed."""
MAX_AT_ONCE = 1000
"""Questions of one connection that run side by side; further ones are not read before one of them is answered."""
_TURNS_OF_AN_ACCEPT = 5
"""Turns of the event loop from an accepted socket to its connection, with some to spare."""
_LONGEST_QUESTION_ABOUT_ALL = 2
"""Bytes: a message that short and without a name in it asks about all plugins."""


class UnixSocketPluginServer:
    """Serves a configuration's plugins on a Unix socket."""

    def __init__(self, config_path: str | None = None, socket_path: str | None = None) -> None:
        """Read the configuration; nothing is opened.

        Args:
            socket_path: Else what `PLUGINS_UNIX_SOCKET_PATH` says, else the configuration's
                `unix_socket_server_settings`, else what `UNIX_SOCKET_PATH` says, else a fixed path.

        Raises:
            ConfigError: The configuration cannot be used; also when there is none.
        """
        self._service = ExternalPluginServer(config_path)
        self._path = socket_path or _configured_path(self._service.get_unix_server_config())
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def socket_path(self) -> str:
        """Where it listens."""
        return self._path

    @property
    def running(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    async def start(self) -> None:
        """Start the plugins and listen. The socket belongs to this user alone (mode 0600).

        Raises:
            PluginLoadError: Plugins that may not be missing did not start.
            OSError: The socket cannot be made; also when another server listens on it.
        """
        if self._server is not None:
            return
        await self._service.initialize()
        try:
            await _remove_stale(self._path)
            # SECURITY: the mode is set by the mask, not after the fact: between bind and chmod anyone could connect.
            mask = os.umask(0o177)
            try:
                self._server = await asyncio.start_unix_server(self._accept, self._path)
            finally:
                os.umask(mask)
        except BaseException:
            await self._service.shutdown()
            raise
        logger.info("Plugin server listens on %s", self._path)

    async def serve_forever(self) -> None:
        """Serve until cancelled.

        Raises:
            RuntimeError: `start()` has not been called.
        """
        if self._server is None:
            raise RuntimeError("Server not started; call `start()` first")
        await self._server.serve_forever()

    async def stop(self) -> None:
        """Stop listening, end every connection, shut the plugins down, remove the socket. May be called twice."""
        server, self._server = self._server, None
        if server is None:
            return
        for listening in server.sockets:
            asyncio.get_running_loop().remove_reader(listening.fileno())
        for _ in range(_TURNS_OF_AN_ACCEPT):
            # What was accepted a moment ago arrives now; asyncio would lose it if the server were closed already.
            await asyncio.sleep(0)
        server.close()
        for task in self._connections:
            task.cancel()
        if self._connections:
            await asyncio.wait(self._connections)
        await server.wait_closed()
        await self._service.shutdown()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(_Connection(self._service, reader, writer).serve())
        self._connections.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._connections.discard(task)
            # A task that is cancelled before its first step runs no clean-up of its own.
            writer.close()

        task.add_done_callback(ended)


class _Connection:
    """One client. Lives as long as its connection; its questions end with it."""

    def __init__(
        self, service: ExternalPluginServer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._service = service
        self._reader = reader
        self._writer = writer
        self._running: dict[int, asyncio.Task[None]] = {}
        self._room = asyncio.Semaphore(MAX_AT_ONCE)

    async def serve(self) -> None:
        try:
            while True:
                await self._handle(await read_message(self._reader, self._patience()))
        except TimeoutError:
            logger.debug("A connection was idle for %gs and was closed", IDLE_LIMIT_S)
        except ProtocolError as error:
            logger.warning("A client sent no message, and its connection was closed: %s", error)
        except (OSError, asyncio.IncompleteReadError):
            logger.debug("A client has gone")
        finally:
            await self._end()

    def _patience(self) -> float | None:
        return None if self._running else IDLE_LIMIT_S

    async def _handle(self, data: bytes) -> None:
        invoke = _parsed(messages.InvokeHookRequest, data)
        if invoke is not None and invoke.correlation_id:
            await self._handle_tagged(invoke)
            return
        if invoke is not None and invoke.hook_type and invoke.plugin_name:
            answer: Any = await hook_answer(self._service, invoke)
        elif (about := _parsed(messages.GetPluginConfigRequest, data)) is not None and about.name:
            answer = await configuration(self._service, about)
        elif len(data) <= _LONGEST_QUESTION_ABOUT_ALL:
            answer = await configurations(self._service)
        else:
            answer = failed(messages.InvokeHookRequest(), "Unknown message type", "UNKNOWN_MESSAGE")
        await self._send(answer, invoke)

    async def _handle_tagged(self, request: messages.InvokeHookRequest) -> None:
        id = request.correlation_id
        if request.cancel:
            if (running := self._running.get(id)) is not None:
                running.cancel()
            return
        await self._room.acquire()
        task = asyncio.create_task(self._answer(request))
        self._running[id] = task
        task.add_done_callback(lambda _: self._done(id))

    def _done(self, id: int) -> None:
        self._running.pop(id, None)
        self._room.release()

    async def _answer(self, request: messages.InvokeHookRequest) -> None:
        answer = await hook_answer(self._service, request)
        answer.correlation_id = request.correlation_id
        with contextlib.suppress(OSError):
            await self._send(answer, request)

    async def _send(self, answer: Any, request: messages.InvokeHookRequest | None) -> None:
        data = answer.SerializeToString()
        if len(data) > MAX_MESSAGE_SIZE:
            text = f"the answer of {len(data)} bytes is over the {MAX_MESSAGE_SIZE} bytes that the socket carries"
            short = failed(request or messages.InvokeHookRequest(), text, "TOO_LARGE")
            short.correlation_id = request.correlation_id if request is not None else 0
            data = short.SerializeToString()
        write_message(self._writer, data)
        await self._writer.drain()

    async def _end(self) -> None:
        for task in self._running.values():
            task.cancel()
        if self._running:
            await asyncio.wait(list(self._running.values()))
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()


def _configured_path(section: UnixSocketServerConfig | None) -> str:
    if prefixed := os.environ.get("PLUGINS_UNIX_SOCKET_PATH"):
        # Older servers read nothing else, so it decides wherever it is set.
        return prefixed
    section = section or UnixSocketServerConfig.from_env()
    return section.path if section is not None else DEFAULT_SOCKET_PATH


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


async def _remove_stale(path: str) -> None:
    """Remove a socket that an earlier server left behind.

    Raises:
        FileExistsError: Something else is there: a server that answers, or no socket at all.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise FileExistsError(f"{path} is there and is no socket; choose another path, or remove it")
    try:
        _, writer = await asyncio.open_unix_connection(path)
    except OSError:
        os.unlink(path)
        return
    writer.close()
    raise FileExistsError(f"a server listens on {path} already; stop it, or choose another path")


async def run_server(config_path: str | None = None, socket_path: str | None = None) -> None:
    """Serve until cancelled; prints `READY` once clients may connect."""
    server = UnixSocketPluginServer(config_path, socket_path)
    await server.start()
    try:
        # Whoever starts this server waits for that very line.
        print("READY", flush=True)  # noqa: T201
        await server.serve_forever()
    finally:
        await server.stop()
