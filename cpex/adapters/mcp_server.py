"""The guard in a server of the MCP SDK: middleware for its `Server` and `MCPServer`.

Tools, prompts and resources run between their hooks, lists of them go through theirs; every other message passes.
Plugins see results in the form that goes over the wire. Needs the `mcp` package, which the plain install holds.

Source: docs/adapters/mcp_server.md; https://modelcontextprotocol.io/specification/2025-06-18/server/tools, "Error
Handling".
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mcp import MCPError
from mcp.server.context import CallNext, ServerRequestContext
from mcp.types import INTERNAL_ERROR, CallToolResult, TextContent

from cpex.framework.errors import GuardError, PayloadSizeError, PluginError, PluginViolationError, cause_text
from cpex.framework.extensions import Extensions
from cpex.framework.extensions.http import HttpExtension
from cpex.framework.guard import TOOL, Kind
from cpex.framework.guard.lists import LISTS, listed
from cpex.framework.guard.methods import METHODS
from cpex.framework.models.result import PluginViolation

if TYPE_CHECKING:
    from cpex.framework.guard.facts import RequestFacts
    from cpex.framework.manager import PluginManager

__all__ = ["DENIED", "McpGuard", "denied_call", "denied_request", "failure_text"]

logger = logging.getLogger(__name__)

DENIED = -32001
"""Code of the error that a denied request is answered with, where the violation has none (JSON-RPC 2.0, "Error object":
of the range that is left to servers)."""
_META = "cpex/violation"
"""Key below `_meta` of a denied call's result: `{"code": ..., "reason": ...}`."""


class McpGuard:
    """Server middleware.

        server.middleware.append(McpGuard(manager))

    A denied call of a tool is answered with a result that is an error, so that the model reads the reason; a denied
    prompt or resource, and a denial with an `mcp_error_code`, with a JSON-RPC error. A plugin that rewrites the name of
    a tool or prompt, or the address of a resource, has the server answer for the other one.
    """

    def __init__(
        self, manager: PluginManager, *, facts: Callable[[ServerRequestContext[Any, Any]], RequestFacts] | None = None
    ) -> None:
        """Make it.

        Args:
            facts: What is known of a request from the server's context: user, tenant, session.
        """
        self._manager = manager
        self._facts = facts

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Any:
        """Handle one message."""
        if ctx.method in LISTS and ctx.request_id is not None:
            return await self._listed(ctx, call_next)
        method = METHODS.get(ctx.method)
        if method is None or ctx.request_id is None or not _well_formed(ctx):
            return await call_next(ctx)
        async with self._manager.request(**self._known(ctx)) as request:
            params = dict(ctx.params or {})
            return await answered(
                method.kind,
                request.perform(
                    method.kind,
                    method.payload(params),
                    lambda ready: _on_the_wire(call_next(replace(ctx, params={**params, **method.params(ready)}))),
                ),
            )

    async def _listed(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> Any:
        """A list, or a page of one, without what the client may not see."""
        field = LISTS[ctx.method].field
        async with self._manager.request(**self._known(ctx)) as request:
            answer = await call_next(ctx)
            wire = await _on_the_wire(answer)
            found = wire.get(field)
            if not isinstance(found, list):
                return answer
            shown = await answered(None, listed(request, ctx.method, found))
            return answer if shown is found else {**wire, field: shown}

    def _known(self, ctx: ServerRequestContext[Any, Any]) -> RequestFacts:
        facts: RequestFacts = {**self._facts(ctx)} if self._facts is not None else {}
        headers = getattr(ctx.request, "headers", None)
        if headers is not None:
            facts.setdefault("session_id", headers.get("mcp-session-id"))
            given = facts.get("extensions") or Extensions()
            if given.http is None:
                facts["extensions"] = given.model_copy(update={"http": HttpExtension(headers=dict(headers))})
        return facts


def _well_formed(ctx: ServerRequestContext[Any, Any]) -> bool:
    """Whether the parameters can be shown to plugins; the server refuses others before anything is done."""
    params = ctx.params or {}
    name = params.get("uri" if ctx.method == "resources/read" else "name")
    return isinstance(name, str) and isinstance(params.get("arguments") or {}, Mapping)


async def _on_the_wire(result: Any) -> Any:
    given = await result if isinstance(result, Awaitable) else result
    return given if isinstance(given, dict) else given.model_dump(mode="json", by_alias=True, exclude_none=True)


async def answered(kind: Kind | None, operation: Awaitable[Any]) -> Any:
    """The result of an operation, or what the protocol has for its denial or failure.

    Args:
        kind: Of the operation; `None` of a list.

    Raises:
        MCPError: It was denied and has no result that could say so, or a plugin failed.
    """
    try:
        return await operation
    except PluginViolationError as denial:
        violation = denial.violation or PluginViolation(reason="denied", description="", code="plugin_violation")
        if kind is TOOL and violation.mcp_error_code is None:
            return denied_call(violation)
        raise denied_request(violation) from denial
    except (PluginError, GuardError, PayloadSizeError) as error:
        code = error.error.mcp_error_code if isinstance(error, PluginError) else None
        raise MCPError(code or INTERNAL_ERROR, failure_text(error)) from error


def failure_text(error: Exception) -> str:
    """What a client reads of a guard that failed. What failed inside is the operator's to know, and goes to the log."""
    logger.error("A request was not handled because its guard failed: %s", cause_text(error))
    if isinstance(error, PluginError):
        return f"plugin {error.error.plugin_name} failed, so the request was not handled"
    if isinstance(error, PayloadSizeError):
        # It tells sizes, and nothing of the content.
        return f"too large for the plugins to judge: {error}"
    return "the guard failed, so the request was not handled; the server's log says more"


def denied_call(violation: PluginViolation) -> CallToolResult:
    """The result of a denied call, which models read."""
    text = f"denied: {violation.reason} ({violation.code})"
    meta = {_META: {"code": violation.code, "reason": violation.reason}}
    return CallToolResult.model_validate(
        {"content": [TextContent(type="text", text=text)], "isError": True, "_meta": meta}
    )


def denied_request(violation: PluginViolation) -> MCPError:
    """The error that a denied request is answered with."""
    data = {"code": violation.code, "reason": violation.reason}
    return MCPError(violation.mcp_error_code or DENIED, f"denied: {violation.reason}", data)
