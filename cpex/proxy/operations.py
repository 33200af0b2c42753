"""What becomes of each request of a client: which server is asked, and what plugins decide on the way.

Methods that use or list something are looked into; every other request goes to its server as it is.

Source: docs/proxy.md, "What passes through".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from cpex.framework.guard.methods import METHODS
from cpex.proxy.eras import CLIENT_INFO, DISCOVER, LISTEN, PROTOCOL_VERSION, envelope
from cpex.proxy.errors import INTERNAL, INVALID_PARAMS, AnswerError
from cpex.proxy.facts import Listings, Requester, told_client
from cpex.proxy.guarding import LISTS, Guarding, Known
from cpex.proxy.port import RequestId
from cpex.proxy.routes import Routes
from cpex.proxy.server import ProgressToken, Server, progress_token

__all__ = ["Call", "Operations"]

logger = logging.getLogger(__name__)

_KNOWN = frozenset(
    {
        *("ping", "completion/complete", "logging/setLevel", "resources/subscribe", "resources/unsubscribe"),
        *("tasks/get", "tasks/list", "tasks/cancel"),
        *(DISCOVER, LISTEN),
    }
)
"""Methods that pass, and in which plugins have no say."""
_REQUESTS = frozenset({*METHODS, *LISTS, *_KNOWN, "initialize", "tasks/result"})
"""Methods that the protocol has as requests."""
_MAX_WARNED = 10
"""Methods that the protocol does not know and the log of one session names."""
_LIMITED = frozenset({*METHODS, *LISTS, *_KNOWN} - {LISTEN})
"""Methods that are answered in one go. A handshake may wait for a server's installation, other methods for anything."""


@dataclass(eq=False)
class Call:
    """A request of the client that is under way."""

    id: RequestId
    method: str
    params: Any
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of the HTTP request that carried it."""
    cancelled: dict[str, Any] = field(default_factory=dict)
    """What the client says of its cancellation."""
    server: Server | None = None
    """The server that was asked."""

    @property
    def progress_token(self) -> ProgressToken | None:
        """What reports of progress about it carry."""
        return progress_token(self.params)


class Operations:
    """Answers the requests of one session."""

    def __init__(self, routes: Routes, guarding: Guarding, *, timeout_s: float | None = None) -> None:
        """Set up.

        Args:
            timeout_s: Seconds that a server may take for its answer without reporting progress.
        """
        self._routes = routes
        self._guarding = guarding
        self._timeout_s = timeout_s
        self._listings = Listings()
        self._greeted = Requester()
        """What the client said of itself in the handshake."""
        self._warned: set[str] = set()
        self._refused_notifications = False

    def close(self) -> None:
        """End the session."""
        self._guarding.close()

    async def answer(self, call: Call) -> dict[str, Any]:
        """The result of a request.

        Raises:
            AnswerError: It is an error.
        """
        method = call.method
        if method in METHODS:
            return await self._use(call)
        if method in LISTS:
            return await self._list(call)
        if method == "initialize":
            return await self._initialize(call)
        if method == "tasks/result":
            return await self._finish(call)
        if method not in _KNOWN:
            self._warn_of(method)
        return await self._pass(call)

    def _warn_of(self, method: str) -> None:
        if method in self._warned or len(self._warned) > _MAX_WARNED:
            return
        self._warned.add(method)
        if len(self._warned) > _MAX_WARNED:
            logger.warning(
                "Requests of still more methods that the protocol does not know pass, and are not named here"
            )
            return
        logger.warning("Requests of method `%.100s` pass, and no plugin has a say in them", method)

    def is_told(self, method: Any) -> bool:
        """Whether a notification of the client's is handed on to servers."""
        # SECURITY: many a server reads the method before it looks for an id: it would do what a request without one
        # says, past every hook.
        if isinstance(method, str) and method not in _REQUESTS:
            return True
        if not self._refused_notifications:
            self._refused_notifications = True
            logger.warning("A notification of method `%.100s` was not forwarded: that is no notification", method)
        return False

    async def _pass(self, call: Call) -> dict[str, Any]:
        asked = self._routes.of(call.method, call.params)
        results = [await self._ask(call, server, params) for server, params in asked]
        # Asked of several, it is a request without a result of its own.
        return results[0]

    async def _ask(self, call: Call, server: Server, params: Any) -> dict[str, Any]:
        call.server = server
        timeout_s = self._timeout_s if call.method in _LIMITED else None
        return await server.request(call.method, params, about=call.id, timeout_s=timeout_s, cancelled=call.cancelled)

    async def _use(self, call: Call) -> dict[str, Any]:
        _require_object(call)
        [(server, params)] = self._routes.of(call.method, call.params)

        async def forward(ready: dict[str, Any]) -> dict[str, Any]:
            return await self._ask(call, server, ready)

        requester = self._requester(call)
        self._listings.check(call.method, params, server.name, call.headers)
        extensions = requester.extensions(self._listings.of(call.method, params, server.name))
        known = Known(server.name, requester.metadata(), extensions)
        result = await self._guarding.use(call.method, params, known, forward)
        self._routes.learn(server, call.method, result)
        return result

    async def _finish(self, call: Call) -> dict[str, Any]:
        _require_object(call)
        [(server, params)] = self._routes.of(call.method, call.params)
        return await self._guarding.finish(str(call.params.get("taskId")), await self._ask(call, server, params))

    async def _list(self, call: Call) -> dict[str, Any]:
        listing = LISTS[call.method]
        requester = self._requester(call)
        asked = self._routes.pages(call.method, call.params)
        answers = await _all(self._page(call, server, params) for server, params in asked)
        pages: list[tuple[Server, dict[str, Any]]] = []
        failures = [each for each in answers if isinstance(each, AnswerError)]
        for (server, _), page in zip(asked, answers, strict=True):
            if isinstance(page, AnswerError):
                continue
            found = page[listing.field]
            self._routes.learn(server, call.method, page)
            self._listings.learn(server.name, listing.field, found)
            known = Known(server.name, requester.metadata(), requester.extensions())
            shown = await self._guarding.show(call.method, found, known)
            page = page if shown is found else {**page, listing.field: shown}
            pages.append((server, self._guarding.kept_private(listing.hook, page)))
        if failures and not pages:
            raise failures[0]
        for failure in failures:
            logger.warning("A list is incomplete: %s", failure)
        return self._routes.joined(listing.field, pages)

    async def _page(self, call: Call, server: Server, params: Any) -> dict[str, Any]:
        page = await self._ask(call, server, params)
        if not isinstance(page.get(LISTS[call.method].field), list):
            raise AnswerError.of(INTERNAL, f"server `{server.name}` answered `{call.method}` with no list")
        return page

    async def _initialize(self, call: Call) -> dict[str, Any]:
        servers = self._routes.servers
        given = call.params if isinstance(call.params, dict) else {}
        self._greeted = Requester({}, told_client(given.get("clientInfo")))
        answers = await _all(self._ask(call, server, call.params) for server in servers)
        results = [(server, each) for server, each in zip(servers, answers, strict=True) if isinstance(each, dict)]
        failures = [each for each in answers if isinstance(each, AnswerError)]
        if not results:
            raise failures[0]
        for failure in failures:
            logger.warning("The session goes on without a server: %s", failure)
        greeting = self._routes.greeting(results)
        version = greeting.get("protocolVersion")
        self._greeted = replace(self._greeted, protocol_version=version if isinstance(version, str) else None)
        return greeting

    def _requester(self, call: Call) -> Requester:
        if (meta := envelope(call.params)) is not None:
            version = meta[PROTOCOL_VERSION]
            said = told_client(meta.get(CLIENT_INFO))
            return Requester(call.headers, said, version if isinstance(version, str) else None)
        return replace(self._greeted, headers=call.headers)


async def _all(asked: Iterable[Coroutine[Any, Any, dict[str, Any]]]) -> list[dict[str, Any] | AnswerError]:
    """What servers answer that are asked at the same time, each with its result or its error."""

    async def answer_of(one: Coroutine[Any, Any, dict[str, Any]]) -> dict[str, Any] | AnswerError:
        try:
            return await one
        except AnswerError as error:
            return error

    coroutines = list(asked)
    if len(coroutines) == 1:
        return [await answer_of(coroutines[0])]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(answer_of(each)) for each in coroutines]
    return [task.result() for task in tasks]


def _require_object(call: Call) -> None:
    if not isinstance(call.params, dict):
        raise AnswerError.of(INVALID_PARAMS, f"the parameters of `{call.method}` do not fit the protocol")
