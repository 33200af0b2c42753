"""The JSON-RPC messages that this transport sends and reads, and what plugin servers put into them.

The client's side of MCP is three requests and two notifications, so it is written out here, against the types and the
protocol versions of the MCP SDK. The SDK's own client transports are not used: they end the connection for every caller
when one request fails, cancel the task that opened it, do not say whether a request had left, and write what a peer
sent into the log.

Source: https://modelcontextprotocol.io/specification/2025-11-25/basic; docs/reference/external.md, "MCP".
"""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic_core import PydanticSerializationError, from_json, to_json

from cpex.framework.external.port import LinkError
from cpex.framework.external.wire import WireError

__all__ = [
    "MAX_MESSAGE_BYTES",
    "cancellation",
    "frame_of",
    "notification",
    "object_in",
    "parsed",
    "reply_to",
    "request",
    "result_of",
    "text_of_frame",
    "texts_in",
]

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
"""Of one message, either way. The framework's own budget for a payload is far below it."""
_METHOD_NOT_FOUND = -32601
_SHOWN = 300
"""Characters of a server's text that go into a message of ours."""
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def request(id: int, method: str, params: dict[str, Any]) -> bytes:
    """A question.

    Raises:
        WireError: `params` holds what no JSON can say.
        LinkError: It is too large.
    """
    return _written({"jsonrpc": "2.0", "id": id, "method": method, "params": params})


def notification(method: str, params: dict[str, Any] | None = None) -> bytes:
    """A message that has no answer."""
    return _written({"jsonrpc": "2.0", "method": method} | ({"params": params} if params is not None else {}))


def cancellation(id: int) -> bytes:
    """Tells the server that nobody waits for an answer any more."""
    return notification("notifications/cancelled", {"requestId": id, "reason": "the caller stopped waiting"})


def reply_to(message: dict[str, Any]) -> bytes | None:
    """The answer to a request of the server's; `None` when the message is none."""
    id = message.get("id")
    if "method" not in message or not isinstance(id, int | str):
        return None
    if message["method"] == "ping":
        return _written({"jsonrpc": "2.0", "id": id, "result": {}})
    error = {"code": _METHOD_NOT_FOUND, "message": "this client has no such method"}
    return _written({"jsonrpc": "2.0", "id": id, "error": error})


def _written(message: dict[str, Any]) -> bytes:
    try:
        data = to_json(message, inf_nan_mode="null")
    except (PydanticSerializationError, UnicodeError) as error:
        raise WireError("a value cannot be written as JSON: it holds text that is no Unicode") from error
    if len(data) > MAX_MESSAGE_BYTES:
        raise LinkError(
            f"the call takes {len(data):,} bytes, over the {MAX_MESSAGE_BYTES:,} of this transport; send less",
            code="too_large",
            sent=False,
        )
    return data


def parsed(data: bytes | bytearray | memoryview | str) -> dict[str, Any] | None:
    """A message; `None` when it is none."""
    data = bytes(data) if isinstance(data, bytearray | memoryview) else data
    try:
        message = from_json(data)
    except ValueError:
        message = _with_halves(data)
    return message if isinstance(message, dict) and message.get("jsonrpc") == "2.0" else None


def _with_halves(data: bytes | str) -> Any:
    """JSON that holds halves of characters as escapes, as JavaScript writes texts that were cut in between."""
    try:
        return json.loads(data if isinstance(data, str) else data.decode())
    except (ValueError, RecursionError):
        return None


def result_of(message: dict[str, Any]) -> dict[str, Any]:
    """What a response says.

    Raises:
        LinkError: It says that the request failed, or nothing that could be understood.
    """
    result = message.get("result")
    if isinstance(result, dict):
        return result
    error = message.get("error")
    if isinstance(error, dict):
        text = f"the server refused the request: {_shown(error.get('message'))} (JSON-RPC error {error.get('code')})"
        raise LinkError(text, code="remote", sent=True)
    raise LinkError("the server's answer holds neither a result nor an error", code="protocol", sent=True)


def texts_in(result: dict[str, Any]) -> list[str]:
    """The text items of a tool's result.

    Raises:
        LinkError: The tool failed.
    """
    content = result.get("content")
    items = content if isinstance(content, list) else []
    texts = [item["text"] for item in items if isinstance(item, dict) and isinstance(item.get("text"), str)]
    if result.get("isError"):
        # The words are those of release 0.1: hosts know them.
        text = f"Error trying to decode json: the server answered with an error: {_shown(' '.join(texts))}"
        raise LinkError(text, code="remote", sent=True)
    return texts


def object_in(text: str) -> dict[str, Any]:
    """The JSON object that a text item holds.

    Raises:
        LinkError: It holds none.
    """
    try:
        value = from_json(text)
    except ValueError:
        value = None
    if not isinstance(value, dict):
        text = "Error trying to decode json: the server's answer is no JSON object; is it a plugin server?"
        raise LinkError(text, code="protocol", sent=True)
    return value


def text_of_frame(frame: bytes) -> str:
    """A frame as a text that JSON can carry: halves of characters, which UTF-8 has no bytes for, become escapes."""
    text = frame.decode("utf-8", "surrogatepass")
    return _LONE_SURROGATE.sub(lambda found: f"\\u{ord(found.group()):04x}", text)


def frame_of(text: str) -> bytes:
    """Undo `text_of_frame`: the same document, its escapes left as they are."""
    return text.encode("utf-8", "surrogatepass")


def _shown(text: object) -> str:
    cut = " ".join(str(text or "no reason given").split())
    return cut if len(cut) <= _SHOWN else cut[: _SHOWN - 1] + "…"
