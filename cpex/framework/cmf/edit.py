"""A message with one part changed, made from the message and the place of the part.

Messages are frozen: whoever changes a part rebuilds the list that holds it, and for a part inside a prompt's result the
lists above that. Everything beside the changed part is shared with the original.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel

from cpex.framework.cmf.message import (
    ContentPart,
    Message,
    PromptResultContentPart,
    ResourceContentPart,
    TextContent,
    ThinkingContent,
    ToolResultContentPart,
    Unknown,
)

__all__ = ["Place", "checked_copy", "place_name", "with_part", "with_text"]

Model = TypeVar("Model", bound=BaseModel)

Place = tuple[int, ...]
"""Index of a part; inside a prompt's result then the index of the message and that of its part, and so on."""


def place_name(place: Place) -> str:
    """A place as `content[1].content.messages[0].content[2]`."""
    steps = ("content[{}]", "content.messages[{}]")
    return ".".join(steps[depth % 2].format(index) for depth, index in enumerate(place))


def with_part(message: Message, place: Place, part: ContentPart) -> Message:
    """The message with another part at a place.

    Raises:
        TypeError: `part` is no content part.
    """
    if not isinstance(part, ContentPart):
        raise TypeError(f"expected a content part, got {type(part).__name__}")
    messages = [message]
    for part_index, message_index in zip(place[:-1:2], place[1::2], strict=True):
        holder: Any = messages[-1].content[part_index]
        messages.append(holder.content.messages[message_index])
    changed = _put(messages.pop(), place[-1], part)
    for part_index, message_index in zip(place[-3::-2], place[-2::-2], strict=True):
        outer = messages.pop()
        holder = outer.content[part_index]
        nested = [*holder.content.messages]
        nested[message_index] = changed
        result = holder.content.model_copy(update={"messages": nested})
        changed = _put(outer, part_index, holder.model_copy(update={"content": result}))
    return changed


def _put(message: Message, index: int, part: ContentPart) -> Message:
    content = [*message.content]
    # mypy: whether it is one of the twelve kinds is told by whoever reads the message.
    content[index] = part  # type: ignore[call-overload]
    return message.model_copy(update={"content": content})


def with_text(part: ContentPart, text: str) -> ContentPart:
    """The part with another text.

    A resource keeps its address and loses its bytes and the size it was said to have; of a prompt's result the short
    text changes, not the messages.

    Raises:
        TypeError: Parts of this kind have no text of their own, or `text` is none.
    """
    if not isinstance(text, str):
        raise TypeError(f"expected a text, got {type(text).__name__}")
    if isinstance(part, TextContent | ThinkingContent):
        return part.model_copy(update={"text": text})
    if isinstance(part, ResourceContentPart):
        resource = part.content.model_copy(update={"content": text, "blob": None, "size_bytes": None})
        return part.model_copy(update={"content": resource})
    if isinstance(part, ToolResultContentPart | PromptResultContentPart):
        return part.model_copy(update={"content": part.content.model_copy(update={"content": text})})
    kind = getattr(part.content_type, "value", part.content_type)
    raise TypeError(f"a part of kind `{kind}` has no text that could be replaced")


def checked_copy(model: Model, **changes: Any) -> Model:
    """A copy with other values, checked as a new one is: what `model_copy(update={...})` does without checks.

    Raises:
        pydantic.ValidationError: A value does not fit, alone or beside the others.
        TypeError: No field is called so.
    """
    if unknown := sorted(changes.keys() - type(model).model_fields.keys()):
        raise TypeError(f"`{type(model).__name__}` has no {', '.join(f'`{name}`' for name in unknown)}")
    # What was kept of unknown keys stays.
    return type(model).model_validate({**dict(model), **changes}, context={"unknown": Unknown.KEEP})
