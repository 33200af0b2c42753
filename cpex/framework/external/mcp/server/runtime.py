"""The MCP server as a program: `python -m cpex.framework.external.mcp.server.runtime`, or this file by its path.

What it serves is where `PLUGINS_CONFIG_PATH` says, and how it is spoken to is what `PLUGINS_TRANSPORT` says: `stdio` or
`http`; unset, standard input and output unless they are a terminal.

Source: docs/reference/external.md, "Servers".
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from cpex.framework.external.running import run_until_stopped
from cpex.framework.external.server import ExternalPluginServer
from cpex.framework.models.transport import MCPServerConfig
from cpex.framework.settings import get_transport_settings

if TYPE_CHECKING:
    from cpex.framework.external.mcp.server.web import PLUGIN_INFO as PLUGIN_INFO

__all__ = [
    "PLUGIN_INFO",
    "SERVER",
    "SSLCapableMCPServer",
    "get_plugin_config",
    "get_plugin_configs",
    "invoke_hook",
    "main",
    "run",
    "serve",
]

SERVER: ExternalPluginServer | None = None
"""What is being served; `None` while nothing is."""

_TRANSPORTS = {"stdio": "stdio", "http": "http", "streamablehttp": "http", "streamable-http": "http"}
_ELSEWHERE = ("grpc", "unix")


def __getattr__(name: str) -> Any:
    # The metrics library is loaded on first use.
    if name == "PLUGIN_INFO":
        from cpex.framework.external.mcp.server.web import PLUGIN_INFO

        return PLUGIN_INFO
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class SSLCapableMCPServer:
    """The HTTP server of what this module serves."""

    def __init__(self, server_config: MCPServerConfig) -> None:
        self.server_config = server_config

    async def run_streamable_http_async(self) -> None:
        """Serve until cancelled.

        Raises:
            OSError: The address cannot be listened on.
            ValueError: TLS is not configured completely.
            RuntimeError: There is nothing to serve yet.
        """
        from cpex.framework.external.mcp.server.web import serve_http

        await serve_http(_served(), self.server_config, metrics=metrics_enabled())


async def get_plugin_configs() -> list[dict[str, Any]]:
    """The configurations of the plugins that are served.

    Raises:
        RuntimeError: There is nothing to serve yet.
    """
    return await _served().get_plugin_configs()


async def get_plugin_config(name: str) -> dict[str, Any]:
    """The configuration of one plugin, empty when there is none of that name.

    Raises:
        RuntimeError: There is nothing to serve yet.
    """
    return await _served().get_plugin_config(name) or {}


async def invoke_hook(
    hook_type: str, plugin_name: str, payload: dict[str, Any], context: dict[str, Any]
) -> dict[str, Any]:
    """Run one hook of one plugin; see `ExternalPluginServer.invoke_hook`.

    Raises:
        RuntimeError: There is nothing to serve yet.
    """
    return await _served().invoke_hook(hook_type, plugin_name, payload, context)


def _served() -> ExternalPluginServer:
    if SERVER is None:
        raise RuntimeError("Plugin server not initialized; `run()` does that")
    return SERVER


def metrics_enabled() -> bool:
    """Whether the server tells its metrics."""
    # The variable has no prefix and one word: so it is in release 0.1.
    return os.environ.get("ENABLE_METRICS", "true").strip().lower() == "true"


def chosen_transport() -> str:
    """`stdio` or `http`, as the environment says.

    Raises:
        ValueError: The word is unknown, or nothing was chosen and standard input is empty.
    """
    word = (get_transport_settings().transport or "").strip().lower()
    if word in _ELSEWHERE:
        raise ValueError(
            f"PLUGINS_TRANSPORT={word} is served by `python -m cpex.framework.external.{word}.server.runtime`, "
            "and this is the MCP server"
        )
    if word and word not in _TRANSPORTS:
        raise ValueError(f"unknown PLUGINS_TRANSPORT {word[:40]!r}; write stdio or http")
    if word:
        return _TRANSPORTS[word]
    if _is_nothing(0):
        raise ValueError("standard input is empty, so nobody can speak to this server; set PLUGINS_TRANSPORT=http")
    return "http" if sys.stdin is not None and sys.stdin.isatty() else "stdio"


def _is_nothing(fd: int) -> bool:
    """Whether a descriptor is closed or the null device, as in a container that nobody is attached to."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(os.devnull))
    except OSError:
        return True


async def run(
    transport: str | None = None,
    config_path: str | None = None,
    *,
    host: str | None = None,
    port: int | None = None,
    uds: str | None = None,
) -> None:
    """Serve a configuration's plugins until cancelled, or until standard input ends.

    Args:
        transport: `stdio` or `http`; else what the environment says.
        config_path: Else what the environment says.
        host: Where HTTP listens, as `port` and `uds`; else what configuration and environment say.

    Raises:
        OSError: The configuration is missing, or the address cannot be listened on.
        ValueError: The configuration or a setting is wrong; the text says which.
        PluginLoadError: A plugin did not start.
    """
    transport = transport or chosen_transport()
    await serve(ExternalPluginServer(config_path), transport, host=host, port=port, uds=uds)


async def serve(
    server: ExternalPluginServer,
    transport: str | None = None,
    *,
    host: str | None = None,
    port: int | None = None,
    uds: str | None = None,
) -> None:
    """Serve a plugin server's plugins, as `run` does, and shut it down at the end.

    Raises:
        OSError: The address cannot be listened on.
        ValueError: The transport is unknown, or a setting is wrong; the text says which.
        PluginLoadError: A plugin did not start.
    """
    global SERVER
    transport = transport or chosen_transport()
    if transport not in _TRANSPORTS:
        raise ValueError(f"unknown transport {transport[:40]!r}; write stdio or http")
    try:
        await server.initialize()
        SERVER = server
        if _TRANSPORTS[transport] == "stdio":
            from cpex.framework.external.mcp.server.stdio import serve_stdio

            await serve_stdio(server)
        else:
            place = _place(server.get_server_config(), host=host, port=port, uds=uds)
            await SSLCapableMCPServer(place).run_streamable_http_async()
    finally:
        SERVER = None
        await server.shutdown()


def _place(configured: MCPServerConfig, **given: Any) -> MCPServerConfig:
    chosen = {name: value for name, value in given.items() if value is not None}
    if not chosen:
        return configured
    fields = configured.model_dump(exclude_unset=True)
    # A host or a port leaves the configured socket, as a socket leaves the configured port.
    dropped = ("host", "port", "tls") if "uds" in chosen else ("uds",)
    kept = {name: value for name, value in fields.items() if name not in dropped}
    return MCPServerConfig.model_validate(kept | chosen)


def main() -> None:
    """Serve as the environment says, until a signal.

    Raises:
        SystemExit: With 0 when it was stopped, with 1 when it failed; the reason is on standard error.
    """
    run_until_stopped(run)


if __name__ == "__main__":
    # Run by its path, Python puts this folder first on the search path; modules of plugins may have the same names.
    if sys.path and os.path.samefile(sys.path[0] or ".", os.path.dirname(os.path.abspath(__file__))):
        del sys.path[0]
    main()
