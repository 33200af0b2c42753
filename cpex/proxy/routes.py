"""Which server a request goes to, and how several servers look like one.

With one server everything is left as it is. With several, tools and prompts are called `<server>__<name>`, resources
are found by the server that told of them, and lists are joined.

Source: docs/proxy.md, "Several servers".
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Sequence
from typing import Any

from cpex.proxy.eras import DISCOVER, envelope
from cpex.proxy.errors import INVALID_PARAMS, METHOD_NOT_FOUND, AnswerError
from cpex.proxy.server import Server
from cpex.proxy.upstreams import SEPARATOR

__all__ = ["JoinedRoutes", "Routes", "handshake_needed", "routes_of"]

_NAMED = {"tools": "name", "prompts": "name"}
_MAX_KNOWN = 10_000
"""Addresses and tasks whose servers are remembered; the oldest are forgotten first."""


def routes_of(servers: Sequence[Server]) -> Routes:
    """The routes to some servers."""
    return Routes(servers) if len(servers) == 1 else JoinedRoutes(servers)


class Routes:
    """The way to one server."""

    def __init__(self, servers: Sequence[Server]) -> None:
        """Keep the servers, in their order."""
        self.servers = servers

    def of(self, method: str, params: Any) -> list[tuple[Server, Any]]:
        """Which servers are asked, and with which parameters; at least one, and one only where the result counts.

        Raises:
            AnswerError: None can be.
        """
        return [(self.servers[0], params)]

    def pages(self, method: str, params: Any) -> list[tuple[Server, Any]]:
        """Which servers are asked for a list, or for the next page of it.

        Raises:
            AnswerError: The cursor is none of ours.
        """
        return self.of(method, params)

    def learn(self, server: Server, method: str, result: dict[str, Any]) -> None:
        """Remember what a server has told of."""

    def joined(self, field: str, pages: Sequence[tuple[Server, dict[str, Any]]]) -> dict[str, Any]:
        """The page that the client sees."""
        return pages[0][1]

    def greeting(self, results: Sequence[tuple[Server, dict[str, Any]]]) -> dict[str, Any]:
        """The result of the handshake that the client sees."""
        return results[0][1]


class JoinedRoutes(Routes):
    """The ways to several servers."""

    def __init__(self, servers: Sequence[Server]) -> None:
        """Keep the servers, in their order."""
        super().__init__(servers)
        self._by_name = {server.name: server for server in servers}
        self._owners: dict[str, Server] = {}
        """By address of a resource, literal start of a template, or id of a task."""

    def of(self, method: str, params: Any) -> list[tuple[Server, Any]]:
        """See `Routes`."""
        given = params if isinstance(params, dict) else {}
        _require_handshake(method, params)
        if method in ("tools/call", "prompts/get"):
            server, name = self._named(given.get("name"))
            return [(server, {**given, "name": name})]
        if method in ("resources/read", "resources/subscribe", "resources/unsubscribe"):
            return [(self._owner(given.get("uri"), "resource"), params)]
        if method.startswith("tasks/") and method != "tasks/list":
            return [(self._owner(given.get("taskId"), "task"), params)]
        if method == "completion/complete":
            return [self._completed(given)]
        if method in ("ping", "logging/setLevel"):
            wanted = "logging" if method == "logging/setLevel" else None
            if servers := [
                server for server in self.servers if server.is_open and (not wanted or wanted in server.capabilities)
            ]:
                return [(server, params) for server in servers]
        raise AnswerError.of(METHOD_NOT_FOUND, f"`{method[:100]}` does not say which of several servers it is for")

    def _named(self, name: Any) -> tuple[Server, str]:
        prefix, separator, rest = str(name).partition(SEPARATOR)
        server = self._by_name.get(prefix)
        if server is None or not separator or not isinstance(name, str):
            known = ", ".join(self._by_name)
            raise AnswerError.of(INVALID_PARAMS, f"a name starts with its server's and `{SEPARATOR}`; servers: {known}")
        return server, rest

    def _owner(self, key: Any, what: str) -> Server:
        text = str(key)
        if (server := self._owners.get(text)) is not None:
            return server
        starts = [start for start in self._owners if start.endswith(_OPEN) and text.startswith(start[: -len(_OPEN)])]
        if starts:
            return self._owners[max(starts, key=len)]
        raise AnswerError.of(INVALID_PARAMS, f"no server has told of this {what}; list them first")

    def _completed(self, params: dict[str, Any]) -> tuple[Server, Any]:
        about = params.get("ref")
        about = about if isinstance(about, dict) else {}
        if "name" in about:
            server, name = self._named(about["name"])
            return server, {**params, "ref": {**about, "name": name}}
        uri = str(about.get("uri"))
        return self._owners.get(_start_of(uri)) or self._owner(uri, "resource"), params

    def pages(self, method: str, params: Any) -> list[tuple[Server, Any]]:
        """See `Routes`."""
        given = dict(params) if isinstance(params, dict) else {}
        _require_handshake(method, params)
        cursor = given.pop("cursor", None)
        if cursor is not None:
            return [(server, {**given, "cursor": each}) for server, each in self._cursors(cursor)]
        group = method.partition("/")[0]
        return [(server, given) for server in self.servers if server.is_open and group in server.capabilities]

    def _cursors(self, cursor: Any) -> Iterator[tuple[Server, str]]:
        try:
            cursors = json.loads(base64.urlsafe_b64decode(str(cursor)))
            yield from [(self._by_name[name], str(each)) for name, each in cursors.items()]
        except (ValueError, KeyError, AttributeError):
            raise AnswerError.of(INVALID_PARAMS, "the cursor is none that was given out here") from None

    def learn(self, server: Server, method: str, result: dict[str, Any]) -> None:
        """See `Routes`."""
        for key in _told_of(result):
            self._owners.pop(key, None)
            self._owners[key] = server
            if len(self._owners) > _MAX_KNOWN:
                del self._owners[next(iter(self._owners))]

    def joined(self, field: str, pages: Sequence[tuple[Server, dict[str, Any]]]) -> dict[str, Any]:
        """See `Routes`."""
        entries, cursors = [], {}
        for server, page in pages:
            for entry in page[field]:
                named = _NAMED.get(field)
                entries.append({**entry, named: f"{server.name}{SEPARATOR}{entry.get(named)}"} if named else entry)
            if page.get("nextCursor") is not None:
                cursors[server.name] = page["nextCursor"]
        more = {"nextCursor": base64.urlsafe_b64encode(json.dumps(cursors).encode()).decode()} if cursors else {}
        return {field: entries} | more

    def greeting(self, results: Sequence[tuple[Server, dict[str, Any]]]) -> dict[str, Any]:
        """See `Routes`."""
        capabilities: dict[str, Any] = {}
        for server, result in results:
            told = result.get("capabilities")
            server.capabilities = told if isinstance(told, dict) else {}
            capabilities = _merged(capabilities, server.capabilities)
        instructions = [f"{server.name}: {each}" for server, result in results if (each := result.get("instructions"))]
        greeting = {
            # Sessions of several versions speak the oldest: versions are dates.
            "protocolVersion": min(str(result.get("protocolVersion")) for _, result in results),
            "capabilities": capabilities,
            "serverInfo": {"name": "cpex-proxy", "version": "1"},
        }
        return greeting | ({"instructions": "\n\n".join(instructions)} if instructions else {})


def handshake_needed() -> AnswerError:
    """What clients are told that come without a handshake: those that know both fall back to it.

    Several servers speak of one session, in the versions of their own; requests that stand for themselves have none.
    """
    from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS

    known = ", ".join(HANDSHAKE_PROTOCOL_VERSIONS)
    text = f"several servers are served in sessions only: initialize one with one of the versions {known}"
    return AnswerError.of(METHOD_NOT_FOUND, text)


def _require_handshake(method: str, params: Any) -> None:
    if method == DISCOVER or envelope(params) is not None:
        raise handshake_needed()


_OPEN = "{"


def _start_of(template: str) -> str:
    return template.partition(_OPEN)[0] + _OPEN


def _told_of(result: dict[str, Any]) -> Iterator[str]:
    """Addresses, templates and tasks that stand in a list or in what was read."""
    for field in ("resources", "contents"):
        for entry in _objects(result.get(field)):
            if isinstance(entry.get("uri"), str):
                yield entry["uri"]
    for entry in _objects(result.get("resourceTemplates")):
        yield _start_of(str(entry.get("uriTemplate")))
    for block in _objects(result.get("content")):
        held = block.get("resource") if isinstance(block.get("resource"), dict) else block
        if isinstance(held, dict) and isinstance(held.get("uri"), str):
            yield held["uri"]
    task = result.get("task")
    if isinstance(task, dict):
        yield str(task.get("taskId"))


def _objects(value: Any) -> Iterator[dict[str, Any]]:
    yield from (each for each in value if isinstance(each, dict)) if isinstance(value, list) else ()


def _merged(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    both = {**one, **other}
    for key in one.keys() & other.keys():
        if isinstance(one[key], dict) and isinstance(other[key], dict):
            both[key] = _merged(one[key], other[key])
        elif isinstance(one[key], bool) and isinstance(other[key], bool):
            both[key] = one[key] or other[key]
    return both
