"""LangChain's messages as plugins see them, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import AIMessage, convert_to_messages, convert_to_openai_messages

from cpex.framework.cmf.adapters import AdapterError, from_openai, to_openai
from cpex.framework.cmf.message import Message
from cpex.framework.errors import GuardError
from cpex.framework.utils import StructuredData

__all__ = ["as_dicts", "changed", "changed_dicts", "common"]


_UNSEEN = ("audio", "function_call")
"""What a provider's answer may say beside its content and calls, and the common format has no part for."""
_WORDS = ("reasoning_content", "refusal")
"""What it may say there in words."""
_REPEATED = frozenset({*_UNSEEN, *_WORDS, "tool_calls", "logprobs"})
"""What says once more, or beside it, what plugins were shown."""


def common(messages: Sequence[Any]) -> list[Message]:
    """Messages in the common format.

    Raises:
        AdapterError: One of them says something that no part of it can hold.
    """
    written = [each for index, message in enumerate(messages) for each in _on_the_wire(message, f"messages[{index}]")]
    return from_openai(written, drop=("name",))


def _on_the_wire(message: Any, place: str) -> list[dict[str, Any]]:
    written = as_dicts([message])
    if not isinstance(message, AIMessage):
        return written
    # SECURITY: the framework's own form leaves these out, and they would go past plugins.
    if message.invalid_tool_calls:
        raise AdapterError(f"{place}.invalid_tool_calls", "is no JSON that plugins could judge")
    for name in _UNSEEN:
        if message.additional_kwargs.get(name):
            raise AdapterError(f"{place}.additional_kwargs.{name}", "is of a kind that plugins are not shown")
    said = {name: message.additional_kwargs[name] for name in _WORDS if message.additional_kwargs.get(name)}
    return [{**said, **each} for each in written]


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
    # Ids, usage and what providers add stay those of the original, but for what repeats the old words.
    update = {"content": made.content}
    if isinstance(original, AIMessage):
        update["tool_calls"] = made.tool_calls
        said = {name: made.additional_kwargs[name] for name in _WORDS if name in made.additional_kwargs}
        update["additional_kwargs"] = _without_repeated(original.additional_kwargs) | said
        update["response_metadata"] = _without_repeated(original.response_metadata)
    return original.model_copy(update=update)


def _without_repeated(told: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in told.items() if key not in _REPEATED}


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
