"""The asking end's side of a connection: which answer belongs to which question, and for how long it is waited for.

Questions in frames carry a correlation id, so any number of them share one connection and answers come in any order.
A question in the plain form has no id: its answer is the next message. So only one of those is under way at a time, and
one that ends without its answer (a timeout, a cancelled caller) ends the connection with it: the late answer must never
be taken for the next question's.
"""

from __future__ import annotations

import asyncio
from typing import Any

from google.protobuf.message import DecodeError

from cpex.framework.external.port import LinkError
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.unix.protocol import MAX_MESSAGE_SIZE, ProtocolError
from cpex.framework.external.unix.stream import MessageStream

__all__ = ["IN_ORDER", "Answers", "parsed"]

IN_ORDER = 0
"""Correlation id of an answer that belongs to the question asked before it."""


class Answers(MessageStream):
    """Asks, and hands each answer to whoever waits for it."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__()
        self._path = path
        self._timeout_s = timeout_s
        # In the order of asking, which is that of their deadlines, too: all may take the same time.
        self._waiting: dict[int, tuple[float, asyncio.Future[bytes]]] = {}
        self._unsent: dict[int, bytes] = {}
        """Questions for which the socket has no room."""
        self._clock: asyncio.TimerHandle | None = None
        self._reason = LinkError(f"the connection to {path} ended before the answer", code="lost", sent=True)

    def ask(self, id: int, question: bytes) -> asyncio.Future[bytes]:
        """Send a question.

        Returns:
            The message that answers it; or a `LinkError` with code `timeout`, `lost` or `protocol`.

        Raises:
            LinkError: With code `too_large`; nothing was sent.
        """
        if len(question) > MAX_MESSAGE_SIZE:
            text = f"a question of {len(question)} bytes is over the {MAX_MESSAGE_SIZE} bytes that the socket carries"
            raise LinkError(text, code="too_large", sent=False)
        answer: asyncio.Future[bytes] = self._loop.create_future()
        deadline = self._loop.time() + self._timeout_s
        self._waiting[id] = deadline, answer
        if self._clock is None:
            self._clock = self._loop.call_at(deadline, self._expire)
        if self.congested:
            self._unsent[id] = question
        else:
            self.write(question)
        return answer

    def give_up(self, id: int, answer: asyncio.Future[bytes]) -> None:
        """Nobody waits for it any more: tell the server, or end a connection on which its answer has no id."""
        self._waiting.pop(id, None)
        if answer.done() and not answer.cancelled():
            # It came when its caller had just been cancelled; what nobody fetches would be logged as forgotten.
            answer.exception()
        if id == IN_ORDER:
            self.abort()
        elif self._unsent.pop(id, None) is None:
            self.write(messages.InvokeHookRequest(correlation_id=id, cancel=True).SerializeToString())

    # What the stream says.

    def message_received(self, message: bytes) -> None:
        try:
            id = parsed(messages.InvokeHookResponse, message).correlation_id
        except LinkError as error:
            self._end(error)
            return
        _, answer = self._waiting.pop(id, (0.0, None))
        if answer is not None and not answer.done():
            answer.set_result(message)
        elif id == IN_ORDER:
            self._end(LinkError(f"{self._path} answered what nobody had asked", code="protocol", sent=True))
        # A late answer with an id is nobody's any more.

    def broken(self, error: ProtocolError | None) -> None:
        if error is not None:
            self._reason = LinkError(f"{self._path} sent no message: {error}", code="protocol", sent=True)
        self._end(self._reason)

    def flowing(self) -> None:
        while self._unsent and not self.congested:
            self.write(self._unsent.pop(next(iter(self._unsent))))

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._end(self._reason)

    def _end(self, reason: LinkError) -> None:
        self.abort()
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None
        waiting, self._waiting = self._waiting, {}
        self._unsent.clear()
        for _, answer in waiting.values():
            if not answer.done():
                answer.set_exception(reason)

    def _expire(self) -> None:
        """One clock for all: it is set for whoever has waited longest, and not touched when an answer comes."""
        self._clock = None
        now = self._loop.time()
        for id, (deadline, answer) in list(self._waiting.items()):
            if deadline > now:
                self._clock = self._loop.call_at(deadline, self._expire)
                return
            text = f"Request timed out after {self._timeout_s:g}s (`timeout` of the `unix_socket` section)"
            if not answer.done():
                answer.set_exception(LinkError(text, code="timeout", sent=True))
            self.give_up(id, answer)


def parsed(kind: Any, data: bytes) -> Any:
    """A message.

    Raises:
        LinkError: With code `protocol`: it is none.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise LinkError("the server sent something that is no message", code="protocol", sent=True) from error
