"""A host with one isolated plugin: how long its start takes, and its calls. Prints JSON.

Usage: `isolated_calls.py CONFIG CALLS`. Written with names that both releases export. A start is everything up to the
first answer, since one release starts the worker with the first call; the import of the framework is outside.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from time import perf_counter
from typing import Any

from cpex.framework import GlobalContext, TenantPluginManager, ToolPreInvokePayload

CALLERS = 32
WARM_UP = 30


async def measure(config: str, calls: int) -> dict[str, Any]:
    """Start, call one after another, call from many at once."""
    started = perf_counter()
    manager = TenantPluginManager(config)
    await manager.initialize()
    await call(manager)
    start_s = perf_counter() - started
    for _ in range(WARM_UP):
        await call(manager)
    alone = await timed(manager, 1, calls)
    together = await timed(manager, CALLERS, calls)
    # The published release ends its worker in this way only.
    plugin: Any = manager.get_plugin("bench")
    await plugin.cleanup()
    await manager.shutdown()
    return {"start_s": start_s, "alone": alone, "together": together}


async def call(manager: TenantPluginManager) -> float:
    """One hook call; seconds. The plugin's work must have been done."""
    payload = ToolPreInvokePayload(name="t", args={"city": "Lisbon"})
    started = perf_counter()
    result, _ = await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id="1"))
    took = perf_counter() - started
    if not result.continue_processing or result.modified_payload.args["seen"] != 1:
        raise RuntimeError("the plugin has not run")
    return took


async def timed(manager: TenantPluginManager, callers: int, calls: int) -> dict[str, float]:
    """Calls a second, and percentiles of one call in milliseconds."""

    async def caller() -> list[float]:
        return [await call(manager) for _ in range(calls // callers)]

    started = perf_counter()
    took = sorted(each for some in await asyncio.gather(*(caller() for _ in range(callers))) for each in some)
    whole = perf_counter() - started
    return {
        "per_s": len(took) / whole,
        "p50_ms": took[len(took) // 2] * 1000,
        "p99_ms": took[int(len(took) * 0.99)] * 1000,
    }


if __name__ == "__main__":
    logging.disable(logging.CRITICAL)
    print(json.dumps(asyncio.run(measure(sys.argv[1], int(sys.argv[2])))))
