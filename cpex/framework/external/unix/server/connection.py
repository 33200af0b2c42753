"""One client of the serving end. Lives as long as its connection; its questions end with it.

Messages have no tag, so what kind of question one is, is told by what it parses as, in a fixed order. Questions without
a correlation id are answered strictly in the order of asking; those with one run side by side.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from google.protobuf.message import DecodeError

from cpex.framework.external.answering import configuration, configurations, failed, hook_answer
from cpex.framework.external.eager import EagerTasks
from cpex.framework.external.port import Service
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.unix.protocol import MAX_MESSAGE_SIZE, ProtocolError
from cpex.framework.external.unix.stream import MessageStream

__all__ = ["Connection"]

logger = logging.getLogger(__name__)

IDLE_LIMIT_S = 300.0
"""Seconds after which a connection without a question is closed."""
MAX_AT_ONCE = 1000
"""Questions of one connection that run side by side; further ones are not read before one of them is answered."""
_LONGEST_QUESTION_ABOUT_ALL = 2
"""Bytes: a message that short and without a name in it asks about all plugins."""
_IN_ORDER = 0
"""Correlation id of a question that has none."""


class Connection(MessageStream):
    """Answers one client's questions."""

    def __init__(self, service: Service, tasks: EagerTasks, connections: set[Connection]) -> None:
        """Set up.

        Args:
            connections: Holds this one from when it is made until its socket and all of its tasks have ended.
        """
        super().__init__()
        self._service = service
        self._tasks = tasks
        self._connections = connections
        self._running: dict[int, asyncio.Task[None]] = {}
        self._asked_s = self._loop.time()
        self._idle: asyncio.TimerHandle | None = None
        self._ending = False
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done once nothing of it is left."""

    def end(self) -> None:
        """Cancel what is running and close the socket once the answers that are written have left."""
        self._ending = True
        for task in self._running.values():
            task.cancel()
        self.close()

    # What the event loop says.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._connections.add(self)
        self._idle = self._loop.call_later(IDLE_LIMIT_S, self._look_for_questions)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._idle is not None:
            self._idle.cancel()
        self.end()
        self._end_if_over()

    def broken(self, error: ProtocolError | None) -> None:
        self._ending = True
        # A client that has said its last word may still wait for answers in order. Those with an id are nobody's: who
        # has closed both ways cannot be told from who has closed one.
        for id, task in self._running.items():
            if id != _IN_ORDER or error is not None:
                task.cancel()
        if error is not None:
            logger.warning("A client sent no message, and its connection was closed: %s", error)
            self.close()
        self._end_if_over()

    def held(self) -> bool:
        return self.congested or _IN_ORDER in self._running or len(self._running) >= MAX_AT_ONCE

    def flowing(self) -> None:
        self.go_on()
        self._end_if_over()

    def message_received(self, message: bytes) -> None:
        self._asked_s = self._loop.time()
        request = _parsed(messages.InvokeHookRequest, message)
        id = _IN_ORDER if request is None else request.correlation_id
        running = self._running.get(id)
        if id and request.cancel:
            if running is not None:
                running.cancel()
        elif running is not None:
            self.broken(ProtocolError(f"two questions at once have the correlation id {id}"))
        elif (task := self._tasks.begin(self._answer(id, request, message))) is not None:
            self._running[id] = task
            task.add_done_callback(lambda _: self._done(id))

    # Answers.

    def _done(self, id: int) -> None:
        was_held = self.held()
        del self._running[id]
        if was_held:
            self.go_on()
        self._end_if_over()

    async def _answer(self, id: int, request: Any, message: bytes) -> None:
        try:
            if id and request.frame:
                frame = await self._service.exchange(request.frame)
                answer: Any = messages.InvokeHookResponse(frame=frame, correlation_id=id)
            elif id:
                answer = await hook_answer(self._service, request)
                answer.correlation_id = id
            else:
                answer = await self._answer_in_order(request, message)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            # Nobody but the plugin itself has cancelled it, and somebody waits.
            answer = _failure(id, request, "the plugin's handler cancelled itself", "INTERNAL_ERROR")
        # What else may fail is ours; whoever waits hears that the connection is closed.
        except Exception:
            logger.exception("A question could not be answered, and its connection is closed")
            self.close()
            return
        data = answer.SerializeToString()
        if len(data) > MAX_MESSAGE_SIZE:
            text = f"the answer of {len(data)} bytes is over the {MAX_MESSAGE_SIZE} bytes that the socket carries"
            data = _failure(id, request, text, "TOO_LARGE").SerializeToString()
        self.write(data)

    async def _answer_in_order(self, invoke: Any, message: bytes) -> Any:
        if invoke is not None and invoke.hook_type and invoke.plugin_name:
            return await hook_answer(self._service, invoke)
        about = _parsed(messages.GetPluginConfigRequest, message)
        if about is not None and about.name:
            return await configuration(self._service, about)
        if len(message) <= _LONGEST_QUESTION_ABOUT_ALL:
            return await configurations(self._service)
        return failed(messages.InvokeHookRequest(), "Unknown message type", "UNKNOWN_MESSAGE")

    # The end.

    def _look_for_questions(self) -> None:
        left = self._asked_s + IDLE_LIMIT_S - self._loop.time()
        if self._running:
            left = IDLE_LIMIT_S
        if left > 0:
            self._idle = self._loop.call_later(left, self._look_for_questions)
        else:
            logger.debug("A connection was idle for %gs and is closed", IDLE_LIMIT_S)
            self.close()

    def _end_if_over(self) -> None:
        if self._running:
            return
        if self._ending and not self.held():
            self.close()
        if self.gone.done() and not self.ended.done():
            self._connections.discard(self)
            self.ended.set_result(None)


def _failure(id: int, request: Any, message: str, code: str) -> messages.InvokeHookResponse:
    answer = failed(request if request is not None else messages.InvokeHookRequest(), message, code)
    answer.correlation_id = id
    return answer


def _parsed(kind: Any, data: bytes) -> Any:
    try:
        return kind.FromString(data)
    except DecodeError:
        return None
