"""Handlers of plugins that the tests of several adapters use."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

from support import FunctionPlugin, Handler, plugin

from cpex.framework import PluginResult
from cpex.framework.cmf.rewrite import rewrite_text

__all__ = [
    "counting",
    "crash",
    "echo_of_agent",
    "echo_of_asked",
    "echo_of_prompt",
    "hooks_of",
    "mask",
    "recorders",
    "rewriting",
    "without",
]

OVERVIEW = Path(__file__).parents[3] / "docs" / "adapters" / "index.md"


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
        await asyncio.wait_for(arrived.wait(), 60)
        return PluginResult()

    async def post(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=payload.model_copy(update={"result": result(context.get_state("asked"))}))

    both = plugin(pre, hooks=["tool_pre_invoke", "tool_post_invoke"])
    both.tool_post_invoke = post
    return both


def echo_of_agent(parties: int) -> Handler:
    """Keeps what an agent was asked until that many runs are under way, and answers with what it kept."""
    arrived = asyncio.Barrier(parties)

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        if (asked := context.get_state("asked")) is not None:
            answer = payload.messages[0].model_copy(update={"content": asked})
            return PluginResult(modified_payload=payload.model_copy(update={"messages": [answer]}))
        context.set_state("asked", payload.messages[0].content)
        await asyncio.wait_for(arrived.wait(), 60)
        return PluginResult()

    return handler


def echo_of_prompt(parties: int) -> Handler:
    """The same for models."""
    arrived = asyncio.Barrier(parties)

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        if payload.hook.value == "llm_input":
            context.set_state("asked", payload.message.content[0].text)
            await asyncio.wait_for(arrived.wait(), 60)
            return PluginResult()
        asked = context.get_state("asked")
        message = rewrite_text(payload.message, lambda leaf: asked)
        return PluginResult(modified_payload=payload.model_copy(update={"message": message}))

    return handler


def counting(seen: list[Any]) -> Handler:
    """Counts the calls of a request in its own state, and notes whose they are: `(user, count)`."""

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        context.set_state("calls", context.get_state("calls", 0) + 1)
        seen.append((context.global_context.user, context.get_state("calls")))
        return PluginResult()

    return handler


def without(field: str, *names: str) -> Handler:
    """Leaves entries of these names out of a list, and says of the others that they were looked at."""

    async def handler(payload: Any, context: Any) -> PluginResult[Any]:
        left = [each for each in getattr(payload, field) if each["name"] not in names]
        told = [{**each, "description": f"looked at: {each['name']}"} for each in left]
        return PluginResult(modified_payload=payload.model_copy(update={field: told}))

    return handler


def hooks_of(adapter: str) -> set[str]:
    """The hooks that fire in an adapter, as the table of the page about all of them says."""
    lines = OVERVIEW.read_text(encoding="utf-8").splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    start = next(number for number, row in enumerate(rows) if row[0].startswith("hooks"))
    column = rows[start].index(adapter)
    return {hook for row in rows[start + 2 :] if row[column] for hook in re.findall(r"`(\S+?)`", row[0])}


def recorders(seen: set[str]) -> list[FunctionPlugin]:
    """A plugin for each hook of the table, which keeps the hook's name."""
    text = OVERVIEW.read_text(encoding="utf-8")
    every = {hook for line in text.splitlines() if line.startswith("| `") for hook in re.findall(r"`(\S+?)`", line)}

    def of(hook: str) -> FunctionPlugin:
        async def record(payload: Any, context: Any) -> PluginResult[Any]:
            seen.add(hook)
            return PluginResult()

        return plugin(record, hook, hooks=[hook])

    return [of(hook) for hook in sorted(every)]
