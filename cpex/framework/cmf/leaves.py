"""What in a message is text: which fields hold some, which of it names things, what bytes and data say.

The common knowledge of those who read texts (`text.py`) and those who replace them (`rewrite.py`).
"""

from __future__ import annotations

import base64
import binascii
from typing import Any, NamedTuple, TypeGuard
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel

from cpex.framework.cmf.jsontext import json_text
from cpex.framework.cmf.message import (
    AudioSource,
    ContentPart,
    DocumentSource,
    ImageSource,
    Message,
    PromptRequest,
    PromptResult,
    Resource,
    ResourceReference,
    ToolCall,
    ToolResult,
    VideoSource,
)
from cpex.framework.models.bytetext import text_in_bytes

__all__ = ["Source", "TextLeaf", "below", "fields_of", "included", "is_source", "text_of"]

Source = ImageSource | VideoSource | AudioSource | DocumentSource
_SOURCES = (ImageSource, VideoSource, AudioSource, DocumentSource)


class TextLeaf(NamedTuple):
    """One text and where it stands."""

    path: str
    """As `content[0].content.arguments.query`; a dict key is `...arguments[key]`, included data `...data[decoded]`."""
    text: str
    value: Any = None
    """What stands there: the text itself, or the number, bytes or object that it is the text of."""
    key: str = ""
    """The nearest dict key or field name above it; of a dict key, nothing."""
    is_name: bool = False
    """Whether it says what is called or fetched, such as the name of a tool or an address, and is no content."""


class Field(NamedTuple):
    """One field of a model that may hold text."""

    name: str
    value: Any
    is_name: bool = False


class _Fields(NamedTuple):
    """Fields of one class that are no content."""

    silent: frozenset[str] = frozenset()
    """Ids and names of kinds."""
    names: frozenset[str] = frozenset()
    """Names and addresses of what is called or fetched, and words that say how to read it."""


def _fields(silent: str, names: str = "") -> _Fields:
    return _Fields(frozenset(silent.split()), frozenset(names.split()))


_FIELDS: dict[type[BaseModel], _Fields] = {
    Message: _fields("schema_version role channel"),
    ContentPart: _fields("content_type"),
    ToolCall: _fields("tool_call_id", "name namespace"),
    ToolResult: _fields("tool_call_id", "tool_name"),
    Resource: _fields("resource_request_id resource_type", "uri mime_type version size_bytes"),
    ResourceReference: _fields("resource_request_id resource_type", "uri selector range_start range_end"),
    PromptRequest: _fields("prompt_request_id", "name server_id"),
    PromptResult: _fields("prompt_request_id", "prompt_name"),
    **dict.fromkeys(_SOURCES, _fields("type", "media_type duration_ms")),
}


def fields_of(model: BaseModel) -> list[Field]:
    """What may hold text in a model, in its order, unknown keys last."""
    known = [_FIELDS[cls] for cls in type(model).__mro__ if cls in _FIELDS]
    silent = frozenset().union(*(each.silent for each in known))
    names = frozenset().union(*(each.names for each in known))
    if is_source(model) and model.type == "url" and not _is_data_url(model.data):
        names |= {"data"}
    values = {**model.__dict__, **(model.__pydantic_extra__ or {})}
    return [Field(name, value, name in names) for name, value in values.items() if name not in silent]


def is_source(value: Any) -> TypeGuard[Source]:
    """Whether a value says where a medium is, or carries it."""
    return isinstance(value, _SOURCES)


def text_of(value: Any) -> str | None:
    """The text of what is no container; `None` for what has none: nothing, truth values, bytes that are no text."""
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray):
        return text_in_bytes(value)
    return json_text(value)


def below(path: str, key: Any) -> str:
    """The path of what stands in a dict under a key, or in an object under a name."""
    if not isinstance(key, str):
        return f"{path}[{json_text(key)[:_KEY_SHOWN]}]"
    if key.isidentifier() and len(key) <= _KEY_SHOWN:
        return f"{path}.{key}" if path else key
    return f"{path}[{key[:_KEY_SHOWN]!r}]"


_KEY_SHOWN = 64
"""Characters of a dict key that a path shows."""


def included(source: Source) -> bytes | None:
    """The bytes that a medium's source carries with it; `None` when it only says where they are."""
    if source.type == "base64":
        return _from_base64(source.data)
    if not _is_data_url(source.data):
        return None
    head, comma, body = source.data.partition(",")
    if not comma:
        return None
    return _from_base64(body) if head.lower().endswith(";base64") else unquote_to_bytes(body)


def _is_data_url(data: str) -> bool:
    return data[:5].lower() == "data:"


def _from_base64(text: str) -> bytes | None:
    # Lenient where readers are lenient: blanks, line ends, other stray characters, the URL-safe alphabet, no padding.
    text = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
