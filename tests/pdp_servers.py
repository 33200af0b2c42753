"""Policy decision points that tests run: real HTTP servers that speak OPA's data API and AuthZEN as their pages say.

A server keeps what it was asked, and can be told to misbehave.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote

HANG_AT_MOST_S = 120


@dataclass(frozen=True)
class Reply:
    """What a server answers."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    drip: bool = False
    """Send byte after byte, each within any read timeout, and never end."""


@dataclass(frozen=True)
class Asked:
    """One request, as it arrived."""

    path: str
    headers: dict[str, str]
    body: Any


Engine = Callable[[str, Any], Reply]


def as_json(document: Any, status: int = 200) -> Reply:
    return Reply(json.dumps(document).encode(), status, {"Content-Type": "application/json"})


class PdpServer:
    """A running server."""

    def __init__(self, engine: Engine, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[Asked] = []
        self.misbehave: list[Callable[[BaseHTTPRequestHandler], Reply | None]] = []
        """Take the place of the engine for one request each; `None` says that everything has been done."""
        self.arrived = threading.Event()
        self.released = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                try:
                    body = json.loads(raw)
                except ValueError:
                    body = raw
                server.asked.append(Asked(self.path, dict(self.headers), body))
                server.arrived.set()
                reply = server.misbehave.pop(0)(self) if server.misbehave else engine(self.path, body)
                if reply is not None:
                    server.send(self, reply)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # A hung request must not keep the server from closing.
        self._http.daemon_threads = False
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
        self._scheme = "https" if tls is not None else "http"
        self._http.handle_error = lambda request, client_address: None
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02})

    @property
    def url(self) -> str:
        """Without a path. By name, as addresses of this machine are refused."""
        return f"{self._scheme}://localhost:{self._http.server_address[1]}"

    def send(self, handler: BaseHTTPRequestHandler, reply: Reply) -> None:
        handler.send_response(reply.status)
        for name, value in reply.headers.items():
            handler.send_header(name, value)
        if not reply.drip:
            handler.send_header("Content-Length", str(len(reply.body)))
            handler.end_headers()
            handler.wfile.write(reply.body)
            return
        handler.end_headers()
        while not self.released.wait(0.01):
            handler.wfile.write(b" ")
            handler.wfile.flush()

    def hang(self, handler: BaseHTTPRequestHandler) -> Reply | None:
        """Answer nothing until the server is closed."""
        self.released.wait(HANG_AT_MOST_S)
        handler.close_connection = True
        return None

    def drop(self, handler: BaseHTTPRequestHandler) -> Reply | None:
        """Close the connection without an answer, as a killed server does."""
        handler.close_connection = True
        return None

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join(HANG_AT_MOST_S)


@contextmanager
def running(engine: Engine, tls: ssl.SSLContext | None = None) -> Iterator[PdpServer]:
    """A server for a while."""
    server = PdpServer(engine, tls)
    server.start()
    try:
        yield server
    finally:
        server.close()


Rule = Callable[[Any], Any]
UNDEFINED = object()
"""What a rule of OPA is when no body holds."""


def opa(rules: dict[str, Rule]) -> Engine:
    """OPA's data API over rules: path below `/v1/data/` -> input -> document.

    Source: Open Policy Agent, REST API, "Get a Document (with Input)": an undefined document has no `result`; a body
    that is no JSON object is a 400 with code and message.
    """

    def answer(path: str, body: Any) -> Reply:
        if not path.startswith("/v1/data/") or not isinstance(body, dict):
            return as_json({"code": "invalid_parameter", "message": "body contains malformed input document"}, 400)
        rule = rules.get("/".join(unquote(part) for part in path.removeprefix("/v1/data/").split("/")))
        result = UNDEFINED if rule is None else rule(body.get("input"))
        return as_json({} if result is UNDEFINED else {"result": result})

    return answer


def authzen(policy: Callable[[dict[str, Any]], Any]) -> Engine:
    """AuthZEN's evaluation endpoints over one policy: request -> decision, or a whole response.

    Source: OpenID AuthZEN, Authorization API 1.0: members that a request must have, else status 400.
    """
    required = {"subject": ("type", "id"), "action": ("name",), "resource": ("type", "id")}

    def evaluate(request: Any) -> Any:
        decided = policy(request)
        return decided if isinstance(decided, dict) else {"decision": decided}

    def answer(path: str, body: Any) -> Reply:
        requests = body.get("evaluations") if path == "/access/v1/evaluations" else [body]
        if path not in ("/access/v1/evaluation", "/access/v1/evaluations"):
            return as_json({}, 404)
        for request in requests:
            for name, members in required.items():
                given = request.get(name)
                if not isinstance(given, dict) or not all(isinstance(given.get(each), str) for each in members):
                    return Reply(f"{name} is not as it must be".encode(), 400)
        if path == "/access/v1/evaluations":
            return as_json({"evaluations": [evaluate(request) for request in requests]})
        return as_json(evaluate(body))

    return answer
