"""A host of the published release: makes the calls that standard input lists, and prints what came of each.

In: `{"config": path, "calls": [[tool, args], …]}`. Out: a list of `{"allowed", "args", "code", "details", "state",
"metadata", "error"}`. Runs with the interpreter that has the release; knows only names that both have.
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

from cpex.framework import GlobalContext, PluginManager, ToolPreInvokePayload


async def outcome_of(manager: Any, tool: str, args: dict[str, Any]) -> dict[str, Any]:
    """Make one call."""
    context = GlobalContext(request_id="r1")
    payload = ToolPreInvokePayload(name=tool, args=args)
    try:
        result, _ = await manager.invoke_hook("tool_pre_invoke", payload, context)
    except Exception as error:
        return {"error": str(error)}
    return {
        "allowed": result.continue_processing,
        "args": result.modified_payload.args if result.modified_payload is not None else None,
        "code": result.violation.code if result.violation is not None else None,
        "details": result.violation.details if result.violation is not None else None,
        "state": dict(context.state),
        "metadata": dict(result.metadata or {}),
    }


async def main() -> None:
    """Serve the request."""
    request = json.load(sys.stdin)
    manager = PluginManager(request["config"])
    await manager.initialize()
    outcomes = [await outcome_of(manager, tool, args) for tool, args in request["calls"]]
    plugins = manager.plugin_count
    await manager.shutdown()
    json.dump({"plugins": plugins, "outcomes": outcomes}, sys.stdout)


asyncio.run(main())
