"""The table of uses: for each of MCP's methods that use something, how its parameters are shown to plugins and back.

Beside it, `lists.py` has the methods that list what there is to use.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cpex.framework.guard.operations import PROMPT, RESOURCE, TOOL, Kind
from cpex.framework.hooks.prompts import PromptPrehookPayload
from cpex.framework.hooks.resources import ResourcePreFetchPayload
from cpex.framework.hooks.tools import ToolPreInvokePayload

__all__ = ["METHODS", "Method"]


@dataclass(frozen=True, slots=True)
class Method:
    """A method that uses a tool, a prompt or a resource."""

    kind: Kind
    payload: Callable[[Mapping[str, Any]], Any]
    """Of parameters; raises `KeyError` or pydantic's `ValidationError` when they are malformed."""
    params: Callable[[Any], dict[str, Any]]
    """Those that the payload stands for; others stay as they were."""


METHODS: Mapping[str, Method] = {
    "tools/call": Method(
        TOOL,
        lambda params: ToolPreInvokePayload(name=params["name"], args=params.get("arguments") or {}),
        lambda payload: {"name": payload.name, "arguments": payload.args or {}},
    ),
    "prompts/get": Method(
        PROMPT,
        lambda params: PromptPrehookPayload(prompt_id=params["name"], args=params.get("arguments") or {}),
        lambda payload: {"name": payload.prompt_id, "arguments": payload.args or {}},
    ),
    "resources/read": Method(
        RESOURCE,
        lambda params: ResourcePreFetchPayload(uri=params["uri"]),
        lambda payload: {"uri": payload.uri},
    ),
}
"""Every use by its method."""
