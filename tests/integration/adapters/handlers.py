"""Handlers of plugins that the tests of several adapters use."""

from __future__ import annotations

import asyncio
from typing import Any

from support import FunctionPlugin, Handler, plugin

from cpex.framework import PluginResult
from cpex.framework.cmf.rewrite import rewrite_text

__all__ = ["crash", "echo_of_asked", "mask", "rewriting"]


def rewriting(**changes: Any) -> Handler:
    """Puts other values into the payload."""

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=payload.model_copy(update=changes))

    return handler


async def mask(payload: Any, context: Any) -> PluginResult[Any]:
    """Replaces the word `secret` wherever a message has it."""
    message = rewrite_text(payload.message, lambda leaf: leaf.text.replace("secret", "***"))
    return PluginResult(modified_payload=payload.model_copy(update={"message": message}))


async def crash(payload: Any, context: Any) -> PluginResult[Any]:
    """Fails, with a text that nobody outside may read."""
    raise RuntimeError("password is hunter2")


def echo_of_asked(parties: int, result: Any = lambda asked: asked) -> FunctionPlugin:
    """Keeps what a tool was asked until that many are under way, and answers with what it kept.

    Args:
        result: Makes the tool's result of what was kept.
    """
    arrived = asyncio.Barrier(parties)

    async def pre(payload: Any, context: Any) -> PluginResult[Any]:
        context.set_state("asked", payload.args["q"])
        await asyncio.wait_for(arrived.wait(), 10)
        return PluginResult()

    async def post(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=payload.model_copy(update={"result": result(context.get_state("asked"))}))

    both = plugin(pre, hooks=["tool_pre_invoke", "tool_post_invoke"])
    both.tool_post_invoke = post  # type: ignore[attr-defined]
    return both
