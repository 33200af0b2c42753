"""One server of a session: requests to it, each with its answer, and what it sends by itself."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from typing import Any

from cpex.framework.external.port import LinkError
from cpex.proxy.eras import LISTEN, renamed
from cpex.proxy.errors import CONNECTION_CLOSED, INTERNAL, TIMED_OUT, AnswerError
from cpex.proxy.port import Connection, Message, RequestId, id_of

__all__ = ["ProgressToken", "Server", "progress_token"]

logger = logging.getLogger(__name__)

ProgressToken = int | str
_FAREWELL_S = 1.0
"""Seconds for telling a server that nobody waits any more."""


class Server:
    """A connection to a server. Requests get ids of its own, so that no answer can be taken for another's."""

    def __init__(self, name: str, connection: Connection | None, reason: str = "") -> None:
        """Take over a connection, or keep why there is none."""
        self.name = name
        self.connection = connection
        self.capabilities: dict[str, Any] = {}
        self.reason = reason
        self._ids = itertools.count(1)
        self._waiting: dict[RequestId, asyncio.Future[Message]] = {}
        self._names: dict[RequestId, RequestId] = {}
        """From ids of requests here to those of the client: subscriptions are called by them."""
        self._deadlines: dict[ProgressToken, tuple[asyncio.Timeout, float]] = {}

    @property
    def is_open(self) -> bool:
        """Whether it can still be asked."""
        return self.connection is not None

    async def request(
        self,
        method: str,
        params: Any,
        *,
        about: RequestId | None = None,
        timeout_s: float | None = None,
        cancelled: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Ask, and wait for the result. When cancelled, the server is told so.

        Args:
            params: As the client sent them; `None` when it sent none.
            timeout_s: Seconds without an answer or a report of progress.
            cancelled: What the server is told of a cancellation, beside the id; may be filled in until then.

        Raises:
            AnswerError: The server answered with an error, did not answer in time, or has ended.
        """
        id = next(self._ids)
        waiter: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[id] = waiter
        if about is not None and method == LISTEN:
            self._names[id] = about
        token = progress_token(params)
        try:
            async with asyncio.timeout(timeout_s) as deadline:
                if timeout_s is not None and token is not None:
                    self._deadlines[token] = (deadline, timeout_s)
                await self._send({"id": id, "method": method} | _given(params), about)
                message = await waiter
        except TimeoutError as error:
            await self._give_up(id, {"reason": f"no answer within {timeout_s:g}s"})
            text = f"server `{self.name}` did not answer `{method}` within {timeout_s:g}s; it was told to stop"
            raise AnswerError.of(TIMED_OUT, text) from error
        except asyncio.CancelledError:
            await self._give_up(id, cancelled or {})
            raise
        finally:
            self._waiting.pop(id, None)
            self._names.pop(id, None)
            if token is not None:
                self._deadlines.pop(token, None)
        return _result_of(message, self.name)

    async def _give_up(self, id: RequestId, told: dict[str, Any]) -> None:
        # Whoever waits for the error must not wait for a server that takes nothing any more.
        with contextlib.suppress(AnswerError, TimeoutError):
            async with asyncio.timeout(_FAREWELL_S):
                await self.notify("notifications/cancelled", {**told, "requestId": id})

    async def notify(self, method: str, params: Any) -> None:
        """Tell.

        Raises:
            AnswerError: The server has ended.
        """
        await self._send({"method": method} | _given(params), None)

    async def reply(self, message: Message) -> None:
        """Answer a request of the server's.

        Raises:
            AnswerError: The server has ended.
        """
        await self._send(message, None)

    async def _send(self, message: Message, about: RequestId | None) -> None:
        if self.connection is None:
            raise self._ended()
        try:
            await self.connection.send({"jsonrpc": "2.0"} | message, about)
        except LinkError as error:
            raise AnswerError.of(CONNECTION_CLOSED, f"server `{self.name}`: {error}") from error

    async def receive(self) -> Message | None:
        """The next request or notification of the server's; answers go to whoever waits for them.

        `None` when it has ended: whoever waited then has been told.
        """
        assert self.connection is not None, "asked of open servers only"
        while (message := await self.connection.receive()) is not None:
            message = renamed(message, self._names) if self._names else message
            if "method" in message:
                if not _fits(message):
                    # Over HTTP nobody could write it, and who cannot write is taken for one that has left.
                    logger.warning("Server `%s` sent what is no message of the protocol; it was left out", self.name)
                    continue
                self._prolong(message)
                return message
            id = id_of(message)
            waiter = self._waiting.get(id) if id is not None else None
            # An answer that nobody waits for came after a cancellation.
            if waiter is not None and not waiter.done():
                waiter.set_result(message)
        self.close(self.connection.reason() or "the server closed the connection")
        return None

    def close(self, reason: str) -> None:
        """Ask no more, and tell those who wait."""
        self.connection = None
        self.reason = self.reason or reason
        for waiter in self._waiting.values():
            if not waiter.done():
                waiter.set_exception(self._ended())
        self._waiting.clear()

    def _ended(self) -> AnswerError:
        return AnswerError.of(CONNECTION_CLOSED, f"server `{self.name}`: {self.reason}")

    def _prolong(self, message: Message) -> None:
        if message["method"] == "notifications/progress" and self._deadlines:
            params = message.get("params")
            token = params.get("progressToken") if isinstance(params, dict) else None
            if isinstance(token, int | str) and token in self._deadlines:
                deadline, timeout_s = self._deadlines[token]
                if not deadline.expired():
                    deadline.reschedule(asyncio.get_running_loop().time() + timeout_s)


def _fits(message: Message) -> bool:
    """Whether a request or notification has the form that the protocol gives them."""
    return isinstance(message["method"], str) and isinstance(message.get("params"), dict | None)


def _given(params: Any) -> dict[str, Any]:
    return {} if params is None else {"params": params}


def progress_token(params: Any) -> ProgressToken | None:
    """What reports of progress about a request are to carry; `None` when nobody asked for any."""
    meta = params.get("_meta") if isinstance(params, dict) else None
    token = meta.get("progressToken") if isinstance(meta, dict) else None
    return token if isinstance(token, int | str) else None


def _well_formed(error: dict[str, Any]) -> dict[str, Any]:
    """A server's error with a code and a message as clients can read them, even where it has others."""
    code, message = error.get("code"), error.get("message")
    if type(code) is int and isinstance(message, str):
        return error
    return {**error, "code": code if type(code) is int else INTERNAL, "message": str(message)}


def _result_of(message: Message, server: str) -> dict[str, Any]:
    error, result = message.get("error"), message.get("result")
    if isinstance(error, dict):
        raise AnswerError(_well_formed(error))
    if not isinstance(result, dict):
        raise AnswerError.of(CONNECTION_CLOSED, f"server `{server}` answered with neither a result nor an error")
    return result
