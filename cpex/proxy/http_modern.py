"""Serving clients over HTTP whose requests each stand for themselves: without a handshake, without a session.

All of them share one connection to the server, which by the protocol keeps nothing of whoever asked before. So every
request gets an id, a progress token and a subscription of its own here, and only what carries one of these is sent to
whoever asked: what a server says without saying for whom goes to nobody.

Source: https://modelcontextprotocol.io/specification/2026-07-28/basic/transports; docs/proxy.md, "Versions of the
protocol".
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mcp.server.streamable_http import check_accept_headers
from mcp.server.transport_security import TransportSecurityMiddleware, TransportSecuritySettings
from mcp.shared.inbound import (
    ERROR_CODE_HTTP_STATUS,
    InboundLadderRejection,
    classify_inbound_request,
    find_duplicated_routing_header,
)
from mcp_types import HEADER_MISMATCH
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cpex.framework.clock import monotonic
from cpex.framework.external.mcp.messages import parsed
from cpex.proxy.eras import DISCOVER, LISTEN, renamed, subscribed
from cpex.proxy.errors import CONNECTION_CLOSED, INVALID_REQUEST, METHOD_NOT_FOUND, TIMED_OUT
from cpex.proxy.port import Connection, Message, RequestId, id_of, written
from cpex.proxy.routes import handshake_needed
from cpex.proxy.server import progress_token

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

__all__ = ["ModernClients", "RunSession"]

logger = logging.getLogger(__name__)

PING_S = 15.0
"""Seconds after which a silent response becomes a stream, and between signs of life on it."""
IDLE_S = 30 * 60
"""Seconds after which the connection to the server is ended that nobody asks through."""
REFUSED_S = 300
"""Seconds for which a server is not asked again whether it can do without a handshake."""
_UNREAD = 1000
"""Messages of one request that its client has not read; it is ended beyond them."""
_STREAM = [
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-cache, no-transform"),
    (b"x-accel-buffering", b"no"),
]

RunSession = Callable[[Connection, Callable[[], None]], Awaitable[None]]
"""Serves a client until it leaves, or no server is left; calls what it is given when it will read no more."""


@dataclass(eq=False)
class _Exchange:
    """A request of a client that is under way."""

    own: int
    """Its id, progress token and subscription on this side."""
    id: RequestId
    token: RequestId | None
    headers: Mapping[str, str]
    method: str
    messages: asyncio.Queue[Message] = field(default_factory=asyncio.Queue)

    def put(self, message: Message) -> None:
        """Something for the client, under the names that it knows."""
        if "method" not in message:
            message = {**message, "id": self.id}
        params = message.get("params")
        if isinstance(params, dict) and params.get("progressToken") == self.own:
            message = {**message, "params": {**params, "progressToken": self.token}}
        self.messages.put_nowait(renamed(message, {self.own: self.id}))


class ModernClients:
    """The clients that need no session, as an application of ASGI."""

    def __init__(self, security: TransportSecuritySettings | None, run_session: RunSession | None) -> None:
        """Set up; the server is connected to by the first request.

        Args:
            run_session: Serves what looks to it like one client; `None` where sessions are needed, which clients are
                told.
        """
        self._security = TransportSecurityMiddleware(security)
        self._run_session = run_session
        self._hub: _Hub | None = None
        self._refused: tuple[float, Message] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request of HTTP."""
        request = Request(scope, receive)
        refusal = await self._security.validate_request(request, is_post=request.method == "POST")
        if refusal is None:
            refusal = _unfit(request)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        message = parsed(await request.body())
        if message is None or not isinstance(message.get("method"), str):
            await _error(None, INVALID_REQUEST, "the body is no single JSON-RPC 2.0 request")(scope, receive, send)
        elif "id" not in message:
            # There is nothing that a client could tell a server here: it cancels by closing the stream.
            await Response(status_code=202)(scope, receive, send)
        elif (refused := _mismatch(request, message)) is not None:
            await _error(id_of(message), refused.code, refused.message, refused.data)(scope, receive, send)
        else:
            await self._answer(request, message, receive, send)

    async def _answer(self, request: Request, message: Message, receive: Receive, send: Send) -> None:
        if message["method"] == DISCOVER and self._refused is not None and monotonic() < self._refused[0]:
            await _answer({**self._refused[1], "id": message["id"]})(request.scope, receive, send)
            return
        if self._run_session is None:
            error = handshake_needed().error
            await _error(id_of(message), error["code"], error["message"])(request.scope, receive, send)
            return
        hub = self._hub
        if hub is None or hub.is_over:
            hub = self._hub = _Hub(self._run_session)
        with hub.asking(message, dict(request.headers)) as exchange:
            gone = asyncio.create_task(_left(receive))
            try:
                await _written(exchange, gone, message["method"], send, self._note)
            finally:
                gone.cancel()

    def _note(self, method: str, answer: Message) -> None:
        """A server that needs a handshake is let go again: the clients will each come with one."""
        error = answer.get("error")
        if method != DISCOVER or error is None or error.get("code") in (CONNECTION_CLOSED, TIMED_OUT):
            return
        self._refused = (monotonic() + REFUSED_S, answer)
        if self._hub is not None:
            self._hub.end_when_quiet()

    def end_streams(self) -> None:
        """End the subscriptions."""
        if self._hub is not None:
            self._hub.end_streams()

    async def close(self) -> None:
        """End what is under way."""
        if self._hub is not None:
            await self._hub.close()


class _Hub:
    """What looks like one client to a session of the proxy: every request of every client, until nobody asks."""

    def __init__(self, run_session: RunSession) -> None:
        self._incoming: asyncio.Queue[Message | None] = asyncio.Queue()
        self._exchanges: dict[RequestId, _Exchange] = {}
        self._ids = itertools.count(1)
        self._idle: asyncio.TimerHandle | None = None
        self._leaving = False
        self.is_over = False
        self._task = asyncio.create_task(self._run(run_session))

    async def _run(self, run_session: RunSession) -> None:
        try:
            await run_session(self, self._over)
        # The end of a task that nobody awaits.
        except Exception:
            logger.exception("The session of the proxy failed that clients without a handshake share")
        finally:
            self._over()

    def _over(self) -> None:
        self.is_over = True
        if self._idle is not None:
            self._idle.cancel()
        self._end(list(self._exchanges.values()), "the connection to the server has ended; ask again")

    def end_streams(self) -> None:
        """End the subscriptions."""
        kept = [exchange for exchange in self._exchanges.values() if exchange.method == LISTEN]
        self._end(kept, "the proxy is being stopped")

    def _end(self, exchanges: list[_Exchange], text: str) -> None:
        for exchange in exchanges:
            self._cancel(exchange.own)
            exchange.put({"jsonrpc": "2.0", "error": {"code": CONNECTION_CLOSED, "message": text}})

    @contextlib.contextmanager
    def asking(self, message: Message, headers: Mapping[str, str]) -> Iterator[_Exchange]:
        """A request is under way while the block is open; one that has no answer at its end is cancelled."""
        own = next(self._ids)
        token = progress_token(message.get("params"))
        params = message["params"]
        if token is not None:
            params = {**params, "_meta": {**params["_meta"], "progressToken": own}}
        exchange = self._exchanges[own] = _Exchange(own, message["id"], token, headers, message["method"])
        if self._idle is not None:
            self._idle.cancel()
        self._incoming.put_nowait({**message, "id": own, "params": params})
        try:
            yield exchange
        finally:
            self._cancel(own)
            self._rest()

    def _cancel(self, own: int) -> None:
        if self._exchanges.pop(own, None) is not None:
            cancelled = {"method": "notifications/cancelled", "params": {"requestId": own}}
            self._incoming.put_nowait({"jsonrpc": "2.0"} | cancelled)

    def _rest(self) -> None:
        if not self._exchanges and not self.is_over:
            loop = asyncio.get_running_loop()
            self._idle = loop.call_later(0 if self._leaving else IDLE_S, self._incoming.put_nowait, None)

    def end_when_quiet(self) -> None:
        """Let the server go as soon as nobody waits for it."""
        self._leaving = True

    async def close(self) -> None:
        """End what is under way."""
        self._task.cancel()
        await asyncio.wait([self._task])

    # What a session needs of a client.

    async def receive(self) -> Message | None:
        """The next message of any client."""
        message = await self._incoming.get()
        if message is None:
            self.is_over = True
        return message

    async def send(self, message: Message, about: RequestId | None = None) -> None:
        """Hand over to whoever it certainly belongs to. `about` may be a guess, and is not asked."""
        if "method" in message and "id" in message:
            # There are no requests of servers without a handshake. It is told so, rather than left waiting.
            text = "there is no client to ask: nothing was agreed on in a handshake"
            error = {"code": METHOD_NOT_FOUND, "message": text}
            self._incoming.put_nowait({"jsonrpc": "2.0", "id": message["id"], "error": error})
            return
        own = self._owner(message)
        exchange = self._exchanges.get(own) if own is not None else None
        if exchange is None:
            logger.debug("What a server said for nobody in particular was left out: %s", message.get("method"))
            return
        if "method" not in message:
            del self._exchanges[exchange.own]
        elif exchange.messages.qsize() >= _UNREAD:
            logger.warning("A client over HTTP does not read what it asked for; its request is ended")
            self._end([exchange], f"{_UNREAD} messages about the request were not read; it was ended")
            return
        exchange.put(message)

    def _owner(self, message: Message) -> RequestId | None:
        if "method" not in message:
            return id_of(message)
        params = message.get("params")
        if not isinstance(params, dict):
            return None
        token = params.get("progressToken")
        return token if isinstance(token, int) else subscribed(params)

    async def forget(self, id: RequestId) -> None:
        """Nobody waits for what was cancelled."""

    def headers(self, id: RequestId) -> Mapping[str, str]:
        """Of the POST that a request came by."""
        exchange = self._exchanges.get(id)
        return exchange.headers if exchange is not None else {}

    def reason(self) -> str:
        """Clients leave one by one."""
        return ""


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _written(
    exchange: _Exchange, gone: asyncio.Task[None], method: str, send: Send, note: Callable[[str, Message], None]
) -> None:
    """Write what comes for a request until its answer, or until its client has left.

    An answer that comes soon and alone is a plain response; anything else makes it a stream.
    """
    streaming = False
    async for message in _coming(exchange, gone):
        is_answer = message is not None and "method" not in message
        if message is not None and is_answer:
            note(method, message)
            if not streaming:
                await _answer(message)({"type": "http"}, _nothing, send)
                return
        if not streaming:
            streaming = True
            await send({"type": "http.response.start", "status": 200, "headers": _STREAM})
        event = b": ping\r\n\r\n" if message is None else b"event: message\r\ndata: " + written(message) + b"\r\n\r\n"
        await send({"type": "http.response.body", "body": event, "more_body": not is_answer})


async def _coming(exchange: _Exchange, gone: asyncio.Task[None]) -> AsyncIterator[Message | None]:
    """Messages up to the answer; `None` where there was none for a while. Ends early when the client leaves."""
    while True:
        waiting = asyncio.create_task(exchange.messages.get())
        try:
            await asyncio.wait([waiting, gone], timeout=PING_S, return_when=asyncio.FIRST_COMPLETED)
            if gone.done():
                return
            message = waiting.result() if waiting.done() else None
        finally:
            waiting.cancel()
        yield message
        if message is not None and "method" not in message:
            return


async def _nothing() -> Any:
    return {"type": "http.disconnect"}


def _unfit(request: Request) -> Response | None:
    if request.method != "POST":
        return Response(status_code=405, headers={"Allow": "POST"})
    if not all(check_accept_headers(request)):
        return Response(status_code=406)
    return None


def _mismatch(request: Request, message: Message) -> InboundLadderRejection | None:
    """Why a request is refused before anybody looks at it: its headers do not say what its body says."""
    if id_of(message) is None:
        return InboundLadderRejection(INVALID_REQUEST, "a request has a text or a number as its id")
    if (twice := find_duplicated_routing_header(request.headers.items())) is not None:
        return InboundLadderRejection(HEADER_MISMATCH, f"{twice} header appears more than once")
    verdict = classify_inbound_request(message, headers=dict(request.headers))
    return verdict if isinstance(verdict, InboundLadderRejection) else None


def _answer(message: Message) -> Response:
    error = message.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    status = ERROR_CODE_HTTP_STATUS.get(code, 200) if isinstance(code, int) else 200
    return Response(written(message), status_code=status, media_type="application/json")


def _error(id: RequestId | None, code: int, text: str, data: Any = None) -> Response:
    error = {"code": code, "message": text} | ({"data": data} if data is not None else {})
    status = ERROR_CODE_HTTP_STATUS.get(code, 400)
    return JSONResponse({"jsonrpc": "2.0", "id": id, "error": error}, status_code=status)
