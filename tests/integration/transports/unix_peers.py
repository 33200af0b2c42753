"""Peers on a Unix socket: a server of a test's own, and what is asked of a real one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from integration.transports.servers import HOOKS, KIND, NAME, server_config
from listeners import listening

from cpex.framework import (
    GlobalContext,
    PluginConfig,
    PluginContext,
    ToolPreInvokePayload,
)
from cpex.framework.external.answering import plain_question
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.proto_convert import dict_to_struct
from cpex.framework.external.unix.client import UnixSocketExternalPlugin
from cpex.framework.external.unix.protocol import (
    read_message,
    write_message,
    write_message_async,
)
from cpex.framework.external.unix.server.server import UnixSocketPluginServer

Answering = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]
CONFIG = dict_to_struct({"name": NAME, "kind": KIND, "hooks": HOOKS})


@asynccontextmanager
async def peer(path: str, answering: Answering) -> AsyncIterator[None]:
    """A server that answers the question about the configuration, and every other as it is told."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_message(reader)
        found = messages.GetPluginConfigResponse(found=True, config=CONFIG)
        await write_message_async(writer, found.SerializeToString())
        while True:
            await answering(await read_message(reader), writer)

    async with listening(serve, path):
        yield


def allowed(text: str) -> bytes:
    """An answer that allows, and says for which question it was made."""
    result = dict_to_struct({"continue_processing": True, "metadata": {"for": text}})
    return messages.InvokeHookResponse(plugin_name=NAME, result=result).SerializeToString()


def asking(path: str, timeout: float = 60.0) -> UnixSocketExternalPlugin:
    """A plugin behind that socket."""
    socket = {"path": path, "reconnect_delay": 0.001, "timeout": timeout}
    return UnixSocketExternalPlugin(
        PluginConfig.model_validate({"name": NAME, "kind": "external", "unix_socket": socket})
    )


async def ask(plugin: UnixSocketExternalPlugin, name: str = "t") -> Any:
    """One question."""
    context = PluginContext(global_context=GlobalContext(request_id="r"))
    async with asyncio.timeout(60):
        return await plugin.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name=name), context)


@asynccontextmanager
async def server(folder: Path) -> AsyncIterator[UnixSocketPluginServer]:
    """A server with the contract's plugin."""
    running = UnixSocketPluginServer(str(server_config(folder, {})), str(folder / "s"))
    await running.start()
    try:
        yield running
    finally:
        await running.stop()


async def told(writer: asyncio.StreamWriter, reader: asyncio.StreamReader, data: bytes) -> bytes:
    """What a server answers to a message."""
    write_message(writer, data)
    return await read_message(reader, timeout=90)


def question(name: str = "nothing", **args: Any) -> bytes:
    """A question of an older host."""
    context = {"global_context": {"request_id": "r"}}
    return plain_question("tool_pre_invoke", NAME, {"name": name, "args": args}, context).SerializeToString()
