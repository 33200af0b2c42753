"""Which servers a proxy stands before, and the file that names several of them.

Source: docs/proxy.md, "Several servers".
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from cpex.framework.external.addresses import AddressRefused, check_literal
from cpex.framework.external.mcp.child import ChildCommand, child_environment
from cpex.framework.settings import get_ssrf_settings
from cpex.proxy.port import Connection

__all__ = ["SEPARATOR", "ChildUpstream", "Upstream", "UrlUpstream", "read_servers"]

logger = logging.getLogger(__name__)

SEPARATOR = "__"
"""Between the name of a server and that of its tool or prompt, where there are several servers."""
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]|_(?!_))*")
_CHILD_KEYS = {"command", "args", "env", "cwd"}
_URL_KEYS = {"url", "headers"}
_OF_CLIENTS = {"type", "disabled", "autoApprove", "alwaysAllow", "description", "timeout", "transport", "name", "icon"}
"""Keys that desktop clients write for themselves."""


class Upstream(Protocol):
    """A server that the proxy connects to, once for each client."""

    @property
    def name(self) -> str:
        """What plugins know it by: the `server_id` of the request."""

    def check(self) -> None:
        """See before any client comes whether it could be connected to, as far as this machine knows.

        Raises:
            ValueError: It could not.
        """

    def connect(self) -> AbstractAsyncContextManager[Connection]:
        """A connection of its own, closed with everything that belongs to it at the end of the block.

        Raises:
            LinkError: There is none.
        """


@dataclass(frozen=True, slots=True)
class ChildUpstream:
    """A server that is started as a child process and spoken to over its pipes."""

    name: str
    command: ChildCommand

    @classmethod
    def instead_of(cls, name: str, words: list[str]) -> ChildUpstream:
        """The server in whose place the proxy was started.

        It gets the environment that was meant for it: everything but the variables that configure the proxy.
        """
        env = {key: value for key, value in os.environ.items() if not key.startswith("PLUGINS_")}
        return cls(name, ChildCommand(tuple(words), None, env))

    def check(self) -> None:
        """Whether it can be started is seen when it is."""

    def connect(self) -> AbstractAsyncContextManager[Connection]:
        """Start it."""
        from cpex.proxy.child import connected_child

        return connected_child(self.command)


@dataclass(frozen=True, slots=True)
class UrlUpstream:
    """A server that is reached over streamable HTTP."""

    name: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Sent with every request, for instance `Authorization`."""

    def __post_init__(self) -> None:
        """Check the address.

        Raises:
            ValueError: It is none.
        """
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"`{self.url}` is no address of a server; write https://HOST/PATH")

    def check(self) -> None:
        """See whether the address may be connected to, and the environment's certificates can be used.

        A host's name is judged when it is connected to: what it leads to may change.
        """
        from cpex.proxy.http_client import tls_context

        if get_ssrf_settings().ssrf_protection_enabled:
            try:
                check_literal(urlsplit(self.url).hostname or "")
            except AddressRefused as error:
                # As a request would be told.
                raise ValueError(f"cannot reach {self.url}: {error}") from error
        if self.url.lower().startswith("https:"):
            tls_context()

    def connect(self) -> AbstractAsyncContextManager[Connection]:
        """Open a session; nothing is sent before the client says something."""
        from cpex.proxy.http_client import connected_url

        return connected_url(self.url, self.headers)


def read_servers(path: str | Path) -> list[Upstream]:
    """The servers of a file in the form of desktop clients: `{"mcpServers": {name: {"command": ...} or {"url": ...}}}`.

    A child gets the variables that programs need to run and those of its `env`, nothing else.

    Raises:
        OSError: The file cannot be read.
        ValueError: It names no server, or something in it is not understood; every fault is named.
    """
    where = Path(path)
    try:
        document = json.loads(where.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{where}: is no JSON: {error}") from None
    servers = document.get("mcpServers") if isinstance(document, dict) else None
    if not isinstance(servers, dict) or not servers:
        raise ValueError(f'{where}: names no server; write {{"mcpServers": {{"name": {{"command": "..."}}}}}}')
    faults: list[str] = []
    found = [_server(name, entry, faults) for name, entry in servers.items()]
    if faults:
        raise ValueError("\n".join(f"{where}: {fault}" for fault in faults))
    if not (upstreams := [each for each in found if each is not None]):
        raise ValueError(f"{where}: every server is disabled")
    return upstreams


def _server(name: str, entry: Any, faults: list[str]) -> Upstream | None:
    place = f"mcpServers.{name}"
    if not _NAME.fullmatch(name):
        faults.append(f"{place}: a name has letters, digits, `.`, `-` and single `_`; it starts those of tools")
    if not isinstance(entry, dict):
        faults.append(f"{place}: is no object")
        return None
    keys = _URL_KEYS if "url" in entry else _CHILD_KEYS
    before = len(faults)
    for key in entry:
        _check_key(place, key, keys, faults)
    if entry.get("disabled") is True:
        return None
    wanted = _FORMS["url" if "url" in entry else "command"]
    faults.extend(
        f"{place}.{key}: is {_shape(entry.get(key))}, not {words}"
        for key, (fits, words) in wanted.items()
        if not fits(entry.get(key))
    )
    if len(faults) > before:
        return None
    if "url" in entry:
        try:
            return UrlUpstream(name, entry["url"], dict(entry.get("headers") or {}))
        except ValueError as error:
            faults.append(f"{place}.url: {error}")
            return None
    env = child_environment(os.environ, entry.get("env") or {}, everything=False)
    return ChildUpstream(name, ChildCommand((entry["command"], *(entry.get("args") or ())), entry.get("cwd"), env))


def _check_key(place: str, key: str, known: set[str], faults: list[str]) -> None:
    if key in _OF_CLIENTS:
        if key not in ("type", "disabled"):
            logger.warning("%s.%s: is for the client that the file was written for, and left out here", place, key)
    elif key not in known:
        close = difflib.get_close_matches(key, known | _OF_CLIENTS, n=1)
        hint = f"did you mean `{close[0]}`?" if close else f"known: {', '.join(sorted(known))}"
        faults.append(f"{place}.{key}: unknown key; {hint}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _is_text_or_none(value: Any) -> bool:
    return value is None or isinstance(value, str)


def _are_texts(value: Any) -> bool:
    return value is None or (isinstance(value, list) and all(isinstance(each, str) for each in value))


def _are_named_texts(value: Any) -> bool:
    return value is None or (isinstance(value, dict) and all(isinstance(each, str) for each in value.values()))


_FORMS = {
    "url": {"url": (_is_text, "a text"), "headers": (_are_named_texts, "an object of texts")},
    "command": {
        "command": (_is_text, "a text"),
        "args": (_are_texts, "a list of texts"),
        "env": (_are_named_texts, "an object of texts"),
        "cwd": (_is_text_or_none, "a text"),
    },
}


def _shape(value: Any) -> str:
    # Never the value: headers and environments hold keys.
    return "missing" if value is None else f"of another kind (`{type(value).__name__}`)"
