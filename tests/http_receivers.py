"""An HTTP server of the tests' own that takes posts and answers as it is told, on a real socket."""

from __future__ import annotations

import json
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WAIT_S = 90


@dataclass(frozen=True)
class Received:
    """One request that arrived whole."""

    headers: dict[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        """The records of a webhook."""
        found: list[dict[str, Any]] = json.loads(self.body)["events"]
        return found


Answer = Callable[[BaseHTTPRequestHandler], None]


class Receiver:
    """Answers each request with the next of `answers`, then with status 204."""

    def __init__(self, port: int = 0, *, keeps_connections: bool = False) -> None:
        self.protocol = "HTTP/1.1" if keeps_connections else "HTTP/1.0"
        self.answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.requests: queue.SimpleQueue[Received] = queue.SimpleQueue()
        self._server = ThreadingHTTPServer(("127.0.0.1", port), _handler_of(self))
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def port(self) -> int:
        return self._server.server_port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/hook?token=t0psecret"

    def next(self) -> Received:
        """The next request; waits for it."""
        return self.requests.get(timeout=WAIT_S)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(WAIT_S)


def _handler_of(receiver: Receiver) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = receiver.protocol

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            receiver.requests.put(Received({key.lower(): value for key, value in self.headers.items()}, body))
            try:
                answer = receiver.answers.get_nowait()
            except queue.Empty:
                answer = status(204)
            try:
                answer(self)
            except OSError:
                # The client has gone, as the test wanted.
                pass

        def log_message(self, format: str, *args: Any) -> None:
            pass

    return Handler


def status(code: int, **headers: str) -> Answer:
    """An answer of this status and nothing else."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.end_headers()

    return answer


def after(event: threading.Event) -> Answer:
    """An answer that comes when the test says so."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        event.wait(WAIT_S)
        status(204)(handler)

    return answer


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """No answer: the connection is closed."""
    handler.connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def receiving(port: int = 0, *, keeps_connections: bool = False) -> Iterator[Receiver]:
    """A server for the length of a block; it closes each connection after its answer, or leaves that to the client."""
    receiver = Receiver(port, keeps_connections=keeps_connections)
    receiver.start()
    try:
        yield receiver
    finally:
        receiver.stop()
