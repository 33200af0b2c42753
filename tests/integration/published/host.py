"""A host in an environment of its own: starts the configured plugins, makes the calls it is told, tells the answers.

Standard input holds `{"config": path of a YAML file, "calls": [{"hook", "payload", "context", "extensions"}]}`; the
output is `{"cpex": version, "plugins": {name: class}, "answers": [...]}`.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import warnings
from importlib.metadata import version
from typing import Any

from cpex.framework import GlobalContext, TenantPluginManager, get_hook_registry
from cpex.framework.extensions import Extensions


async def serve(order: dict[str, Any]) -> dict[str, Any]:
    """Carry out one order."""
    manager = TenantPluginManager(order["config"])
    await manager.initialize()
    plugins = [ref.plugin for ref in manager._registry.get_all_plugins()]
    try:
        answers = [await _answer(manager, call) for call in order["calls"]]
    finally:
        await manager.shutdown()
    return {
        "cpex": version("cpex"),
        "plugins": {plugin.name: f"{type(plugin).__module__}.{type(plugin).__qualname__}" for plugin in plugins},
        "answers": answers,
    }


async def _answer(manager: TenantPluginManager, call: dict[str, Any]) -> dict[str, Any]:
    hook = call["hook"]
    payload = get_hook_registry().json_to_payload(hook, call["payload"])
    before = payload.model_dump(mode="json")
    result, _ = await manager.invoke_hook(
        hook,
        payload,
        GlobalContext(**{"request_id": "r", **call.get("context", {})}),
        extensions=Extensions.model_validate(call["extensions"]) if "extensions" in call else None,
    )
    changed, violation = result.modified_payload, result.violation
    return {
        "allowed": result.continue_processing,
        "payload": changed.model_dump(mode="json") if changed is not None else None,
        "violation": violation.model_dump(mode="json") if violation is not None else None,
        "metadata": result.metadata,
        "http_headers": result.http_headers,
        "retry_delay_ms": result.retry_delay_ms,
        "statuses": [str(record.status) for record in result.executions],
        "host_unchanged": payload.model_dump(mode="json") == before,
    }


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    print(json.dumps(asyncio.run(serve(json.load(sys.stdin))), default=str))
