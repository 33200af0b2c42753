"""HTTP hooks around real Starlette and FastAPI applications."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from integration.adapters.handlers import hooks_of, recorders
from starlette.applications import Starlette
from starlette.requests import Request as WebRequest
from starlette.responses import JSONResponse, PlainTextResponse, StreamingResponse
from starlette.routing import Route
from support import allow, deny, manager_of, plugin

from cpex.adapters.asgi import GuardMiddleware
from cpex.framework import HttpHeaderPayload, PluginResult, PluginViolation, TenantPluginManager
from cpex.framework.errors import CoverageError
from cpex.framework.guard import current_request
from cpex.framework.models.config import Config
from cpex.framework.models.coverage import CoverageConfig, CoverageMode

PRE, POST = "http_pre_request", "http_post_request"


def headers_of(**headers: str) -> Any:
    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return PluginResult(modified_payload=HttpHeaderPayload(named))

    return handler


async def echo(request: WebRequest) -> JSONResponse:
    response = JSONResponse({"headers": dict(request.headers), "user": current_request.get().context.user})
    response.set_cookie("a", "1")
    response.set_cookie("b", "2")
    return response


def app_of(manager: TenantPluginManager, endpoint: Any = echo, **options: Any) -> Starlette:
    app = Starlette(routes=[Route("/{rest:path}", endpoint, methods=["GET", "POST"])])
    app.add_middleware(GuardMiddleware, manager=manager, **options)
    return app


@asynccontextmanager
async def client_of(app: Any) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(app=app)
    async with httpx2.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def get(app: Any, path: str = "/", **options: Any) -> httpx2.Response:
    async with client_of(app) as client:
        return await client.get(path, **options)


async def test_an_allowed_request_passes_as_it_is() -> None:
    response = await get(app_of(manager_of(plugin(allow, hooks=[PRE, POST]))), headers={"x-a": "1"})
    assert response.status_code == 200
    assert response.json()["headers"]["x-a"] == "1"
    assert response.headers.get_list("set-cookie") == ["a=1; Path=/; SameSite=lax", "b=2; Path=/; SameSite=lax"]


async def test_without_plugins_the_application_answers() -> None:
    assert (await get(app_of(TenantPluginManager(Config())))).status_code == 200


async def test_a_denied_request_never_reaches_the_application() -> None:
    called: list[str] = []

    async def endpoint(request: WebRequest) -> PlainTextResponse:
        called.append(request.url.path)
        return PlainTextResponse("secret")

    response = await get(app_of(manager_of(plugin(deny, hooks=[PRE])), endpoint))
    assert (response.status_code, response.json()) == (403, {"detail": "because", "code": "NO"})
    assert called == []


async def test_status_and_headers_of_a_denial_are_the_violations() -> None:
    async def limit(payload: Any, context: Any) -> PluginResult[Any]:
        violation = PluginViolation(
            reason="slow down", description="", code="RATE", http_status_code=429, http_headers={"Retry-After": "3"}
        )
        return PluginResult(continue_processing=False, violation=violation)

    response = await get(app_of(manager_of(plugin(limit, hooks=[PRE]))))
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")


async def test_a_denied_response_is_withheld_even_when_it_streams() -> None:
    async def stream(request: WebRequest) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"secret"

        return StreamingResponse(parts())

    response = await get(app_of(manager_of(plugin(deny, hooks=[POST])), stream))
    assert (response.status_code, response.json()["code"]) == (403, "NO")


async def test_rewritten_headers_reach_the_application_and_the_client() -> None:
    manager = manager_of(
        plugin(headers_of(x_tenant="acme", Authorization="Bearer other"), "pre", hooks=[PRE]),
        plugin(headers_of(x_seen="yes", Content_Type="application/vnd.api+json"), "post", hooks=[POST]),
    )
    response = await get(app_of(manager), headers={"authorization": "Bearer mine", "x-tenant": "none"})
    seen = response.json()["headers"]
    assert (seen["x-tenant"], seen["authorization"]) == ("acme", "Bearer other")
    assert (response.headers["x-seen"], response.headers["content-type"]) == ("yes", "application/vnd.api+json")
    # What no plugin touched keeps its lines.
    assert len(response.headers.get_list("set-cookie")) == 2


async def test_a_header_with_a_line_break_is_refused() -> None:
    manager = manager_of(plugin(headers_of(x_a="1\r\nset-cookie: admin=1"), hooks=[POST]))
    with pytest.raises(ValueError, match="line break"):
        await get(app_of(manager))


async def test_plugins_see_path_method_client_status_and_headers_by_capability() -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any, extensions: Any) -> PluginResult[Any]:
        status = getattr(payload, "status_code", None)
        seen.append((payload.method, payload.path, payload.client_host, status, extensions.http))
        return PluginResult()

    manager = manager_of(
        plugin(look, "blind", hooks=[PRE, POST]), plugin(look, "sees", hooks=[PRE], capabilities=["read_headers"])
    )
    await get(app_of(manager), "/a", headers={"x-a": "1"})
    assert [each[:4] for each in seen] == [("GET", "/a", "127.0.0.1", None)] * 2 + [("GET", "/a", "127.0.0.1", 200)]
    assert seen[0][4] is None
    assert seen[1][4].headers["x-a"] == "1"


async def test_state_goes_from_the_request_through_tools_to_the_response_and_parallel_requests_are_kept_apart() -> None:
    async def remember(payload: Any, context: Any) -> PluginResult[Any]:
        path = getattr(payload, "path", None) or payload.name
        trail = [*context.get_state("trail", []), path]
        context.set_state("trail", trail)
        return PluginResult(
            modified_payload=HttpHeaderPayload({"x-trail": " ".join(trail)}) if hasattr(payload, "path") else None
        )

    gate = asyncio.Barrier(3)

    async def endpoint(request: WebRequest) -> PlainTextResponse:
        await asyncio.wait_for(gate.wait(), 60)
        open_request = current_request.get()
        assert open_request is request.scope["cpex.request"]
        await open_request.call_tool(f"tool-of-{request.url.path}", {}, lambda: None)
        return PlainTextResponse("ok")

    app = app_of(manager_of(plugin(remember, hooks=[PRE, "tool_pre_invoke", POST])), endpoint)
    async with client_of(app) as client:
        responses = await asyncio.gather(*(client.get(path) for path in ("/a", "/b", "/c")))
    assert [each.headers["x-trail"] for each in responses] == [f"{p} tool-of-{p} {p}" for p in ("/a", "/b", "/c")]


async def test_a_tool_denied_in_a_handler_is_answered_as_a_denial() -> None:
    async def endpoint(request: WebRequest) -> PlainTextResponse:
        await request.scope["cpex.request"].call_tool("shell", {}, lambda: None)
        return PlainTextResponse("never")

    response = await get(app_of(manager_of(plugin(deny), plugin(allow, "http", hooks=[PRE])), endpoint))
    assert (response.status_code, response.json()["code"]) == (403, "NO")


async def test_the_user_is_resolved_by_plugins_and_known_to_later_hooks() -> None:
    async def resolve(payload: Any, context: Any) -> PluginResult[Any]:
        if payload.credentials is None:
            return PluginResult(
                continue_processing=False, violation=PluginViolation(reason="who?", description="", code="NOBODY")
            )
        return PluginResult(modified_payload={"email": payload.credentials["credentials"]})

    app = app_of(manager_of(plugin(resolve, hooks=["http_auth_resolve_user"])))
    assert (await get(app, headers={"authorization": "Bearer ann"})).json()["user"] == {"email": "ann"}
    refused = await get(app)
    assert (refused.status_code, refused.json()) == (401, {"detail": "who?", "code": "NOBODY"})


async def test_what_the_host_knows_of_a_request_is_told_to_plugins() -> None:
    app = app_of(manager_of(), facts=lambda scope: {"user": scope["path"]})
    assert (await get(app, "/ann")).json()["user"] == "/ann"


async def test_an_exception_of_the_application_goes_through_and_no_hook_runs_after_it() -> None:
    seen: list[Any] = []

    async def look(payload: Any, context: Any) -> PluginResult[Any]:
        seen.append(payload)
        return PluginResult()

    async def broken(request: WebRequest) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await get(app_of(manager_of(plugin(look, hooks=[POST])), broken))
    # Starlette's own error page is written outside of the middleware.
    assert seen == []


async def test_a_client_that_goes_away_ends_the_request_and_is_noted() -> None:
    started = asyncio.Event()
    requests: list[Any] = []

    async def endpoint(request: WebRequest) -> PlainTextResponse:
        requests.append(current_request.get())
        started.set()
        await asyncio.Event().wait()
        return PlainTextResponse("never")

    task = asyncio.create_task(get(app_of(manager_of(plugin(allow, hooks=[PRE, POST])), endpoint)))
    await asyncio.wait_for(started.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [each.outcome for each in requests[0].ledger.records] == ["cancelled"]


async def converse(app: Any) -> list[Any]:
    """What a client of a WebSocket hears."""
    told: list[Any] = []

    async def send(message: Any) -> None:
        told.append(message["type"])

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    scope = {"type": "websocket", "path": "/", "headers": [], "client": ("1.2.3.4", 5), "query_string": b""}
    await asyncio.wait_for(app(scope, receive, send), 60)
    return told


async def test_a_web_socket_passes_the_hook_before_it_or_is_refused() -> None:
    async def accept(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    assert await converse(GuardMiddleware(accept, manager_of(plugin(allow, hooks=[PRE])))) == ["websocket.accept"]
    assert await converse(GuardMiddleware(accept, manager_of(plugin(deny, hooks=[PRE])))) == ["websocket.close"]


async def test_plugins_start_and_end_with_the_application() -> None:
    manager = TenantPluginManager(Config())
    states: list[bool] = []

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        states.append(manager.initialized)
        yield
        states.append(manager.initialized)

    app = Starlette(lifespan=lifespan)
    app.add_middleware(GuardMiddleware, manager=manager)
    events = iter(["lifespan.startup", "lifespan.shutdown"])
    told: list[str] = []

    async def receive() -> Any:
        return {"type": next(events)}

    async def send(message: Any) -> None:
        told.append(message["type"])

    await asyncio.wait_for(app({"type": "lifespan", "state": {}}, receive, send), 60)
    assert told == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert (states, manager.initialized) == ([True, True], False)


async def test_fastapi_takes_it_as_any_middleware() -> None:
    app = FastAPI()
    app.add_middleware(GuardMiddleware, manager=manager_of(plugin(headers_of(x_seen="yes"), hooks=[POST])))

    @app.get("/add")
    async def add(x: int, y: int) -> int:
        return x + y

    response = await get(app, "/add?x=1&y=2")
    assert (response.json(), response.headers["x-seen"]) == (3, "yes")
    denied = FastAPI()
    denied.add_middleware(GuardMiddleware, manager=manager_of(plugin(deny, hooks=[PRE])))
    assert (await get(denied)).json() == {"detail": "because", "code": "NO"}


async def test_a_mandatory_hook_that_no_plugin_handles_withholds_the_response() -> None:
    for hook in (PRE, POST):
        coverage = CoverageConfig(mode=CoverageMode.RAISE, mandatory=[hook])
        with pytest.raises(CoverageError, match=f"http `GET /a` went past mandatory hook `{hook}`"):
            await get(app_of(manager_of(coverage=coverage)), "/a")
    alarmed = CoverageConfig(mode=CoverageMode.ALARM, mandatory=[PRE, POST])
    assert (await get(app_of(manager_of(coverage=alarmed)), "/a")).status_code == 200


async def test_the_hooks_that_fire_are_those_of_the_table() -> None:
    seen: set[str] = set()
    await get(app_of(manager_of(*recorders(seen))), headers={"authorization": "Bearer token"})
    assert seen == hooks_of("ASGI")
