"""HTTP hooks for any ASGI application: Starlette, FastAPI, or a plain callable.

`http_pre_request` runs before the application sees a request, `http_post_request` before the client sees the response.
The request is open meanwhile (`cpex.framework.guard.current_request`), so tools that handlers call through the guard
belong to it. Needs no package.

Source: docs/adapters/asgi.md; https://asgi.readthedocs.io/en/latest/specs/www.html.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any

from cpex.framework.errors import PluginViolationError
from cpex.framework.extensions import Extensions
from cpex.framework.extensions.http import HttpExtension
from cpex.framework.guard import HTTP, Operation, Request
from cpex.framework.guard.operations import HttpResponse
from cpex.framework.hooks.http import HttpAuthResolveUserPayload, HttpHeaderPayload, HttpPreRequestPayload
from cpex.framework.models.result import PluginViolation

if TYPE_CHECKING:
    from cpex.framework.guard.facts import RequestFacts
    from cpex.framework.manager import PluginManager

__all__ = ["GuardMiddleware"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
RawHeaders = list[tuple[bytes, bytes]]

_RESOLVE_USER = "http_auth_resolve_user"
_FORBIDDEN = 403
_UNAUTHORIZED = 401
_POLICY_VIOLATION = 1008
"""WebSocket close code (RFC 6455, section 7.4.1); before the handshake's end a server answers 403 instead."""


class GuardMiddleware:
    """Middleware that runs the HTTP hooks around an application.

        app.add_middleware(GuardMiddleware, manager=manager)

    A denial is answered with the violation's `http_status_code` (without one 403, or 401 where nobody knows who asks)
    and `http_headers`, and the body `{"detail": reason, "code": code}`. A plugin that fails under `on_error: fail` is
    an exception, which servers answer with 500.
    """

    def __init__(
        self,
        app: App,
        manager: PluginManager,
        *,
        facts: Callable[[Scope], RequestFacts] | None = None,
        lifespan: bool = True,
    ) -> None:
        """Wrap an application.

        Args:
            facts: What is known of a request, from its ASGI scope: user, tenant, session.
            lifespan: Start the manager's plugins when the application starts, and shut them down when it ends.
        """
        self._app = app
        self._manager = manager
        self._facts = facts
        self._lifespan = lifespan

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        elif scope["type"] in ("http", "websocket"):
            await self._serve(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def starting() -> Message:
            message = await receive()
            if self._lifespan and message["type"] == "lifespan.startup":
                await self._manager.initialize()
            return message

        try:
            await self._app(scope, starting, send)
        finally:
            if self._lifespan:
                await self._manager.shutdown()

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _joined(scope["headers"])
        facts: RequestFacts = {**self._facts(scope)} if self._facts is not None else {}
        given = facts.get("extensions") or Extensions()
        if given.http is None:
            facts["extensions"] = given.model_copy(update={"http": HttpExtension(headers=headers)})
        answer = _Answer(send, scope["type"] == "websocket")
        async with self._manager.request(**facts) as request:
            scope["cpex.request"] = request
            try:
                await self._guarded(request, scope, headers, receive, answer)
            except PluginViolationError as denial:
                # One of these hooks, or of a tool that the application let go through.
                if answer.started:
                    raise
                await answer.deny(denial.violation or _unexplained(denial), answer.status_of(denial))

    async def _guarded(
        self, request: Request, scope: Scope, headers: dict[str, str], receive: Receive, answer: _Answer
    ) -> None:
        payload = _payload(scope, headers)
        if not request.guards(HTTP) and not request.manager.has_hooks_for(_RESOLVE_USER):
            await self._app(scope, receive, answer.send)
            return
        async with request.operation(HTTP, payload) as operation:
            answer.operation = operation
            ready = await operation.before()
            scope["headers"] = _with_changes(scope["headers"], headers, ready.headers.root)
            await self._resolve_user(request, _payload(scope, ready.headers.root), answer)
            await self._app(scope, receive, answer.send)
            if not answer.started and not answer.is_websocket:
                raise RuntimeError("the application ended without an answer; see that it sends `http.response.start`")
            if answer.is_websocket:
                # A conversation has no response whose headers could be judged.
                await operation.after(HttpResponse(101, {}))

    async def _resolve_user(self, request: Request, payload: HttpPreRequestPayload, answer: _Answer) -> None:
        if not request.manager.has_hooks_for(_RESOLVE_USER):
            return
        scheme, _, credentials = (payload.headers.get("authorization") or "").partition(" ")
        question = HttpAuthResolveUserPayload.model_construct(
            credentials={"scheme": scheme, "credentials": credentials.strip()} if scheme else None,
            headers=payload.headers,
            client_host=payload.client_host,
            client_port=payload.client_port,
        )
        answer.resolving = True
        reply = (await request.ask(_RESOLVE_USER, question)).modified_payload
        answer.resolving = False
        if isinstance(reply, dict):
            request.context.user = reply


class _Answer:
    """The way to the client: holds the response until the hooks after the request have seen it."""

    def __init__(self, send: Send, is_websocket: bool) -> None:
        self._send = send
        self.is_websocket = is_websocket
        self.operation: Operation | None = None
        self.started = False
        self.denied = False
        self.resolving = False

    async def send(self, message: Message) -> None:
        """What the application sends with."""
        if self.denied:
            return
        if message["type"] == "http.response.start" and self.operation is not None:
            await self._start(self.operation, message)
        else:
            self.started = self.started or message["type"] == "http.response.start"
            await self._send(message)

    async def _start(self, operation: Operation, message: Message) -> None:
        raw: RawHeaders = list(message.get("headers", []))
        shown = _joined(raw)
        try:
            response = await operation.after(HttpResponse(message["status"], shown))
        except PluginViolationError as denial:
            # The application knows nothing of it: it goes on talking to nobody.
            operation.failed(denial)
            await self.deny(denial.violation or _unexplained(denial), self.status_of(denial))
            return
        self.started = True
        changed = {**operation.http_headers, **response.headers}
        await self._send({**message, "headers": _with_changes(raw, shown, changed)})

    def status_of(self, denial: PluginViolationError) -> int:
        """The status that the violation asks for, else the one that fits."""
        asked = denial.violation.http_status_code if denial.violation is not None else None
        return asked or (_UNAUTHORIZED if self.resolving else _FORBIDDEN)

    async def deny(self, violation: PluginViolation, status: int) -> None:
        """Answer with a denial."""
        self.denied = self.started = True
        if self.is_websocket:
            await self._send({"type": "websocket.close", "code": _POLICY_VIOLATION, "reason": ""})
            return
        body = json.dumps({"detail": violation.reason, "code": violation.code}).encode()
        headers = {"content-type": "application/json", **(violation.http_headers or {})}
        raw = [*_raw(headers.items()), (b"content-length", str(len(body)).encode())]
        await self._send({"type": "http.response.start", "status": status, "headers": raw})
        await self._send({"type": "http.response.body", "body": body})


def _payload(scope: Scope, headers: dict[str, str]) -> HttpPreRequestPayload:
    client = scope.get("client") or (None, None)
    # Not validated, which would warn: plugins without capabilities have no other place to read headers from.
    return HttpPreRequestPayload.model_construct(
        path=scope["path"],
        method=scope.get("method", "GET"),
        client_host=client[0],
        client_port=client[1],
        headers=HttpHeaderPayload(headers),
    )


def _unexplained(denial: PluginViolationError) -> PluginViolation:
    return PluginViolation(reason="denied", description=denial.message, code="plugin_violation")


def _joined(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name, in lower case; repeated ones joined (RFC 9110, section 5.3)."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _with_changes(raw: RawHeaders, shown: Mapping[str, str], now: Mapping[str, str]) -> RawHeaders:
    """The headers with those that plugins set; others keep their lines, `set-cookie` and the like included."""
    changes = {name: value for name, value in now.items() if shown.get(name.lower()) != value}
    if not changes:
        return raw
    replaced = {name.lower() for name in changes}
    kept = [(name, value) for name, value in raw if name.decode("latin-1").lower() not in replaced]
    return [*kept, *_raw(changes.items())]


def _raw(headers: Iterable[tuple[str, str]]) -> RawHeaders:
    lines = []
    for name, value in headers:
        # SECURITY: a line break in a header that a plugin made of foreign text would begin another header.
        if any(character in name + value for character in "\r\n\0"):
            raise ValueError(f"header `{name[:80]!r}` of a plugin holds a line break; headers must be one line")
        lines.append((name.lower().encode("latin-1"), value.encode("latin-1")))
    return lines
