"""The two eras of the protocol: sessions that begin with a handshake, and requests that each carry all that is needed.

Words of the wire stand here, so that a proxy over pipes need not load the SDK.

Source: https://modelcontextprotocol.io/specification/2026-07-28/basic; docs/proxy.md, "Versions of the protocol".
"""

from __future__ import annotations

from typing import Any

from cpex.proxy.port import Message, RequestId

__all__ = [
    "CLIENT_INFO",
    "DISCOVER",
    "LISTEN",
    "PROTOCOL_VERSION",
    "SUBSCRIPTION",
    "envelope",
    "is_kept_open",
    "renamed",
    "subscribed",
]

DISCOVER, LISTEN = "server/discover", "subscriptions/listen"
PROTOCOL_VERSION = "io.modelcontextprotocol/protocolVersion"
CLIENT_INFO = "io.modelcontextprotocol/clientInfo"
SUBSCRIPTION = "io.modelcontextprotocol/subscriptionId"
_UNFINISHED = {"resultType", "inputRequests", "requestState", "_meta"}


def envelope(params: Any) -> dict[str, Any] | None:
    """What a request without a handshake says of itself; `None` for one that relies on a handshake."""
    meta = params.get("_meta") if isinstance(params, dict) else None
    return meta if isinstance(meta, dict) and PROTOCOL_VERSION in meta else None


def is_kept_open(result: dict[str, Any]) -> bool:
    """Whether a server wants to know more before it answers. Nothing of an answer may stand beside its questions."""
    return result.get("resultType") == "input_required" and set(result) <= _UNFINISHED


def subscribed(holder: dict[str, Any]) -> RequestId | None:
    """The id of the subscription that a notification's parameters or a result belong to."""
    meta = holder.get("_meta")
    id = meta.get(SUBSCRIPTION) if isinstance(meta, dict) else None
    return id if isinstance(id, int | str) else None


def renamed(message: Message, names: dict[RequestId, RequestId]) -> Message:
    """A message with the id of its subscription as the other end knows it; as it is, where there is none to rename.

    Args:
        names: From ids of this end to those of the other.
    """
    for field in ("params", "result"):
        holder = message.get(field)
        if isinstance(holder, dict) and (id := subscribed(holder)) is not None and id in names:
            return {**message, field: {**holder, "_meta": {**holder["_meta"], SUBSCRIPTION: names[id]}}}
    return message
