"""Typed facts about a request, who may see them, and who may change them.

The names below load on first use. `tiers` holds the rules: which capability opens which slot, and which changes of a
plugin's the framework takes over.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cpex.framework.extensions.agent import AgentExtension, ConversationContext
    from cpex.framework.extensions.completion import CompletionExtension, StopReason, TokenUsage
    from cpex.framework.extensions.constants import SlotName
    from cpex.framework.extensions.delegation import DelegationExtension, DelegationHop
    from cpex.framework.extensions.extensions import Extensions
    from cpex.framework.extensions.framework import FrameworkExtension
    from cpex.framework.extensions.http import HttpExtension
    from cpex.framework.extensions.llm import LLMExtension
    from cpex.framework.extensions.mcp import MCPExtension, PromptMetadata, ResourceMetadata, ToolMetadata
    from cpex.framework.extensions.meta import MetaExtension
    from cpex.framework.extensions.provenance import ProvenanceExtension
    from cpex.framework.extensions.request import RequestExtension
    from cpex.framework.extensions.security import (
        DataPolicy,
        ObjectSecurityProfile,
        RetentionPolicy,
        SecurityExtension,
        SubjectExtension,
        SubjectType,
    )
    from cpex.framework.extensions.tiers import AccessPolicy, Capability, MutabilityTier, TierViolationError

__all__ = [
    "AccessPolicy",
    "AgentExtension",
    "Capability",
    "CompletionExtension",
    "ConversationContext",
    "DataPolicy",
    "DelegationExtension",
    "DelegationHop",
    "Extensions",
    "FrameworkExtension",
    "HttpExtension",
    "LLMExtension",
    "MCPExtension",
    "MetaExtension",
    "MutabilityTier",
    "ObjectSecurityProfile",
    "PromptMetadata",
    "ProvenanceExtension",
    "RequestExtension",
    "ResourceMetadata",
    "RetentionPolicy",
    "SecurityExtension",
    "SlotName",
    "StopReason",
    "SubjectExtension",
    "SubjectType",
    "TierViolationError",
    "TokenUsage",
    "ToolMetadata",
]

_HOMES = {
    "agent": ("AgentExtension", "ConversationContext"),
    "completion": ("CompletionExtension", "StopReason", "TokenUsage"),
    "constants": ("SlotName",),
    "delegation": ("DelegationExtension", "DelegationHop"),
    "extensions": ("Extensions",),
    "framework": ("FrameworkExtension",),
    "http": ("HttpExtension",),
    "llm": ("LLMExtension",),
    "mcp": ("MCPExtension", "PromptMetadata", "ResourceMetadata", "ToolMetadata"),
    "meta": ("MetaExtension",),
    "provenance": ("ProvenanceExtension",),
    "request": ("RequestExtension",),
    "security": (
        "DataPolicy",
        "ObjectSecurityProfile",
        "RetentionPolicy",
        "SecurityExtension",
        "SubjectExtension",
        "SubjectType",
    ),
    "tiers": ("AccessPolicy", "Capability", "MutabilityTier", "TierViolationError"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
