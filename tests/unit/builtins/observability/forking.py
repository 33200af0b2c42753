"""A process whose sink has a record waiting when it forks, as a server does that preloads its application.

Run as `python forking.py HOW PLUGIN`: at the fork the event loop is `closed` or `running`; the plugin is JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable

from cpex.builtins.observability._delivery import sink_queues
from cpex.builtins.observability._sink import Sink
from cpex.framework import GlobalContext, PluginConfig, TenantPluginManager, ToolPreInvokePayload
from cpex.framework.models import Config

WAIT_S = 60

manager = TenantPluginManager(Config(plugins=[PluginConfig.model_validate(json.loads(sys.argv[2]))]))


def sink() -> Sink:
    plugin = manager.get_plugin("sink")
    assert isinstance(plugin, Sink)
    return plugin


async def call(*request_ids: str) -> None:
    for request_id in request_ids:
        payload = ToolPreInvokePayload(name="search", args={})
        result, _ = await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id=request_id))
        await result.wait_for_background_tasks()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not holds():  # noqa: ASYNC110 - nothing tells when a sink has delivered
            await asyncio.sleep(0.01)


async def begin() -> None:
    """Have two records delivered, so that there is a connection or an open file, and leave one in the queue."""
    await manager.initialize()
    await call("first", "second")
    await until(lambda: sink().delivery.delivered == 2)
    await call("waits")
    # Outcomes are told in the background.
    await until(lambda: sink_queues() == {"sink": 1})


async def end(who: str) -> None:
    delivery = sink().delivery
    await call(who)
    await manager.shutdown()
    print(who, delivery.delivered, delivery.dropped, flush=True)


def fork() -> None:
    """Go on in a child, on a loop of its own, and wait for its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            # Nothing of it is left should it hang.
            signal.alarm(WAIT_S)
            asyncio.run(end("child"))
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


async def stay_running() -> None:
    await begin()
    fork()
    await end("parent")


if sys.argv[1] == "closed":
    asyncio.run(begin())
    fork()
    asyncio.run(end("parent"))
else:
    asyncio.run(stay_running())
