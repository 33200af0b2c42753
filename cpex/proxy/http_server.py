"""Serving clients over streamable HTTP: each has a session of its own, with connections of its own to the servers.

The SDK's server transport speaks the protocol for one session; which request belongs to which session is decided here.

Source: docs/proxy.md, "Serving over HTTP".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import anyio
from mcp.server.streamable_http import StreamableHTTPServerTransport
from mcp.server.transport_security import RequestBodyLimitMiddleware
from mcp.shared.message import ServerMessageMetadata, SessionMessage
from mcp_types import jsonrpc_message_adapter
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from cpex.framework.external.mcp.messages import MAX_MESSAGE_BYTES
from cpex.framework.external.mcp.server.web import PATH, listening, made_server, names_answered_to, run_servers
from cpex.framework.external.port import LinkError
from cpex.framework.external.running import LOOPBACK
from cpex.framework.models.transport import MCPServerConfig
from cpex.proxy.errors import INVALID_REQUEST
from cpex.proxy.http_modern import ModernClients, RunSession
from cpex.proxy.port import Message, RequestId, id_of, whole

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["MAX_SESSIONS", "serve_clients"]

logger = logging.getLogger(__name__)

MAX_SESSIONS = 1000
BACKLOG = 1024
"""Connections that wait to be accepted."""
FAREWELL_S = 2.0
"""Seconds in which clients must have read their last answers."""
IDLE_S = 30 * 60
"""Seconds after which a session ends in which nothing is asked and no stream is open."""


async def serve_clients(host: str, port: int, run_session: RunSession, run_without_session: RunSession | None) -> None:
    """Serve until cancelled.

    Args:
        run_session: For each client that begins with a handshake.
        run_without_session: For all those together that need none; `None` where only sessions are served.

    Raises:
        OSError: The address cannot be listened on.
    """
    config = MCPServerConfig(host=host, port=port)
    sessions = _Sessions(config, run_session, run_without_session)
    # An endpoint that is an object is an application: it is handed every method.
    app = Starlette(routes=[Route(PATH, RequestBodyLimitMiddleware(sessions, MAX_MESSAGE_BYTES + 1024))])
    with listening(config) as listener:
        if host not in LOOPBACK:
            logger.warning(
                "The proxy listens on %s, where other machines may reach it, and asks nobody who they are: whoever "
                "connects can do what the plugins allow; bind to 127.0.0.1, or put a server that asks before it",
                host,
            )
        # Whoever reads the next line may connect: the kernel keeps them until the web server has started.
        listener.listen(BACKLOG)
        logger.info("The proxy listens on http://%s:%d%s", host, listener.getsockname()[1], PATH)
        serving = asyncio.create_task(run_servers([made_server(app, listener)]))
        try:
            await asyncio.shield(serving)
        finally:
            # Calls get the server's seconds of grace; streams on which nothing is called would use them up.
            sessions.end_streams()
            serving.cancel()
            await asyncio.wait([serving])
            await sessions.close()


class _Sessions:
    """Which session a request belongs to."""

    def __init__(
        self, config: MCPServerConfig, run_session: RunSession, run_without_session: RunSession | None
    ) -> None:
        self._security = names_answered_to(config)
        self._run_session = run_session
        self._open: dict[str, _Open] = {}
        self._modern = ModernClients(self._security, run_without_session)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of HTTP."""
        request = Request(scope, receive)
        version = request.headers.get("mcp-protocol-version")
        id = request.headers.get("mcp-session-id")
        if version is not None and version not in HANDSHAKE_PROTOCOL_VERSIONS:
            # It tells of a version that nobody knows as well.
            await self._modern(scope, receive, send)
        elif id is None:
            await self._begin(scope, receive, send)
        elif (session := self._open.get(id)) is None:
            await _refusal(404, INVALID_REQUEST, "there is no such session")(scope, receive, send)
        else:
            await session.handle(scope, receive, send)
            if session.transport.is_terminated:
                await self._end(id)

    async def _begin(self, scope: Scope, receive: Receive, send: Send) -> None:
        if len(self._open) >= MAX_SESSIONS:
            await _refusal(503, INVALID_REQUEST, "too many sessions are open")(scope, receive, send)
            return
        id = uuid.uuid4().hex
        session = _Open(StreamableHTTPServerTransport(id, security_settings=self._security, idle_timeout=IDLE_S))
        session.task = asyncio.create_task(self._serve(id, session))
        self._open[id] = session
        status = 500

        async def noting(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await session.ready.wait()
            await session.handle(scope, receive, noting)
        finally:
            # Only a handshake opens a session; whatever else came without one leaves nothing behind.
            if status >= 400:
                await self._end(id)

    async def _serve(self, id: str, session: _Open) -> None:
        transport = session.transport
        try:
            async with transport.connect() as (incoming, outgoing):
                session.ready.set()
                try:
                    with transport.idle_scope or contextlib.nullcontext():
                        # Whoever asks while it is taken down is told that there is no such session, and begins anew.
                        await self._run_session(_HttpClient(incoming, outgoing), lambda: self._closed(id))
                    # Its servers have ended: whoever has asked is told so before the streams are closed.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(FAREWELL_S):
                            await session.answered.wait()
                finally:
                    with anyio.CancelScope(shield=True):
                        await transport.terminate()
        # The end of a task that nobody awaits.
        except Exception:
            logger.exception("A session of the proxy failed")
        finally:
            session.ready.set()
            self._closed(id)

    def _closed(self, id: str) -> None:
        self._open.pop(id, None)

    async def _end(self, id: str) -> None:
        session = self._open.pop(id, None)
        if session is not None and session.task is not None:
            session.task.cancel()
            await asyncio.wait([session.task])

    def end_streams(self) -> None:
        """End the streams that are open for whatever a server might say."""
        self._modern.end_streams()

    async def close(self) -> None:
        """End every session."""
        await asyncio.gather(self._modern.close(), *(self._end(id) for id in list(self._open)))


@dataclass(eq=False)
class _Open:
    """A session that is open."""

    transport: StreamableHTTPServerTransport
    task: asyncio.Task[None] | None = None
    ready: asyncio.Event = field(default_factory=asyncio.Event)
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while no response to a POST is being written."""
    posts: int = 0

    def __post_init__(self) -> None:
        """Nothing was asked yet."""
        self.answered.set()

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of this session."""
        if scope["method"] != "POST":
            await self.transport.handle_request(scope, receive, send)
            return
        self.posts += 1
        self.answered.clear()
        try:
            await self.transport.handle_request(scope, receive, send)
        finally:
            self.posts -= 1
            if not self.posts:
                self.answered.set()


class _HttpClient:
    """One client, whose requests come by POST."""

    def __init__(self, incoming: Any, outgoing: Any) -> None:
        self._incoming, self._outgoing = incoming, outgoing
        self._unanswered: dict[RequestId, Callable[[], Awaitable[None]]] = {}
        self._headers: dict[RequestId, Mapping[str, str]] = {}

    async def receive(self) -> Message | None:
        """The next message of any of its requests."""
        while True:
            try:
                item = await self._incoming.receive()
            except (anyio.EndOfStream, anyio.ClosedResourceError):
                return None
            # An exception stands for a body that is no message; the transport has answered it.
            if not isinstance(item, SessionMessage):
                continue
            message: Message = item.message.model_dump(mode="json", by_alias=True, exclude_unset=True)
            if "method" in message and (id := id_of(message)) is not None:
                self._note(id, item.metadata)
            return message

    def _note(self, id: RequestId, metadata: Any) -> None:
        if isinstance(metadata, ServerMessageMetadata):
            if metadata.on_request_unanswered is not None:
                self._unanswered[id] = metadata.on_request_unanswered
            if isinstance(metadata.request_context, Request):
                self._headers[id] = dict(metadata.request_context.headers)

    async def send(self, message: Message, about: RequestId | None = None) -> None:
        """Write to the stream of a request, or to that for what belongs to none."""
        if "method" not in message and (id := id_of(message)) is not None:
            self._unanswered.pop(id, None)
            self._headers.pop(id, None)
        metadata = ServerMessageMetadata(related_request_id=about)
        try:
            await self._outgoing.send(SessionMessage(jsonrpc_message_adapter.validate_python(whole(message)), metadata))
        except (anyio.ClosedResourceError, anyio.BrokenResourceError) as error:
            raise LinkError("the session is closed", code="lost", sent=False) from error

    async def forget(self, id: RequestId) -> None:
        """End the response of a request that was cancelled."""
        self._headers.pop(id, None)
        if (end := self._unanswered.pop(id, None)) is not None:
            await end()

    def headers(self, id: RequestId) -> Mapping[str, str]:
        """Of the POST that a request came by."""
        return self._headers.get(id, {})

    def reason(self) -> str:
        """Clients leave by ending their session."""
        return ""


def _refusal(status: int, code: int, text: str) -> JSONResponse:
    return JSONResponse({"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": text}}, status_code=status)
