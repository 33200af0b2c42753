"""Which agent acts, and in which conversation."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SerializeAsAny

from cpex.framework.extensions.base import ExtensionModel

__all__ = ["AgentExtension", "ConversationContext"]

MAX_HISTORY = 100
"""Entries of a conversation's history."""


class ConversationEntry(BaseModel):
    """An entry of the history that was read from JSON, so that its class is unknown: its keys are its attributes."""

    model_config = ConfigDict(frozen=True, extra="allow")


def _as_entry(value: Any) -> Any:
    return ConversationEntry.model_validate(value) if isinstance(value, dict) else value


class ConversationContext(ExtensionModel):
    """What was said before."""

    history: list[Annotated[SerializeAsAny[BaseModel], BeforeValidator(_as_entry)]] = Field(
        default_factory=list, max_length=MAX_HISTORY
    )
    """Messages of any model class, oldest first; at most 100."""
    summary: str | None = None
    topics: list[str] = Field(default_factory=list)


class AgentExtension(ExtensionModel):
    """Who produced the operation, and on whose behalf it continues."""

    input: str | None = None
    """What the user originally asked for."""
    session_id: str | None = None
    """The broadest id: a session may hold several conversations."""
    conversation_id: str | None = None
    turn: int | None = None
    """Position in the conversation, counted from zero."""
    agent_id: str | None = None
    parent_agent_id: str | None = None
    """The agent that started this one."""
    conversation: ConversationContext | None = None
