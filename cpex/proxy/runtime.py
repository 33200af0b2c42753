"""Running a proxy: plugins are started once, clients are served until they leave."""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

from cpex.framework.guard.facts import RequestFacts
from cpex.framework.manager import PluginManager
from cpex.proxy.guarding import Guarding
from cpex.proxy.operations import Operations
from cpex.proxy.port import Connection
from cpex.proxy.routes import routes_of
from cpex.proxy.server import Server
from cpex.proxy.session import Session
from cpex.proxy.upstreams import Upstream

__all__ = ["ProxySettings", "ServerLost", "serve", "session_maker"]

logger = logging.getLogger(__name__)


class ServerLost(OSError):
    """No server is left, and the client that was served over standard input and output has been told."""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """How a proxy works."""

    config: str
    """Path of the plugins' configuration."""
    upstreams: Sequence[Upstream]
    user: str | None = None
    """Who all requests are from, where nothing else tells."""
    tenant_id: str | None = None
    timeout_s: float | None = None
    """Seconds that a server may take for a call or a list without reporting progress; `None`: the client decides."""
    listen: tuple[str, int] | None = None
    """Host and port to serve any number of clients at, instead of the one at standard input and output."""


def session_maker(
    manager: PluginManager, settings: ProxySettings, *, shared: bool = False
) -> Callable[[Sequence[Server]], Operations]:
    """What a session answers its client with.

    Args:
        shared: Whether many clients come through it, of whom none has a session.
    """
    # SECURITY: plugins that keep things by session would mix up clients who have nothing to do with one another.
    facts: RequestFacts = {} if shared else {"session_id": uuid.uuid4().hex}
    if settings.user is not None:
        facts["user"] = settings.user
    if settings.tenant_id is not None:
        facts["tenant_id"] = settings.tenant_id
    return lambda servers: Operations(routes_of(servers), Guarding(manager, facts), timeout_s=settings.timeout_s)


async def serve(settings: ProxySettings) -> None:
    """Serve the client at standard input and output until it leaves, or clients over HTTP until cancelled.

    Raises:
        ConfigError: The configuration is not usable, or names no file.
        OSError: The address cannot be listened on.
        PluginLoadError: Plugins did not start.
        ServerLost: The servers ended before the client at standard input and output left.
        ValueError: Servers could never be connected to as the environment is.
    """
    for upstream in settings.upstreams:
        upstream.check()
    if settings.listen is None:
        await _serve_pipes(settings)
        return
    from cpex.proxy.http_server import serve_clients

    async with _running(settings.config) as manager:

        async def run_session(client: Connection, over: Callable[[], None]) -> None:
            await Session(client, settings.upstreams, session_maker(manager, settings), over).run()

        async def run_without_session(clients: Connection, over: Callable[[], None]) -> None:
            await Session(clients, settings.upstreams, session_maker(manager, settings, shared=True), over).run()

        several = len(settings.upstreams) > 1
        await serve_clients(*settings.listen, run_session, None if several else run_without_session)


async def _serve_pipes(settings: ProxySettings) -> None:
    from cpex.proxy.pipes import client_on_pipes

    async with client_on_pipes() as client, _running(settings.config) as manager:
        reason = await Session(client, settings.upstreams, session_maker(manager, settings)).run()
    if reason:
        raise ServerLost(reason)


@asynccontextmanager
async def _running(config: str) -> AsyncIterator[PluginManager]:
    manager = PluginManager(config)
    await manager.initialize()
    try:
        yield manager
    finally:
        await manager.shutdown()
