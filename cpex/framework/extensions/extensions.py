"""The container of all extension slots."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict

from cpex.framework.extensions.agent import AgentExtension
from cpex.framework.extensions.completion import CompletionExtension
from cpex.framework.extensions.delegation import DelegationExtension
from cpex.framework.extensions.framework import FrameworkExtension
from cpex.framework.extensions.http import HttpExtension
from cpex.framework.extensions.llm import LLMExtension
from cpex.framework.extensions.mcp import MCPExtension
from cpex.framework.extensions.meta import MetaExtension
from cpex.framework.extensions.provenance import ProvenanceExtension
from cpex.framework.extensions.request import RequestExtension
from cpex.framework.extensions.security import SecurityExtension
from cpex.framework.models.lazy import LazyModel

__all__ = ["Extensions"]


class Extensions(LazyModel):
    """Typed facts about a request that travel beside its payload.

    A plugin receives a view that holds the slots its capabilities open; the others are `None`. Frozen: a plugin that
    may change a slot returns `extensions.model_copy(update={...})` as `modified_extensions`, and the framework takes
    over what the plugin's capabilities allow. There is no slot for raw credentials.
    """

    model_config = ConfigDict(frozen=True)

    request: RequestExtension | None = None
    agent: AgentExtension | None = None
    """Needs `read_agent`."""
    http: HttpExtension | None = None
    """Needs `read_headers`; `write_headers` to replace it."""
    security: SecurityExtension | None = None
    """Always there when the host has set it; subject and labels need their capabilities."""
    delegation: DelegationExtension | None = None
    """Needs `read_delegation`; `append_delegation` to extend the chain."""
    mcp: MCPExtension | None = None
    completion: CompletionExtension | None = None
    provenance: ProvenanceExtension | None = None
    llm: LLMExtension | None = None
    framework: FrameworkExtension | None = None
    meta: MetaExtension | None = None
    custom: dict[str, Any] | None = None
    """Free for all: every plugin may read and replace it."""
