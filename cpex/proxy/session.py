"""One client and its servers: who asked what, who is answered, who is told.

Every request of the client is a task, which ends with one answer or, when the client cancels it, with none. Servers'
own requests and notifications go to the client in their order. Nothing is interpreted here but what ties messages
together; what becomes of a request is for `operations`.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cpex.framework.external.port import LinkError
from cpex.proxy.eras import subscribed
from cpex.proxy.errors import INTERNAL, INVALID_REQUEST, AnswerError
from cpex.proxy.operations import Call, Operations
from cpex.proxy.port import Connection, Message, RequestId, id_of
from cpex.proxy.server import ProgressToken, Server, progress_token
from cpex.proxy.upstreams import Upstream

__all__ = ["MAX_IN_FLIGHT", "Session"]

logger = logging.getLogger(__name__)

MAX_IN_FLIGHT = 1000
"""Requests of one client that may be under way at once."""

Key = tuple[type, RequestId]
"""An id with its type: in JSON `1` and `"1"` are two ids."""


class _Asked(NamedTuple):
    """A request of a server's."""

    server: Server
    id: RequestId
    token: ProgressToken | None


class Session:
    """What lies between one client and its servers."""

    def __init__(
        self,
        client: Connection,
        upstreams: Sequence[Upstream],
        operations: Callable[[Sequence[Server]], Operations],
        over: Callable[[], None] | None = None,
    ) -> None:
        """Set up; nothing is connected yet.

        Args:
            operations: Makes what answers the client, given the connections to the servers.
            over: Called when nothing more of the client will be read, and before anything is taken down.
        """
        self._tell_over = over
        self._client = client
        self._upstreams = upstreams
        self._make_operations = operations
        self._servers: list[Server] = []
        self._operations: Operations
        self._calls: dict[Key, tuple[asyncio.Task[None], Call]] = {}
        self._ids = itertools.count(1)
        self._asked: dict[RequestId, _Asked] = {}
        """Requests of servers that wait for the client's answer, by their ids at the client."""
        self._over = asyncio.Event()
        self._answered = False

    async def run(self) -> str:
        """Forward until the client leaves, or no server is left and the client has been told why.

        Returns:
            Why, when the servers have ended; empty when the client has left.
        """
        readers: list[asyncio.Task[None]] = []
        async with contextlib.AsyncExitStack() as stack:
            self._servers = [await self._connected(upstream, stack) for upstream in self._upstreams]
            self._operations = self._make_operations(self._servers)
            try:
                readers.extend(asyncio.create_task(self._read(server)) for server in self._servers if server.is_open)
                readers.append(asyncio.create_task(self._read_client()))
                await self._over.wait()
            finally:
                if self._tell_over is not None:
                    self._tell_over()
                self._operations.close()
                await _ended([*readers, *(task for task, _ in self._calls.values())])
        if not self._is_left_alone():
            return ""
        return " | ".join(server.reason for server in self._servers if not server.is_open)

    async def _connected(self, upstream: Upstream, stack: contextlib.AsyncExitStack) -> Server:
        try:
            return Server(upstream.name, await stack.enter_async_context(upstream.connect()))
        except LinkError as error:
            logger.error("Server `%s`: %s", upstream.name, error)
            return Server(upstream.name, None, str(error))

    def _is_left_alone(self) -> bool:
        return not any(server.is_open for server in self._servers)

    def _end_if_left_alone(self) -> None:
        # Who has asked learns why before the connection ends; who has not yet asked is waited for.
        if self._is_left_alone() and self._answered and not self._calls:
            self._over.set()

    # From the client.

    async def _read_client(self) -> None:
        try:
            while (message := await self._client.receive()) is not None:
                if "method" not in message:
                    await self._answer_server(message)
                elif "id" in message:
                    await self._begin(message)
                else:
                    await self._tell_servers(message)
        finally:
            self._over.set()

    async def _begin(self, message: Message) -> None:
        id = id_of(message)
        method = message["method"]
        if id is None or not isinstance(method, str):
            await self._send(_error(None, INVALID_REQUEST, "a request has a text or a number as its id and its method"))
            return
        key = (type(id), id)
        if key in self._calls or len(self._calls) >= MAX_IN_FLIGHT:
            text = "a request of this id is under way" if key in self._calls else "too many requests are under way"
            await self._send(_error(id, INVALID_REQUEST, text))
            return
        call = Call(id, method, message.get("params"), self._client.headers(id))
        task = asyncio.create_task(self._serve(call))
        self._calls[key] = (task, call)
        task.add_done_callback(lambda _: self._done(key))

    def _done(self, key: Key) -> None:
        self._calls.pop(key, None)
        self._end_if_left_alone()

    async def _serve(self, call: Call) -> None:
        try:
            answer: Message = {"result": await self._operations.answer(call)}
        except AnswerError as error:
            answer = {"error": error.error}
        except asyncio.CancelledError:
            await self._client.forget(call.id)
            raise
        except Exception:
            # A fault of ours must not end the session, nor let the operation pass.
            logger.exception("A request of method `%s` failed inside of the proxy", call.method)
            answer = {"error": {"code": INTERNAL, "message": "the proxy failed; its log says more"}}
        await self._send({"jsonrpc": "2.0", "id": call.id} | answer)
        self._answered = True

    async def _answer_server(self, message: Message) -> None:
        id = id_of(message)
        asked = self._asked.pop(id, None) if id is not None else None
        # An answer that no server waits for came after a cancellation.
        if asked is not None:
            with contextlib.suppress(AnswerError):
                await asked.server.reply({**message, "id": asked.id})

    async def _tell_servers(self, message: Message) -> None:
        method, params = message["method"], message.get("params")
        if method == "notifications/cancelled":
            self._cancel(params if isinstance(params, dict) else {})
            return
        if not self._operations.is_told(method):
            return
        servers = self._servers
        if method == "notifications/progress" and isinstance(params, dict):
            token = params.get("progressToken")
            servers = [
                asked.server for asked in self._asked.values() if asked.token is not None and asked.token == token
            ]
        for server in servers:
            with contextlib.suppress(AnswerError):
                await server.notify(method, params)

    def _cancel(self, params: dict[str, Any]) -> None:
        id = params.get("requestId")
        task, call = self._calls.get((type(id), id), (None, None)) if isinstance(id, int | str) else (None, None)
        # The handshake cannot be cancelled, says the protocol.
        if task is not None and call is not None and call.method != "initialize":
            call.cancelled.update(params)
            task.cancel()

    # From servers.

    async def _read(self, server: Server) -> None:
        while (message := await server.receive()) is not None:
            if "id" in message:
                message = self._asked_by(server, message)
            elif message["method"] == "notifications/cancelled":
                if (told := self._cancelled_by(server, message)) is None:
                    continue
                message = told
            await self._send(message, self._about(server, message))
        self._asked = {id: asked for id, asked in self._asked.items() if asked.server is not server}
        logger.error("Server `%s`: %s", server.name, server.reason)
        self._end_if_left_alone()

    def _asked_by(self, server: Server, message: Message) -> Message:
        """A server's request under an id that no other server's has."""
        id = next(self._ids)
        self._asked[id] = _Asked(server, message["id"], progress_token(message.get("params")))
        return {**message, "id": id}

    def _cancelled_by(self, server: Server, message: Message) -> Message | None:
        params = message.get("params")
        if not isinstance(params, dict):
            return None
        original = params.get("requestId")
        for id, asked in self._asked.items():
            if asked.server is server and asked.id == original:
                del self._asked[id]
                return {**message, "params": {**params, "requestId": id}}
        return None

    def _about(self, server: Server, message: Message) -> RequestId | None:
        """The client's request that a server's message most likely belongs to: by its token, else the latest one."""
        params = message.get("params")
        if isinstance(params, dict) and (id := subscribed(params)) is not None:
            return id
        token = params.get("progressToken") if isinstance(params, dict) else None
        calls = [call for _, call in self._calls.values() if call.server is server]
        for call in calls if token is not None else ():
            if call.progress_token == token:
                return call.id
        return calls[-1].id if calls else None

    async def _send(self, message: Message, about: RequestId | None = None) -> None:
        try:
            await self._client.send(message, about)
        except LinkError:
            # The client has left; the end of its input says so as well.
            self._over.set()


async def _ended(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, Exception):
            logger.error("A session of the proxy ended badly", exc_info=result)


def _error(id: RequestId | None, code: int, text: str) -> Message:
    return {"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": text}}
