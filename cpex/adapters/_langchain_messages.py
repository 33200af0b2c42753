"""LangChain's messages as plugins see them, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, convert_to_messages, convert_to_openai_messages

from cpex.framework.cmf.adapters import from_openai, to_openai
from cpex.framework.cmf.message import Message
from cpex.framework.errors import GuardError
from cpex.framework.utils import StructuredData

__all__ = ["as_dicts", "changed", "changed_dicts", "common"]


def common(messages: Sequence[Any]) -> list[Message]:
    """Messages in the common format."""
    return from_openai(convert_to_openai_messages(list(messages)), drop=("name",))


def changed(originals: list[Any], before: list[Message], after: list[Message]) -> list[Any]:
    """The framework's messages, with the content and calls of those that plugins changed; the same list without any."""
    if all(old is new for old, new in zip(before, after, strict=True)):
        return originals
    written = convert_to_messages(to_openai(after))
    return [
        original if old is new else _taken(original, made)
        for original, old, new, made in zip(originals, before, after, written, strict=True)
    ]


def _taken(original: Any, made: Any) -> Any:
    # Ids, usage and what providers add stay those of the original.
    update = {"content": made.content}
    if isinstance(original, AIMessage):
        update["tool_calls"] = made.tool_calls
    return original.model_copy(update=update)


def as_dicts(messages: Sequence[Any]) -> list[dict[str, Any]]:
    """Messages as hooks around agents have them: `{"role": ..., "content": ...}`, as on OpenAI's wire."""
    written = convert_to_openai_messages(list(messages))
    return written if isinstance(written, list) else [written]


def changed_dicts(originals: Sequence[Any], before: Sequence[Any], after: Sequence[Any]) -> list[Any]:
    """The framework's messages that plugins changed, with their ids.

    Args:
        before: What plugins were shown.
        after: What they left.

    Raises:
        GuardError: They made more or fewer of them.
    """
    if len(before) != len(after):
        raise GuardError("a plugin changed the number of an agent's messages; let it change their content")
    plain = [each.model_dump() if isinstance(each, StructuredData) else each for each in after]
    return [
        _taken(original, convert_to_messages([new])[0])
        for original, old, new in zip(originals, before, plain, strict=True)
        if old != new
    ]
