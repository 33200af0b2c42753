"""Starts a plugin server on gRPC: `python -m cpex.framework.external.grpc.server.runtime`.

Ends with 0 on SIGINT and SIGTERM, after at most five seconds for questions under way, and with 1 on failure.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
from collections.abc import Sequence

import grpc.aio

from cpex.framework.external.grpc.client import channel_options
from cpex.framework.external.grpc.server.server import GrpcHealthServicer, GrpcPluginServicer, add_standard_health
from cpex.framework.external.grpc.tls_utils import create_server_credentials
from cpex.framework.external.proto.plugin_service_pb2_grpc import (
    add_HealthServicer_to_server,
    add_PluginServiceServicer_to_server,
)
from cpex.framework.external.running import run_until_stopped, warn_of_open_door
from cpex.framework.external.server import ExternalPluginServer
from cpex.framework.models.transport import GRPCServerConfig

__all__ = ["GrpcPluginRuntime", "main", "run_server"]

logger = logging.getLogger(__name__)

GRACE_S = 5.0
"""Seconds that questions under way have when the server stops."""


class GrpcPluginRuntime:
    """A gRPC server around a configuration's plugins."""

    def __init__(self, config_path: str | None = None, host: str | None = None, port: int | None = None) -> None:
        """Keep what is given; `start` reads the configuration.

        Args:
            host: Wins over the configuration's, unless that names a Unix socket.
            port: Likewise; 0 lets the system choose.
        """
        self._config_path = config_path
        self._host, self._port = host, port
        self._plugins: ExternalPluginServer | None = None
        self._server: grpc.aio.Server | None = None
        self._uds: str | None = None
        self._stop_asked = asyncio.Event()
        self.port: int | None = None
        """The TCP port that it listens on; `None` before the start and on a Unix socket."""

    async def start(self) -> None:
        """Start the plugins and serve until `request_shutdown` or cancellation, then stop.

        Raises:
            ConfigError: The configuration cannot be used.
            PluginLoadError: Plugins that may not be missing did not start.
            ValueError: TLS is asked for and cannot be had as asked.
            OSError: The address is taken, or is none of this machine's.
        """
        await self.listen()
        try:
            await self._stop_asked.wait()
        finally:
            await self.stop()

    async def listen(self) -> None:
        """Start the plugins and begin to answer; see `start` for what is raised. Nothing is left running after that."""
        plugins = ExternalPluginServer(self._config_path)
        config = plugins.get_grpc_server_config() or GRPCServerConfig.from_env() or GRPCServerConfig()
        if not config.uds:
            given = {"host": self._host, "port": self._port}
            config = config.model_copy(update={name: value for name, value in given.items() if value is not None})
        credentials = create_server_credentials(config.tls) if config.tls is not None else None
        await plugins.initialize()
        try:
            self._server = await self._bound(plugins, config, credentials)
        except BaseException:
            await plugins.shutdown()
            raise
        self._plugins = plugins

    async def _bound(
        self, plugins: ExternalPluginServer, config: GRPCServerConfig, credentials: grpc.ServerCredentials | None
    ) -> grpc.aio.Server:
        largest = max((each.max_content_size for each in plugins.config.plugins or []), default=0)
        # Without this a second server on a taken port would share its questions instead of failing.
        options = [*channel_options(largest), ("grpc.so_reuseport", 0)]
        server = grpc.aio.server(options=options)
        health = GrpcHealthServicer(plugins)
        add_PluginServiceServicer_to_server(GrpcPluginServicer(plugins), server)
        add_HealthServicer_to_server(health, server)
        add_standard_health(health, server)
        address = config.get_bind_address()
        # SECURITY: a socket is made for this user alone, not opened to all and closed afterwards.
        mask = os.umask(0o177) if config.uds else None
        try:
            if credentials is not None:
                port = server.add_secure_port(address, credentials)
            else:
                port = server.add_insecure_port(address)
            await server.start()
        except RuntimeError as error:
            raise OSError(f"cannot listen on {address}: {error}") from error
        finally:
            if mask is not None:
                os.umask(mask)
        self._uds = config.uds
        self.port = None if config.uds else port
        if not config.uds:
            warn_of_open_door(config.host, authenticated=config.tls is not None and config.tls.client_auth == "require")
        logger.info("Plugin server listens on %s over gRPC%s", address, " with TLS" if credentials else "")
        return server

    async def stop(self) -> None:
        """Answer what is under way, at most for the grace period, then shut everything down. May be called twice."""
        server, self._server = self._server, None
        plugins, self._plugins = self._plugins, None
        if server is not None:
            await server.stop(GRACE_S)
        if plugins is not None:
            await plugins.shutdown()
        if self._uds is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._uds)

    def request_shutdown(self) -> None:
        """Let `start` come to its end."""
        self._stop_asked.set()


async def run_server(config_path: str | None = None, host: str | None = None, port: int | None = None) -> None:
    """Serve until cancelled."""
    await GrpcPluginRuntime(config_path, host, port).start()


def main(arguments: Sequence[str] | None = None) -> None:
    """Serve as arguments and environment say, until a signal."""
    parser = argparse.ArgumentParser(description="Serve plugins over gRPC.")
    parser.add_argument("--config", "-c", help="the configuration; else PLUGINS_CONFIG_PATH, else the default path")
    parser.add_argument("--host", "-H", help="address to listen on, in place of the configured one")
    parser.add_argument("--port", "-p", type=int, help="port to listen on, in place of the configured one")
    parser.add_argument("--log-level", "-l", choices=["DEBUG", "INFO", "WARNING", "ERROR"])
    options = parser.parse_args(arguments)
    run_until_stopped(lambda: run_server(options.config, options.host, options.port), options.log_level)


if __name__ == "__main__":
    main()
