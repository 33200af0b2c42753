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

__all__ = ["Answers", "parsed"]

IN_ORDER = 0
"""Correlation id of an answer that belongs to the question asked before it."""


class Answers(MessageStream):
    """Asks, and hands each answer to whoever waits for it."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__()
        self._path = path
        self._timeout_s = timeout_s
        # In the order of asking, which is that of their deadlines, too: all may take the same time.
        self._waiting: dict[int, tuple[float, asyncio.Future[Any]]] = {}
        self._unsent: dict[int, bytes] = {}
        """Questions for which the socket has no room."""
        self._queue: dict[asyncio.Future[bytes], bytes] = {}
        """Questions in the plain form that wait for their turn."""
        self._clock: asyncio.TimerHandle | None = None
        self._reason = LinkError(f"the connection to {path} ended before the answer", code="lost", sent=True)

    def ask(self, id: int, question: bytes) -> asyncio.Future[Any]:
        """Send a question in a frame.

        Returns:
            The `InvokeHookResponse` that answers it; or a `LinkError` with code `timeout`, `lost` or `protocol`.

        Raises:
            LinkError: With code `too_large`; nothing was sent.
        """
        _check_size(question)
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._send(id, question, answer)
        return answer

    def ask_in_order(self, question: bytes) -> asyncio.Future[bytes]:
        """Send a question in the plain form, once those before it are answered.

        Returns:
            The message that answers it; or a `LinkError`, which says whether the question was sent.

        Raises:
            LinkError: With code `too_large`; nothing was sent.
        """
        _check_size(question)
        answer: asyncio.Future[bytes] = self._loop.create_future()
        if IN_ORDER in self._waiting:
            self._queue[answer] = question
        else:
            self._send(IN_ORDER, question, answer)
        return answer

    def give_up(self, id: int, answer: asyncio.Future[Any]) -> None:
        """Nobody waits for the answer to a question in a frame any more: tell the server."""
        self._waiting.pop(id, None)
        _fetch(answer)
        if self._unsent.pop(id, None) is None:
            self.write(messages.InvokeHookRequest(correlation_id=id, cancel=True).SerializeToString())

    def give_up_in_order(self, answer: asyncio.Future[bytes]) -> None:
        """Nobody waits for that answer any more. One that was asked for, and has not come, ends the connection."""
        _fetch(answer)
        _, under_way = self._waiting.get(IN_ORDER, (0.0, None))
        if self._queue.pop(answer, None) is None and answer is under_way:
            # SECURITY: whatever comes now would be taken for the answer to the next question.
            self._end(self._reason)

    def _send(self, id: int, question: bytes, answer: asyncio.Future[Any]) -> None:
        deadline = self._loop.time() + self._timeout_s
        self._waiting[id] = deadline, answer
        if self._clock is None:
            self._clock = self._loop.call_at(deadline, self._expire)
        if self.congested:
            self._unsent[id] = question
        else:
            self.write(question)

    # What the stream says.

    def message_received(self, message: bytes) -> None:
        try:
            response = parsed(messages.InvokeHookResponse, message)
        except LinkError as error:
            self._end(error)
            return
        id = response.correlation_id
        _, answer = self._waiting.pop(id, (0.0, None))
        if id == IN_ORDER:
            self._answer_in_order(answer, message)
        elif answer is not None and not answer.done():
            answer.set_result(response)
        # A late answer with an id is nobody's any more.

    def _answer_in_order(self, answer: asyncio.Future[Any] | None, message: bytes) -> None:
        if answer is None:
            self._end(LinkError(f"{self._path} answered what nobody had asked", code="protocol", sent=True))
            return
        if not answer.done():
            answer.set_result(message)
        # The next one leaves now: the server works while this end makes use of the answer.
        while self._queue:
            following = next(iter(self._queue))
            question = self._queue.pop(following)
            if not following.done():
                self._send(IN_ORDER, question, following)
                return

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
        queue, self._queue = self._queue, {}
        self._unsent.clear()
        for _, answer in waiting.values():
            if not answer.done():
                answer.set_exception(reason)
        for answer in queue:
            if not answer.done():
                text = f"the connection to {self._path} ended before the question was sent"
                answer.set_exception(LinkError(text, code="lost", sent=False))

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
            if id == IN_ORDER:
                self.give_up_in_order(answer)
                return
            self.give_up(id, answer)


def _check_size(question: bytes) -> None:
    if len(question) > MAX_MESSAGE_SIZE:
        text = f"a question of {len(question)} bytes is over the {MAX_MESSAGE_SIZE} bytes that the socket carries"
        raise LinkError(text, code="too_large", sent=False)


def _fetch(answer: asyncio.Future[Any]) -> None:
    """Look at an answer whose caller had just been cancelled: an error that nobody fetches is logged as forgotten."""
    if answer.done() and not answer.cancelled():
        answer.exception()


def parsed(kind: Any, data: bytes) -> Any:
    """A message.

    Raises:
        LinkError: With code `protocol`: it is none.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise LinkError("the server sent something that is no message", code="protocol", sent=True) from error
