"""Initialising one plugin, whatever it makes of being told to stop: it has its time, and a short one to clean up.

Source: docs/reference/pipeline.md, "Time".
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from cpex.framework.base import Plugin
from cpex.framework.errors import PluginTimeoutError
from cpex.framework.pipeline.stepping import Deadline, DeadlineReached, Here, carry_on_until

__all__ = ["start_plugin"]

# The registry's logger: that is where operators look for what was started.
logger = logging.getLogger("cpex.framework.registry")


async def start_plugin(plugin: Plugin, name: str, seconds: float) -> None:
    """Await a plugin's `initialize()`, in the caller's task and context variables.

    Args:
        name: How the operator calls the plugin.
        seconds: Afterwards the plugin is cancelled; one that goes on waiting then has five seconds to clean up, and is
            closed. That is also what ends one that goes on after the caller was cancelled.

    Raises:
        PluginTimeoutError: The time was over, whatever the plugin made of its cancellation.
        asyncio.CancelledError: The caller was cancelled, whatever the plugin made of it. One that did not stop when it
            was told to is named in an ERROR.
        Exception: Whatever `initialize()` raises in its time.
    """
    coroutine: Any = _called(plugin)
    try:
        waiting = coroutine.send(None)
    except StopIteration:
        return
    deadline = Deadline(seconds)
    try:
        await carry_on_until(deadline, coroutine, Here(), waiting)
    except DeadlineReached as error:
        raise PluginTimeoutError(_too_late(name, seconds, deadline.abandoned)) from error
    except asyncio.CancelledError:
        if deadline.abandoned:
            # A cancellation carries no text to its host.
            logger.error(
                "Plugin %s went on with initialize() after the start was cancelled, and was given up after %gs; let it "
                "pass `asyncio.CancelledError` on",
                name,
                seconds,
            )
        raise
    finally:
        deadline.let_go()


async def _called(plugin: Plugin) -> None:
    # What a plugin returns may be any awaitable; this makes a coroutine of it.
    await plugin.initialize()


def _too_late(name: str, seconds: float, abandoned: bool) -> str:
    told = (
        ", did not stop when it was told to, and was given up; let it pass `asyncio.CancelledError` on,"
        if abandoned
        else ";"
    )
    return (
        f"Plugin {name} did not finish initialize() within {seconds:g}s{told} see what it waits for, or raise its "
        f"`initialize_timeout_s`"
    )
