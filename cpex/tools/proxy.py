"""The command `cpex proxy`: stand before an MCP server and let plugins decide about what clients do with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cpex.proxy.upstreams import Upstream

__all__ = ["proxy"]

_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")


def proxy(
    config: Annotated[str, typer.Option("--config", "-c", metavar="FILE", help="The configuration of the plugins.")],
    command: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- COMMAND ...", help="Starts the server."),
    ] = None,
    url: Annotated[str | None, typer.Option("--url", help="A server that is reached over HTTP instead.")] = None,
    header: Annotated[
        list[str] | None, typer.Option("--header", metavar="'NAME: VALUE'", help="Sent to the server at --url.")
    ] = None,
    servers: Annotated[
        str | None, typer.Option("--servers", metavar="FILE", help="Several servers, in the form `mcpServers`.")
    ] = None,
    listen: Annotated[
        str | None, typer.Option("--listen", metavar="HOST:PORT", help="Serve over HTTP, at /mcp, instead of pipes.")
    ] = None,
    name: Annotated[str, typer.Option("--name", help="What plugins know a single server by.")] = "server",
    user: Annotated[str | None, typer.Option("--user", help="Who all requests are from.")] = None,
    tenant: Annotated[str | None, typer.Option("--tenant", help="The tenant that all requests belong to.")] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="For a call without progress.", min=0.001)
    ] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", "-l", help=f"One of {', '.join(_LEVELS)}.", metavar="LEVEL")
    ] = None,
) -> None:
    """Stand before an MCP server, and let plugins decide about every operation.

    To the client this is the server, over standard input and output, or over
    HTTP with --listen. Logs go to standard error.

    Exits with 0 when the client has left or a signal stops it; with 1 when it
    cannot start, or the servers end before the client leaves.

    Example: cpex proxy --config plugins.yaml -- npx some-mcp-server
    """
    if log_level is not None and log_level.upper() not in _LEVELS:
        raise typer.BadParameter(f"{log_level!r} is none of {', '.join(_LEVELS)}", param_hint="--log-level")
    given = [word for word, value in (("--url", url), ("--servers", servers), ("COMMAND", command)) if value]
    if len(given) != 1:
        raise typer.BadParameter(f"give one of COMMAND, --url and --servers, not {' and '.join(given) or 'none'}")
    place = _place(listen) if listen is not None else None
    from cpex.framework.external.running import run_until_stopped

    async def serve() -> None:
        from cpex.proxy import ProxySettings
        from cpex.proxy import serve as serve_proxy

        upstreams = _upstreams(command, url, _headers(header or []), servers, name)
        await serve_proxy(
            ProxySettings(config, upstreams, user=user, tenant_id=tenant, timeout_s=timeout, listen=place)
        )

    run_until_stopped(serve, log_level, what="proxy")


def _upstreams(
    command: list[str] | None, url: str | None, headers: dict[str, str], servers: str | None, name: str
) -> list[Upstream]:
    from cpex.proxy import ChildUpstream, UrlUpstream, read_servers

    if command:
        return [ChildUpstream.instead_of(name, command)]
    if url:
        return [UrlUpstream(name, url, headers)]
    return read_servers(Path(servers or ""))


def _place(listen: str) -> tuple[str, int]:
    host, colon, port = listen.rpartition(":")
    if not (colon and host and port.isdecimal() and int(port) <= 65535):
        raise typer.BadParameter(f"{listen!r} is not written as HOST:PORT", param_hint="--listen")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _headers(given: list[str]) -> dict[str, str]:
    headers = {}
    for each in given:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            # SECURITY: not shown, it may be a key.
            raise ValueError("a --header is written as 'NAME: VALUE'")
        headers[name.strip()] = value.strip()
    return headers
