"""Shapes that hosts' own objects may have instead of deriving from our models."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

__all__ = ["MessageLike", "PromptResultLike"]


@runtime_checkable
class MessageLike(Protocol):
    """One message of a prompt. It says nothing of how content is represented.

    `isinstance` asks only whether the attributes exist.
    """

    role: Any
    content: Any


@runtime_checkable
class PromptResultLike(Protocol):
    """A rendered prompt. It says nothing of what a message is made of.

    `isinstance` asks only whether the attributes exist.
    """

    messages: Any
    description: Any
