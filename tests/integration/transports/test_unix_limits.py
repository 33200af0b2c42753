"""What may lie where a Unix socket lies, and what the plain form and the limits do to a question."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest
from integration.transports.servers import NAME, server_config
from integration.transports.unix_peers import allowed, ask, asking, peer, question, server, told

from cpex.framework import (
    GlobalContext,
    PluginConfig,
    PluginContext,
    PluginError,
    ToolPreInvokePayload,
)
from cpex.framework.errors import ConfigFileNotFound
from cpex.framework.external.grpc.client import GrpcExternalPlugin
from cpex.framework.external.mcp.client import ExternalPlugin
from cpex.framework.external.proto import plugin_service_pb2 as messages
from cpex.framework.external.proto_convert import struct_to_dict
from cpex.framework.external.unix.client import UnixSocketExternalPlugin
from cpex.framework.external.unix.protocol import (
    MAX_MESSAGE_SIZE,
    write_message_async,
)
from cpex.framework.external.unix.server.server import UnixSocketPluginServer

# Sockets that somebody else may have put there.


@pytest.mark.conformance("E16.parent")
async def test_neither_end_uses_a_socket_where_others_may_replace_it(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        tmp_path.chmod(0o777)
        with pytest.raises(PluginError, match=rf"every user of this machine may write to.*chmod o-w {tmp_path}"):
            await asking(running.socket_path).initialize()
        second = UnixSocketPluginServer(str(server_config(tmp_path, {})), str(tmp_path / "t"))
        with pytest.raises(PermissionError, match="every user of this machine may write to"):
            await second.start()
        tmp_path.chmod(0o700)
        plugin = asking(running.socket_path)
        await plugin.initialize()
        await plugin.shutdown()


@pytest.mark.conformance("E16.parent")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
@pytest.mark.parametrize("way", ["unix_socket", "grpc", "mcp"])
async def test_a_strangers_socket_in_a_folder_like_tmp_is_not_connected_to(tmp_path: Path, way: str) -> None:
    asked: list[bytes] = []

    async def answering(question: bytes, writer: asyncio.StreamWriter) -> None:
        asked.append(question)

    path = str(tmp_path / "s")
    section = {
        "unix_socket": {"path": path},
        "grpc": {"uds": path},
        "mcp": {"proto": "STREAMABLEHTTP", "url": "http://localhost/mcp", "uds": path},
    }[way]
    async with peer(path, answering):
        tmp_path.chmod(0o1777)
        os.chown(path, 12345, 12345)
        config = PluginConfig.model_validate({"name": NAME, "kind": "external", way: section})
        classes = {"unix_socket": UnixSocketExternalPlugin, "grpc": GrpcExternalPlugin, "mcp": ExternalPlugin}
        plugin = classes[way](config)
        with pytest.raises(PluginError, match="belongs to user 12345, not to this one"):
            async with asyncio.timeout(60):
                await plugin.initialize()
        await plugin.shutdown()
    assert asked == []


# What the plain form and the limits do to a question.


async def test_an_error_of_a_plugin_keeps_its_details_on_the_way(tmp_path: Path) -> None:
    async with server(tmp_path) as running:
        reader, writer = await asyncio.open_unix_connection(running.socket_path)
        answer = messages.InvokeHookResponse.FromString(await told(writer, reader, question("fail_in_detail")))
        assert (answer.error.message, answer.error.code) == ("in detail", "DETAILED")
        assert struct_to_dict(answer.error.details) == {"where": ["here", 1.0]}
        writer.close()


@pytest.mark.conformance("E5")
@pytest.mark.parametrize("form", ["frames", "plain"])
async def test_an_answer_over_the_limit_is_an_error_and_is_not_asked_for_again(
    tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with server(tmp_path) as running:
        plugin = asking(running.socket_path, timeout=60)
        await plugin.initialize()
        if form == "plain":
            # As if the server were of release 0.1, which knows no frames.
            monkeypatch.setattr(plugin, "_features", frozenset())
        connection = plugin._session.link._answers  # type: ignore[union-attr]  # it is ready
        with pytest.raises(PluginError, match="is over the 16777216 bytes that the socket carries"):
            await ask(plugin, "swell")
        assert (await ask(plugin, "count_swells")).metadata == {"swells": 1}
        assert plugin._session.link._answers is connection  # type: ignore[union-attr]  # as above
        with pytest.raises(PluginError, match=r"a question of .* bytes is over the 16777216 bytes") as raised:
            await ask(plugin, "t" * (MAX_MESSAGE_SIZE + 1))
        assert raised.value.error.code == "external_too_large"
        await plugin.shutdown()


async def test_what_fits_no_struct_is_the_plugins_error(tmp_path: Path) -> None:
    async def answering(question: bytes, writer: asyncio.StreamWriter) -> None:
        await write_message_async(writer, allowed("next"))

    path = str(tmp_path / "s")
    async with peer(path, answering):
        plugin = asking(path)
        await plugin.initialize()
        context = PluginContext(global_context=GlobalContext(request_id="r"))
        for value in (10**400, threading.Lock()):
            payload = ToolPreInvokePayload(name="t", args={"x": value})
            with pytest.raises(PluginError) as raised:
                await plugin.invoke_hook("tool_pre_invoke", payload, context)
            assert raised.value.error.code == "external_value"
        assert (await ask(plugin)).metadata == {"for": "next"}
        await plugin.shutdown()


async def test_the_server_listens_where_its_configuration_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PLUGINS_UNIX_SOCKET_PATH", raising=False)
    path = str(tmp_path / "configured")
    config = server_config(tmp_path, {}, unix_socket_server_settings={"path": path})
    assert UnixSocketPluginServer(str(config)).socket_path == path
    # Older servers read nothing but the variable, so it decides where it is set.
    monkeypatch.setenv("PLUGINS_UNIX_SOCKET_PATH", str(tmp_path / "variable"))
    assert UnixSocketPluginServer(str(config)).socket_path == str(tmp_path / "variable")


async def test_a_missing_configuration_is_told_when_the_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("PLUGINS_UNIX_SOCKET_PATH", "UNIX_SOCKET_PATH"):
        monkeypatch.delenv(variable, raising=False)
    config = tmp_path / "plugins.yaml"
    at_default = UnixSocketPluginServer(str(config))
    assert (at_default.socket_path, at_default.running) == ("/tmp/mcpgateway-plugins.sock", False)
    waiting = UnixSocketPluginServer(str(config), str(tmp_path / "s"))
    with pytest.raises(ConfigFileNotFound):
        await waiting.start()
    server_config(tmp_path, {}).rename(config)
    await waiting.start()
    assert (waiting.socket_path, waiting.running) == (str(tmp_path / "s"), True)
    await waiting.stop()
