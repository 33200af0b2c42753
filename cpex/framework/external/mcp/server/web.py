"""Serving over HTTP: `/mcp`, `/health` and `/metrics/prometheus`, on TCP, TLS or a Unix socket.

Source: docs/reference/external.md, "HTTP".
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings
from prometheus_client import Gauge, generate_latest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from cpex.framework.constants import MCP_SERVER_NAME
from cpex.framework.external.mcp.messages import MAX_MESSAGE_BYTES
from cpex.framework.external.mcp.server.ending import Ending
from cpex.framework.external.mcp.server.tools import mcp_server_of
from cpex.framework.external.port import Service
from cpex.framework.external.running import warn_of_open_door
from cpex.framework.models.tls import MCPServerTLSConfig
from cpex.framework.models.transport import MCPServerConfig

__all__ = [
    "PATH",
    "PLUGIN_INFO",
    "application",
    "listening",
    "made_server",
    "names_answered_to",
    "run_servers",
    "serve_http",
]

logger = logging.getLogger(__name__)

PATH = "/mcp"
HEALTH_OFFSET = 1000
"""With TLS, a listener without it answers about health this many ports further up."""
MAX_PORT = 65535
GRACE_S = 5
"""Seconds for calls that are under way when the server is stopped."""
LEAVING_S = 2
"""Seconds for responses to end that were told that their clients have left; the web server cuts them off then."""
KEEPALIVE_S = 75
"""Seconds that an idle connection stays open: longer than clients keep theirs, so that none is cut while in use."""
_TURNS_OF_AN_ACCEPT = 5
"""Turns of the event loop from an accepted socket to its connection, with some to spare."""
METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_NAMES = ("127.0.0.1", "localhost", "[::1]")

PLUGIN_INFO = Gauge("plugin_info", "What this plugin server is", ["server_name", "transport", "ssl_enabled"])


def application(service: Service, config: MCPServerConfig, *, metrics: bool) -> Starlette:
    """The web application: the MCP endpoint, health and metrics."""
    return mcp_server_of(service).streamable_http_app(
        streamable_http_path=PATH,
        transport_security=names_answered_to(config),
        host=config.host,
        # A message and what HTTP has around it.
        max_request_body_size=MAX_MESSAGE_BYTES + 1024,
        custom_starlette_routes=_routes(service, metrics),
    )


def names_answered_to(config: MCPServerConfig) -> TransportSecuritySettings:
    """Which `Host` and `Origin` are accepted: a page in a browser must not reach a server of this machine."""
    if config.uds is None and not _is_loopback(config.host):
        return TransportSecuritySettings(enable_dns_rebinding_protection=False)
    hosts = [f"{name}:*" for name in _NAMES]
    # HTTP over a Unix socket has no port to name, and on the standard ports clients leave it out.
    bare = list(_NAMES) if config.uds is not None or config.port in (80, 443) else []
    origins = [f"{scheme}://{name}" for scheme in ("http", "https") for name in (*hosts, *bare)]
    return TransportSecuritySettings(
        enable_dns_rebinding_protection=True, allowed_hosts=[*hosts, *bare], allowed_origins=origins
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _routes(service: Service, metrics: bool) -> list[Route]:
    async def health(_: Request) -> Response:
        state = service.health
        return JSONResponse({"status": state}, status_code=503 if state == "unhealthy" else 200)

    async def prometheus(_: Request) -> Response:
        if not metrics:
            return JSONResponse({"error": "metrics are switched off; set ENABLE_METRICS=true"}, status_code=503)
        return Response(generate_latest(), media_type=METRICS_TYPE)

    return [Route("/health", health), Route("/metrics/prometheus", prometheus)]


async def serve_http(service: Service, config: MCPServerConfig, *, metrics: bool = True) -> None:
    """Serve until cancelled; calls under way then get a few seconds to end.

    Raises:
        OSError: The address cannot be listened on.
        ValueError: TLS is not configured completely. Nothing is ever served in the clear for that.
    """
    tls = _tls_arguments(config.tls) if config.tls is not None else {}
    PLUGIN_INFO.labels(MCP_SERVER_NAME, "http", str(bool(tls)).lower()).set(1)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(listening(config))
        servers = [made_server(application(service, config, metrics=metrics), listener, **tls)]
        if tls:
            # For probes and scrapers that have no certificate.
            place = config.model_copy(update={"port": config.port + HEALTH_OFFSET, "tls": None})
            extra = stack.enter_context(listening(place, " for health and metrics"))
            servers.append(made_server(Starlette(routes=_routes(service, metrics)), extra))
        if config.uds is None:
            warn_of_open_door(config.host, authenticated=config.tls is not None and config.tls.ssl_cert_reqs == 2)
        logger.info("Plugin server listens on %s", _shown(config))
        await run_servers(servers)


def _tls_arguments(tls: MCPServerTLSConfig) -> dict[str, Any]:
    """What the web server is told of TLS; checked here, with messages that say what to do."""
    if not tls.certfile or not tls.keyfile:
        raise ValueError("TLS needs a certificate and its key; set both `certfile` and `keyfile` of the server's `tls`")
    if tls.ssl_cert_reqs not in (0, 1, 2):
        raise ValueError(f"ssl_cert_reqs is 0 (none), 1 (optional) or 2 (required), not {tls.ssl_cert_reqs}")
    if tls.ssl_cert_reqs and not tls.ca_bundle:
        raise ValueError(
            "client certificates are asked for, and nothing says whose are trusted; "
            "set `ca_bundle` of the server's `tls`, or `ssl_cert_reqs: 0`"
        )
    password = tls.keyfile_password or ""
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(tls.certfile, tls.keyfile, lambda: password)
        if tls.ca_bundle:
            context.load_verify_locations(tls.ca_bundle)
    except (OSError, ssl.SSLError) as error:
        raise ValueError(f"the files of the server's `tls` cannot be used: {error}") from error
    return {
        "ssl_certfile": tls.certfile,
        "ssl_keyfile": tls.keyfile,
        "ssl_keyfile_password": password,
        "ssl_ca_certs": tls.ca_bundle,
        "ssl_cert_reqs": (ssl.CERT_NONE, ssl.CERT_OPTIONAL, ssl.CERT_REQUIRED)[tls.ssl_cert_reqs],
    }


def _shown(config: MCPServerConfig) -> str:
    if config.uds is not None:
        return f"Unix socket {config.uds}"
    return f"{'https' if config.tls else 'http'}://{config.host}:{config.port}{PATH}"


@contextlib.contextmanager
def listening(config: MCPServerConfig, purpose: str = "") -> Iterator[socket.socket]:
    """A socket at a server's address, closed and cleared away at the end.

    Args:
        purpose: What else it is for, as the end of a message.

    Raises:
        OSError: The address cannot be listened on.
    """
    try:
        listener = _unix_listener(config.uds) if config.uds is not None else _tcp_listener(config.host, config.port)
    except OSError as error:
        reason = error.strerror or error
        raise OSError(f"cannot listen on {_shown(config)}{purpose}: {reason}; choose another port or path") from error
    own = os.stat(config.uds) if config.uds is not None else None
    try:
        yield listener
    finally:
        listener.close()
        if config.uds is not None and own is not None:
            with contextlib.suppress(OSError):
                now = os.stat(config.uds)
                # Another server may have taken the path since.
                if (now.st_dev, now.st_ino) == (own.st_dev, own.st_ino):
                    os.unlink(config.uds)


def _tcp_listener(host: str, port: int) -> socket.socket:
    if port > MAX_PORT:
        # The platform would take the remainder of a division, and listen where nobody expects it.
        raise OSError(f"ports go up to {MAX_PORT}")
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except BaseException:
        listener.close()
        raise
    return listener


def _unix_listener(path: str) -> socket.socket:
    _remove_dead_socket(Path(path))
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # SECURITY: the file must never be there with a mode that lets others connect, not even for a moment.
    mask = os.umask(0o177)
    try:
        listener.bind(path)
    except BaseException:
        listener.close()
        raise
    finally:
        os.umask(mask)
    return listener


def _remove_dead_socket(path: Path) -> None:
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(f"{path} is there and is no socket; remove it or choose another path")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError("another server listens there")


class _Server(uvicorn.Server):
    """Leaves the process's signals to whoever runs it, and ends what is open in order."""

    def __init__(self, config: uvicorn.Config, ending: Ending) -> None:
        super().__init__(config)
        self._ending = ending

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    def stop(self) -> None:
        """Take no more connections, and end when the calls under way have ended."""
        # Not by `handle_exit`: the library that writes streams puts a hook of its own there, which cuts off those of
        # every server in the process, for ever.
        self.should_exit = True

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until stopped; no connection outlives it."""
        try:
            await super().serve(sockets)
        finally:
            # The web server leaves those open whose clients neither went nor took what they were sent.
            for connection in list(self.server_state.connections):
                connection.transport.abort()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """What the web server does when it is stopped."""
        await self._take_no_more()
        ending = asyncio.create_task(self._ending.end(GRACE_S))
        try:
            await super().shutdown(sockets)
        finally:
            ending.cancel()
            await asyncio.wait([ending])

    async def _take_no_more(self) -> None:
        """Stop accepting; what was accepted a moment ago arrives now.

        It would be lost if its listener were closed already, and not be told to end if it came later.
        """
        loop = asyncio.get_running_loop()
        for listener in (each for server in self.servers for each in server.sockets):
            # The loop of Windows has no readers.
            with contextlib.suppress(NotImplementedError):
                loop.remove_reader(listener.fileno())
        for _ in range(_TURNS_OF_AN_ACCEPT):
            await asyncio.sleep(0)


def made_server(app: ASGIApp, listener: socket.socket, **tls: Any) -> tuple[_Server, socket.socket]:
    """A web server for an application, and where it listens; `tls` as uvicorn takes it."""
    ending = Ending(app)
    config = uvicorn.Config(
        ending,
        log_config=None,
        access_log=False,
        lifespan="on",
        timeout_keep_alive=KEEPALIVE_S,
        timeout_graceful_shutdown=GRACE_S + LEAVING_S,
        **tls,
    )
    return _Server(config, ending), listener


async def run_servers(servers: list[tuple[_Server, socket.socket]]) -> None:
    """Serve until cancelled; calls under way then get a few seconds to end."""
    tasks = [asyncio.ensure_future(server.serve([listener])) for server, listener in servers]
    try:
        # Shielded, because a server that is cancelled drops the calls that are under way.
        await asyncio.shield(asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED))
    finally:
        for server, _ in servers:
            server.stop()
        await asyncio.wait(tasks)
    for task in tasks:
        task.result()
