"""Shapes that hosts' own objects may have instead of deriving from our models."""

from __future__ import annotations

from abc import ABCMeta
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

__all__ = ["MessageLike", "PromptResultLike"]

if TYPE_CHECKING:
    # Type checkers take no computed metaclass, and need none.
    _AnyAttribute = ABCMeta
else:

    class _AnyAttribute(type(Protocol)):
        """Lets `isinstance` see attributes that an object makes up, which interpreters from 3.12 on look past."""

        def __instancecheck__(cls, instance: object) -> bool:
            if cls.__dict__.get("_is_protocol"):
                return all(hasattr(instance, name) for name in cls.__annotations__)
            return super().__instancecheck__(instance)


@runtime_checkable
class MessageLike(Protocol, metaclass=_AnyAttribute):
    """One message of a prompt. It says nothing of how content is represented.

    `isinstance` asks only whether the attributes exist; keys of a `StructuredData` are attributes.
    """

    role: Any
    content: Any


@runtime_checkable
class PromptResultLike(Protocol, metaclass=_AnyAttribute):
    """A rendered prompt. It says nothing of what a message is made of.

    `isinstance` asks only whether the attributes exist; keys of a `StructuredData` are attributes.
    """

    messages: Any
    description: Any
