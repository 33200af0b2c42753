"""The serving end of a Unix socket: where it listens, and for how long. `connection.py` answers the questions."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import stat

from cpex.framework.errors import ConfigError
from cpex.framework.external.eager import EagerTasks
from cpex.framework.external.server import ExternalPluginServer
from cpex.framework.external.unix.server.connection import Connection
from cpex.framework.models.sockets import check_socket_folder
from cpex.framework.models.transport import UnixSocketServerConfig

__all__ = ["UnixSocketPluginServer", "run_server"]

logger = logging.getLogger(__name__)

DEFAULT_SOCKET_PATH: str = UnixSocketServerConfig.model_fields["path"].default
_TURNS_OF_AN_ACCEPT = 5
"""Turns of the event loop from an accepted socket to its connection, with some to spare."""
STOP_GRACE_S = 2.0
"""Seconds that clients have to take the answers that were written when the server stops."""


class UnixSocketPluginServer:
    """Serves a configuration's plugins on a Unix socket."""

    def __init__(self, config_path: str | None = None, socket_path: str | None = None) -> None:
        """Learn where to listen; nothing is opened, and what is wrong with the configuration is told by `start`.

        Args:
            socket_path: Else what `PLUGINS_UNIX_SOCKET_PATH` says, else the configuration's
                `unix_socket_server_settings`, else what `UNIX_SOCKET_PATH` says, else a fixed path.
        """
        self._config_path = config_path
        self._given_path = socket_path
        self._made: ExternalPluginServer | None = None
        with contextlib.suppress(ConfigError):
            self._made = ExternalPluginServer(config_path)
        self._path = self._chosen_path()
        self._server: asyncio.Server | None = None
        self._connections: set[Connection] = set()
        self._tasks: EagerTasks | None = None

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
            ConfigError: The configuration cannot be used; also when there is none.
            PluginLoadError: Plugins that may not be missing did not start.
            OSError: The socket cannot be made; also when another server listens on it.
        """
        if self._server is not None:
            return
        if self._made is None:
            self._made = ExternalPluginServer(self._config_path)
            self._path = self._chosen_path()
        await self._service.initialize()
        try:
            check_socket_folder(self._path)
            await _remove_stale(self._path)
            # SECURITY: the mode is set by the mask, not after the fact: between bind and chmod anyone could connect.
            mask = os.umask(0o177)
            try:
                self._server = await self._listening()
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
        await self._end_connections()
        await server.wait_closed()
        await self._service.shutdown()
        with contextlib.suppress(OSError):
            os.unlink(self._path)

    @property
    def _service(self) -> ExternalPluginServer:
        assert self._made is not None, "only a started server is asked"
        return self._made

    def _chosen_path(self) -> str:
        section = self._made.get_unix_server_config() if self._made is not None else None
        return self._given_path or _configured_path(section)

    async def _listening(self) -> asyncio.Server:
        tasks = EagerTasks()
        try:
            server = await asyncio.get_running_loop().create_unix_server(
                lambda: Connection(self._service, tasks, self._connections), self._path
            )
        except BaseException:
            await tasks.close()
            raise
        self._tasks = tasks
        return server

    async def _end_connections(self) -> None:
        connections = list(self._connections)
        for connection in connections:
            connection.end()
        if connections:
            _, late = await asyncio.wait([each.ended for each in connections], timeout=STOP_GRACE_S)
            for connection in connections:
                # Closed already, unless its client takes nothing.
                connection.abort()
            if late:
                await asyncio.wait(late)
        tasks, self._tasks = self._tasks, None
        if tasks is not None:
            await tasks.close()


def _configured_path(section: UnixSocketServerConfig | None) -> str:
    if prefixed := os.environ.get("PLUGINS_UNIX_SOCKET_PATH"):
        # Older servers read nothing else, so it decides wherever it is set.
        return prefixed
    section = section or UnixSocketServerConfig.from_env()
    return section.path if section is not None else DEFAULT_SOCKET_PATH


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
