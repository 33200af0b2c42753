"""Every text inside a message, wherever it is nested.

For plugins that scan: what a view shows as `content` leaves out names, descriptions, annotations, error texts, media
and the messages inside a prompt's result. `iter_text` leaves out nothing but ids and the names of kinds.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
from collections.abc import Iterator, Mapping, Set
from types import SimpleNamespace
from typing import Any, NamedTuple
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

__all__ = ["TextLeaf", "iter_text"]

_SILENT: dict[type[BaseModel], frozenset[str]] = {
    Message: frozenset({"schema_version", "role", "channel"}),
    ContentPart: frozenset({"content_type"}),
    ToolCall: frozenset({"tool_call_id"}),
    ToolResult: frozenset({"tool_call_id"}),
    Resource: frozenset({"resource_request_id", "resource_type"}),
    ResourceReference: frozenset({"resource_request_id", "resource_type"}),
    PromptRequest: frozenset({"prompt_request_id"}),
    PromptResult: frozenset({"prompt_request_id"}),
    ImageSource: frozenset({"type"}),
    VideoSource: frozenset({"type"}),
    AudioSource: frozenset({"type"}),
    DocumentSource: frozenset({"type"}),
}
"""Fields that hold ids and names of kinds."""
_SOURCES = (ImageSource, VideoSource, AudioSource, DocumentSource)
_KEY_SHOWN = 64
"""Characters of a dict key that a path shows."""


class TextLeaf(NamedTuple):
    """One text and where it stands."""

    path: str
    """As `content[0].content.arguments.query`; a dict key is `...arguments[key]`, included data `...data[decoded]`."""
    text: str


class _Todo(NamedTuple):
    value: Any
    path: str


def iter_text(value: Any, path: str = "") -> Iterator[TextLeaf]:
    """Every text in a message, a part or any other value, in reading order, dict keys included.

    Numbers and objects that are no containers are given as their text. Bytes, base64 data and `data:` URLs that hold
    UTF-8 text are given as that text; base64 data and URLs as they stand, too. A container that occurs twice, or inside
    itself, is entered once. Nesting may be of any depth.

    Args:
        path: What the paths start with.
    """
    todo = [_Todo(value, path)]
    entered: dict[int, Any] = {}
    while todo:
        value, path = todo.pop()
        if (children := _children(value, path)) is None:
            if (text := _text_of(value)) is not None:
                yield TextLeaf(path, text)
        elif id(value) not in entered:
            # Kept, not only remembered by its id: ids of what is gone are given out again.
            entered[id(value)] = value
            todo.extend(reversed(children))


def _text_of(value: Any) -> str | None:
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, bytes | bytearray):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError:
            return None
    return json_text(value)


def _children(value: Any, path: str) -> list[_Todo] | None:
    """What stands inside a value, in reading order; `None` when it is no container."""
    if isinstance(value, BaseModel):
        return _of_model(value, path)
    if isinstance(value, Mapping):
        return [child for key, item in value.items() for child in _of_entry(key, item, path)]
    if isinstance(value, list | tuple | Set):
        return [_Todo(item, f"{path}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, SimpleNamespace):
        return [_Todo(item, _below(path, name)) for name, item in vars(value).items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [_Todo(getattr(value, each.name, None), _below(path, each.name)) for each in dataclasses.fields(value)]
    return None


def _of_model(model: BaseModel, path: str) -> list[_Todo]:
    silent = frozenset().union(*(_SILENT.get(cls, frozenset()) for cls in type(model).__mro__))
    values = {**model.__dict__, **(model.__pydantic_extra__ or {})}
    children = [_Todo(item, _below(path, name)) for name, item in values.items() if name not in silent]
    if isinstance(model, _SOURCES) and (included := _included(model.type, model.data)):
        children.append(_Todo(included, f"{_below(path, 'data')}[decoded]"))
    return children


def _of_entry(key: Any, item: Any, path: str) -> Iterator[_Todo]:
    if isinstance(key, str):
        yield _Todo(key, f"{path}[key]")
    yield _Todo(item, _below(path, key))


def _below(path: str, key: Any) -> str:
    if not isinstance(key, str):
        return f"{path}[{json_text(key)[:_KEY_SHOWN]}]"
    if key.isidentifier() and len(key) <= _KEY_SHOWN:
        return f"{path}.{key}" if path else key
    return f"{path}[{key[:_KEY_SHOWN]!r}]"


def _included(kind: str, data: str) -> bytes | None:
    """The bytes that a source carries with it; `None` when it only says where they are."""
    if kind == "base64":
        return _from_base64(data)
    if data[:5].lower() != "data:":
        return None
    head, comma, body = data.partition(",")
    if not comma:
        return None
    return _from_base64(body) if head.lower().endswith(";base64") else unquote_to_bytes(body)


def _from_base64(text: str) -> bytes | None:
    # Lenient where readers are lenient: blanks, line ends, other stray characters, the URL-safe alphabet, no padding.
    text = "".join(text.split()).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4))
    except (binascii.Error, ValueError):
        return None
