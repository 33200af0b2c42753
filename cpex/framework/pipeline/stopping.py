"""Shutting one plugin down, whatever it makes of that: it has its time, and its failure is not its neighbours'.

Source: docs/reference/pipeline.md, "Time".
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from cpex.framework.base import Plugin
from cpex.framework.errors import tellable
from cpex.framework.models.config import PluginConfig
from cpex.framework.pipeline.stepping import DeadlineReached, Here, carry_on

__all__ = ["stop_plugin"]

# The registry's logger: that is where operators look for what was stopped.
logger = logging.getLogger("cpex.framework.registry")


async def stop_plugin(plugin: Plugin, config: PluginConfig) -> None:
    """Let a plugin release what it holds; how it fails at that is logged, with its name.

    Args:
        config: The trusted one, which says how the plugin is called and how long it may take. Afterwards the plugin is
            cancelled; one that goes on waiting then has five seconds to clean up, and is closed.

    Raises:
        asyncio.CancelledError: The caller was cancelled, whatever the plugin made of it.
    """
    task = asyncio.current_task()
    before = task.cancelling() if task is not None else 0
    try:
        await _ended(plugin, config.shutdown_timeout_s)
    except DeadlineReached:
        logger.error(
            "Plugin %s did not finish shutdown() within %gs and was given up; see what it waits for, or raise its "
            "`shutdown_timeout_s`",
            config.name,
            config.shutdown_timeout_s,
        )
    # Plugin boundary: whatever its clean-up raises must not keep the others from theirs. A task of its own that it has
    # cancelled and awaits raises as if the host were cancelled, and `sys.exit()` is not a plugin's to call.
    except (Exception, asyncio.CancelledError, SystemExit) as error:
        if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > before:
            raise
        logger.error("Plugin %s failed to shut down", config.name, exc_info=tellable(error))


async def _ended(plugin: Plugin, seconds: float) -> None:
    coroutine: Any = _called(plugin)
    try:
        waiting = coroutine.send(None)
    except StopIteration:
        return
    await carry_on(coroutine, Here(), waiting, seconds)


async def _called(plugin: Plugin) -> None:
    # What a plugin returns may be any awaitable; this makes a coroutine of it.
    await plugin.shutdown()
