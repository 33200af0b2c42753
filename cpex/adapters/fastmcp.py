"""The guard in a FastMCP server, as its own kind of middleware. Needs the extra `fastmcp`.

Source: docs/adapters/fastmcp.md; https://gofastmcp.com/servers/middleware.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cpex.adapters._extras import needs

with needs("fastmcp"):
    from fastmcp.exceptions import PromptError, ResourceError, ToolError
    from fastmcp.prompts.base import Message as PromptMessage
    from fastmcp.prompts.base import PromptResult
    from fastmcp.resources.base import ResourceContent, ResourceResult
    from fastmcp.server.dependencies import get_http_headers
    from fastmcp.server.middleware import Middleware
    from fastmcp.tools.base import ToolResult
    from mcp import MCPError
    from mcp.types import INTERNAL_ERROR, ContentBlock, GetPromptResult, ReadResourceResult
    from pydantic import TypeAdapter

from cpex.adapters._requests import denial_text
from cpex.adapters.mcp_server import DENIED, failure_text
from cpex.framework.errors import GuardError, PayloadSizeError, PluginError, PluginViolationError
from cpex.framework.extensions import Extensions
from cpex.framework.extensions.http import HttpExtension
from cpex.framework.guard import PROMPT, RESOURCE, TOOL, Kind
from cpex.framework.guard.lists import listed
from cpex.framework.hooks.prompts import PromptPrehookPayload
from cpex.framework.hooks.resources import ResourcePreFetchPayload
from cpex.framework.hooks.tools import ToolPreInvokePayload

if TYPE_CHECKING:
    from cpex.framework.guard.facts import RequestFacts
    from cpex.framework.manager import PluginManager

__all__ = ["GuardMiddleware"]

_BLOCKS: TypeAdapter[list[Any]] = TypeAdapter(list[ContentBlock])


# The framework's base is typed as `Any` where it is not installed.
class GuardMiddleware(Middleware):  # type: ignore[misc]
    """FastMCP middleware that runs tools, prompts and resources between their hooks, and filters lists of them.

        server.add_middleware(GuardMiddleware(manager))

    Plugins see results in the form that goes over the wire. A denial is a `ToolError`, `PromptError` or
    `ResourceError`, or an `MCPError` where the violation has an `mcp_error_code`.
    """

    def __init__(self, manager: PluginManager, *, facts: Callable[[Any], RequestFacts] | None = None) -> None:
        """Make it.

        Args:
            facts: What is known of a request from its `MiddlewareContext`: user, tenant, session.
        """
        self._manager = manager
        self._facts = facts

    async def on_call_tool(self, context: Any, call_next: Any) -> Any:
        """Call a tool between its hooks."""
        message = context.message
        return await self._guarded(
            TOOL,
            context,
            ToolPreInvokePayload(name=message.name, args=dict(message.arguments or {})),
            lambda ready: call_next(_with(context, name=ready.name, arguments=ready.args or {})),
            _tool_on_the_wire,
            _tool_result,
        )

    async def on_get_prompt(self, context: Any, call_next: Any) -> Any:
        """Render a prompt between its hooks."""
        message = context.message
        return await self._guarded(
            PROMPT,
            context,
            PromptPrehookPayload(prompt_id=message.name, args=dict(message.arguments or {})),
            lambda ready: call_next(_with(context, name=ready.prompt_id, arguments=ready.args or {})),
            lambda result: _dumped(result.to_mcp_prompt_result()),
            _prompt_result,
        )

    async def on_read_resource(self, context: Any, call_next: Any) -> Any:
        """Read a resource between its hooks."""
        uri = str(context.message.uri)
        return await self._guarded(
            RESOURCE,
            context,
            ResourcePreFetchPayload(uri=uri),
            lambda ready: call_next(_with(context, uri=_same_kind(context.message.uri, ready.uri))),
            lambda result: _dumped(result.to_mcp_result(uri)),
            _resource_result,
        )

    async def on_list_tools(self, context: Any, call_next: Any) -> Any:
        """Leave out tools that the client may not see."""
        return await self._listed("tools/list", context, call_next, lambda tool: tool.to_mcp_tool())

    async def on_list_prompts(self, context: Any, call_next: Any) -> Any:
        """Leave out prompts that the client may not see."""
        return await self._listed("prompts/list", context, call_next, lambda prompt: prompt.to_mcp_prompt())

    async def on_list_resources(self, context: Any, call_next: Any) -> Any:
        """Leave out resources that the client may not see."""
        return await self._listed("resources/list", context, call_next, lambda each: each.to_mcp_resource())

    async def on_list_resource_templates(self, context: Any, call_next: Any) -> Any:
        """Leave out templates of resources that the client may not see."""
        return await self._listed("resources/templates/list", context, call_next, lambda each: each.to_mcp_template())

    async def _listed(self, method: str, context: Any, call_next: Any, show: Callable[[Any], Any]) -> Any:
        """Show a list to plugins as it would go over the wire, and give what they left of it."""
        try:
            async with self._manager.request(**self._known(context)) as request:
                found = list(await call_next(context))
                written = [_dumped(show(each)) for each in found]
                shown = await listed(request, method, written)
            return found if shown is written else [_entry(found, written, each) for each in shown]
        except PluginViolationError as denial:
            violation = denial.violation
            code = (violation.mcp_error_code if violation is not None else None) or DENIED
            raise MCPError(code, denial_text(denial)) from denial
        except _FAILURES as error:
            raise MCPError(INTERNAL_ERROR, failure_text(error)) from error

    async def _guarded(
        self,
        kind: Kind,
        context: Any,
        payload: Any,
        run: Callable[[Any], Awaitable[Any]],
        show: Callable[[Any], Any],
        take: Callable[[Any, Any], Any],
    ) -> Any:
        """Perform it; `show` makes the wire's form of a result, `take` a result of what plugins made of that."""
        given: list[Any] = []

        async def perform(ready: Any) -> Any:
            result = await run(ready)
            given[:] = [result, show(result)]
            return given[1]

        try:
            async with self._manager.request(**self._known(context)) as request:
                if not request.guards(kind):
                    return await run(payload)
                answer = await request.perform(kind, payload, perform)
            return given[0] if answer is given[1] else take(given[0], answer)
        except PluginViolationError as denial:
            raise _denied(kind, denial) from denial
        except _FAILURES as error:
            raise _ERRORS[kind.name](failure_text(error)) from error

    def _known(self, context: Any) -> RequestFacts:
        facts: RequestFacts = {**self._facts(context)} if self._facts is not None else {}
        # Empty over transports that have no headers.
        headers = get_http_headers(include_all=True)
        facts.setdefault("session_id", headers.get("mcp-session-id"))
        given = facts.get("extensions") or Extensions()
        if headers and given.http is None:
            facts["extensions"] = given.model_copy(update={"http": HttpExtension(headers=dict(headers))})
        return facts


_FAILURES = (PluginError, GuardError, PayloadSizeError)
_ERRORS: Mapping[str, type[Exception]] = {
    TOOL.name: ToolError,
    PROMPT.name: PromptError,
    RESOURCE.name: ResourceError,
}


def _denied(kind: Kind, denial: PluginViolationError) -> Exception:
    violation = denial.violation
    if violation is None:
        return _ERRORS[kind.name]("denied")
    text = f"denied: {violation.reason} ({violation.code})"
    if violation.mcp_error_code is not None:
        return MCPError(violation.mcp_error_code, text, {"code": violation.code, "reason": violation.reason})
    return _ERRORS[kind.name](text)


_FIELDS = {"inputSchema": "parameters", "outputSchema": "output_schema", "mimeType": "mime_type"}
"""What the framework calls what the wire calls otherwise."""
_REWRITTEN = frozenset({"title", "description", *_FIELDS.values()})
"""What of the framework's objects is on the wire as it is; the rest are objects of its own."""


def _entry(found: Sequence[Any], written: Sequence[Mapping[str, Any]], shown: Mapping[str, Any]) -> Any:
    """The framework's object of an entry that plugins left, with what they rewrote of it.

    Raises:
        GuardError: It is of none that was there, or its rewrite has no place in the framework's object.
    """
    name = _named(shown)
    place = next((number for number, each in enumerate(written) if _named(each) == name), None)
    if place is None:
        raise GuardError("a plugin added or renamed an entry of a list; let it leave out and describe what is there")
    before, original = written[place], found[place]
    changed = {key: shown.get(key) for key in {*before, *shown} if before.get(key) != shown.get(key)}
    update = {_FIELDS.get(key, key): value for key, value in changed.items()}
    if unknown := sorted(update.keys() - _REWRITTEN):
        raise GuardError(
            f"a plugin rewrote `{unknown[0][:100]}` in a list; it can rewrite titles, descriptions and schemas"
        )
    return original.model_copy(update=update) if update else original


def _named(entry: Mapping[str, Any]) -> Any:
    return entry.get("uri") or entry.get("uriTemplate") or entry.get("name")


def _with(context: Any, **changes: Any) -> Any:
    return context.copy(message=context.message.model_copy(update=changes))


def _same_kind(uri: Any, text: str) -> Any:
    """An address in the class that the framework has for it."""
    return text if isinstance(uri, str) else type(uri)(text)


_OWN_META = "fastmcp"
"""What the framework keeps in the metadata of results, below its own name."""


def _dumped(model: Any) -> Any:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)


def _tool_on_the_wire(result: Any) -> dict[str, Any]:
    wire = {"content": [_dumped(block) for block in result.content], "isError": result.is_error}
    more = {"structuredContent": result.structured_content, "_meta": result.meta}
    return wire | {key: value for key, value in more.items() if value is not None}


def _tool_result(before: Any, wire: Any) -> Any:
    wire = _object(wire)
    # A plugin that made a result anew knows nothing of what the framework's client needs for reading it.
    own = {key: value for key, value in (before.meta or {}).items() if key == _OWN_META}
    return ToolResult(
        content=_BLOCKS.validate_python(wire.get("content") or []),
        structured_content=wire.get("structuredContent"),
        meta=wire.get("_meta", own or None),
        is_error=wire.get("isError") is True,
    )


def _prompt_result(before: Any, wire: Any) -> Any:
    told = GetPromptResult.model_validate(_object(wire))
    messages = [PromptMessage(each.content, role=each.role) for each in told.messages]
    return PromptResult(messages, description=told.description, meta=told.meta)


def _resource_result(before: Any, wire: Any) -> Any:
    told = ReadResourceResult.model_validate(_object(wire))
    contents = [ResourceContent(_content_of(each), mime_type=each.mime_type, meta=each.meta) for each in told.contents]
    return ResourceResult(contents, meta=told.meta)


def _content_of(each: Any) -> str | bytes:
    return each.text if hasattr(each, "text") else base64.b64decode(each.blob)


def _object(wire: Any) -> Mapping[str, Any]:
    if isinstance(wire, Mapping):
        return wire
    raise GuardError(f"a plugin put a {type(wire).__name__} in the place of a result; it must have the form of MCP's")
