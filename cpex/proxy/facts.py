"""What is known of a request beside its parameters: who asks, and what the server has told of the thing that is used.

Source: docs/proxy.md, "What plugins know of a request".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel, ValidationError

from cpex.framework.extensions import Extensions, HttpExtension
from cpex.framework.extensions.mcp import MCPExtension, PromptMetadata, ResourceMetadata, ToolMetadata
from cpex.proxy.eras import envelope
from cpex.proxy.errors import AnswerError

__all__ = ["Listings", "Requester", "told_client"]

_MAX_ENTRIES = 10_000
"""Entries of lists that are remembered in one session; the oldest are forgotten first."""
_ClientInfo = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Requester:
    """Who a request is from."""

    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of the HTTP request that carried it; none over pipes."""
    client: _ClientInfo | None = None
    """What the client's program says of itself, `{"name": ..., "version": ...}`; anybody may say anything."""
    protocol_version: str | None = None

    def metadata(self) -> dict[str, Any]:
        """For the `metadata` of the request's context."""
        known = {"client": dict(self.client) if self.client else None, "protocol_version": self.protocol_version}
        return {name: value for name, value in known.items() if value is not None}

    def extensions(self, mcp: MCPExtension | None = None) -> Extensions:
        """What plugins see by their capabilities."""
        http = HttpExtension(headers=dict(self.headers)) if self.headers else None
        return Extensions(http=http, mcp=mcp)


def told_client(info: Any) -> _ClientInfo | None:
    """A client's name and version, from what it says of itself."""
    if not isinstance(info, dict):
        return None
    return {key: info[key] for key in ("name", "version") if isinstance(info.get(key), str)} or None


@dataclass(frozen=True, slots=True)
class _Kind:
    field: str
    """Of the result that lists it."""
    key: str
    """What it is called by."""
    slot: str
    made: Callable[..., BaseModel]
    facts: tuple[tuple[str, str], ...]
    """From names of the protocol to ours."""


_KINDS = {
    "tools/call": _Kind("tools", "name", "tool", ToolMetadata, (("title", "title"), ("description", "description"))),
    "prompts/get": _Kind(
        "prompts", "name", "prompt", PromptMetadata, (("description", "description"), ("arguments", "arguments"))
    ),
    "resources/read": _Kind(
        "resources",
        "uri",
        "resource",
        ResourceMetadata,
        (("name", "name"), ("description", "description"), ("mimeType", "mime_type")),
    ),
}
_KEYS = {kind.field: kind.key for kind in _KINDS.values()}


class Listings:
    """Remembers what servers list."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str, str], dict[str, Any]] = {}

    def learn(self, server: str, field: str, entries: list[Any]) -> None:
        """Take note of a page of a list.

        Args:
            field: Of the result, e.g. `tools`.
        """
        for entry in entries if field in _KEYS else ():
            key = entry.get(_KEYS[field]) if isinstance(entry, dict) else None
            if not isinstance(key, str):
                continue
            self._entries.pop((field, server, key), None)
            self._entries[field, server, key] = entry
            if len(self._entries) > _MAX_ENTRIES:
                del self._entries[next(iter(self._entries))]

    def check(self, method: str, params: Mapping[str, Any], server: str, headers: Mapping[str, str]) -> None:
        """See that headers which repeat arguments of a tool, for whoever routes by them, say the same as the call.

        Raises:
            AnswerError: They do not.
        """
        schema = self._entries.get(("tools", server, str(params.get("name"))), {}).get("inputSchema")
        if method != "tools/call" or schema is None or not headers or envelope(params) is None:
            return
        from mcp.shared.inbound import validate_mcp_param_headers

        arguments = params.get("arguments")
        refused = validate_mcp_param_headers(schema, arguments if isinstance(arguments, dict) else {}, headers)
        if refused is not None:
            raise AnswerError.of(refused.code, refused.message)

    def of(self, method: str, params: Mapping[str, Any], server: str) -> MCPExtension | None:
        """What is used by a request, with what its server has told of it so far; schemas are left out."""
        kind = _KINDS[method]
        key = params.get(kind.key)
        if not isinstance(key, str):
            return None
        known = {kind.key: key, "server_id": server} | ({"namespace": server} if kind.slot == "tool" else {})
        entry = self._entries.get((kind.field, server, key), {})
        told = {ours: entry[name] for name, ours in kind.facts if entry.get(name) is not None}
        if isinstance(annotations := entry.get("annotations"), dict):
            told["annotations"] = annotations
        try:
            made = kind.made(**known, **told)
        except ValidationError:
            # What a server says of itself does not fit: its names stand all the same.
            made = kind.made(**known)
        return MCPExtension(**{kind.slot: made})
