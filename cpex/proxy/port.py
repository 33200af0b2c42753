"""What a session needs of whatever carries its messages, to the client and to servers alike."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from pydantic_core import PydanticSerializationError, to_json

__all__ = ["Connection", "Message", "RequestId", "id_of", "whole", "written"]

Message: TypeAlias = dict[str, Any]
"""A JSON-RPC message: a request (`method` and `id`), a notification (`method`) or a response (`result` or `error`)."""
RequestId: TypeAlias = int | str


class Connection(Protocol):
    """Carries messages both ways, each whole and in order. It knows no methods."""

    async def receive(self) -> Message | None:
        """The next message; `None` when no more can come, for which `reason` then says why."""

    async def send(self, message: Message, about: RequestId | None = None) -> None:
        """Send a message, waiting while the other end does not keep up.

        Args:
            about: The request of the other end that a notification or a request belongs to, where that is known.

        Raises:
            LinkError: The other end is gone.
        """

    async def forget(self, id: RequestId) -> None:
        """Take note that a request of the other end will not be answered, because it was cancelled."""

    def headers(self, id: RequestId) -> Mapping[str, str]:
        """The HTTP headers that a request of the other end came with, until it is answered; empty elsewhere."""

    def reason(self) -> str:
        """Why no more messages come; empty when the other end closed the connection in an orderly way."""


def written(message: Message) -> bytes:
    """A message as JSON, in one line without its end. Halves of characters are written as escapes, as they came."""
    try:
        return to_json(message, inf_nan_mode="null")
    except (PydanticSerializationError, UnicodeError):
        return json.dumps(message, separators=(",", ":")).encode()


def whole(message: Message) -> Message:
    """A message for those who write no halves of characters: each is replaced by U+FFFD."""
    try:
        to_json(message)
    except (PydanticSerializationError, UnicodeError):
        text = json.dumps(message, ensure_ascii=False).encode("utf-16-le", "surrogatepass")
        replaced: Message = json.loads(text.decode("utf-16-le", "replace"))
        return replaced
    return message


def id_of(message: Message) -> RequestId | None:
    """The id of a request or response; `None` when it has none that the protocol allows."""
    id = message.get("id")
    # JSON's `true` is an `int` here, and equal to 1.
    return id if isinstance(id, int | str) and not isinstance(id, bool) else None
