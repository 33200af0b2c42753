"""A host that calls one hook again and again. Runs with either side's interpreter; knows only names that both have.

Arguments: the host's configuration, the number of calls. Prints `{"1": [seconds, …], "32": [seconds, …], "wall_1": s,
"wall_32": s}`: the time of each call made by one caller, and by 32 at once.
"""

from __future__ import annotations

import asyncio
import json
import sys
from time import perf_counter
from typing import Any

from cpex.framework import GlobalContext, PluginManager, ToolPreInvokePayload

CALLERS = (1, 32)
ARGS = {"query": "select name from people where id = 7", "limit": 20, "tags": ["a", "b"], "deep": {"x": [1, 2.5, None]}}


async def call(manager: Any, number: int) -> float:
    """Seconds of one call."""
    payload = ToolPreInvokePayload(name="search", args=ARGS)
    context = GlobalContext(request_id=f"r{number}")
    start = perf_counter()
    result, _ = await manager.invoke_hook("tool_pre_invoke", payload, context)
    if not result.continue_processing:
        raise RuntimeError("the plugin allows everything, and denied")
    return perf_counter() - start


async def calls(manager: Any, count: int, callers: int) -> list[float]:
    """The times of that many calls by that many callers, each of which waits for its answer."""

    async def caller() -> list[float]:
        return [await call(manager, number) for number in range(count // callers)]

    return [time for times in await asyncio.gather(*(caller() for _ in range(callers))) for time in times]


async def main(config: str, count: int) -> None:
    """Warm up, measure, print."""
    manager = PluginManager(config)
    await manager.initialize()
    if manager.plugin_count != 1:
        raise RuntimeError("the plugin was not loaded")
    await calls(manager, 64, 32)
    told: dict[str, Any] = {}
    for callers in CALLERS:
        start = perf_counter()
        told[str(callers)] = await calls(manager, count, callers)
        told[f"wall_{callers}"] = perf_counter() - start
    await manager.shutdown()
    print(json.dumps(told))


asyncio.run(main(sys.argv[1], int(sys.argv[2])))
