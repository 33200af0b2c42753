"""The table of lists: for each of MCP's methods that list something, the hook that decides what of it is shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cpex.framework.hooks.lists import PromptListPayload, ResourceListPayload, ToolListPayload

if TYPE_CHECKING:
    from cpex.framework.guard.request import Request

__all__ = ["LISTS", "Listing", "listed"]


@dataclass(frozen=True, slots=True)
class Listing:
    """A method that lists something."""

    hook: str
    field: str
    """Of the result."""
    payload: Callable[[list[dict[str, Any]]], Any]
    shown: Callable[[Any], list[dict[str, Any]]]


LISTS: Mapping[str, Listing] = {
    "tools/list": Listing(
        "tool_list", "tools", lambda found: ToolListPayload(tools=found), lambda payload: payload.tools
    ),
    "prompts/list": Listing(
        "prompt_list", "prompts", lambda found: PromptListPayload(prompts=found), lambda payload: payload.prompts
    ),
    "resources/list": Listing(
        "resource_list",
        "resources",
        lambda found: ResourceListPayload(resources=found),
        lambda payload: payload.resources,
    ),
    "resources/templates/list": Listing(
        "resource_list",
        "resourceTemplates",
        lambda found: ResourceListPayload(templates=found),
        lambda payload: payload.templates,
    ),
}
"""Every listing by its method."""


async def listed(request: Request, method: str, found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What of a list may be shown, as plugins left it; the same object where they changed nothing.

    Args:
        found: Each entry in the form that MCP has for it.

    Raises:
        PluginViolationError: A plugin denied.
        PluginError: A plugin failed and its `on_error` is `fail`.
        GuardError: Plugins are configured, and none are running.
    """
    listing = LISTS[method]
    request.refuse_unstarted()
    if not request.manager.is_watched(listing.hook):
        return found
    changed = (await request.ask(listing.hook, listing.payload(found))).modified_payload
    return found if changed is None else listing.shown(changed)
