"""The command `cpex serve`: offer the plugins of a configuration to hosts in other processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from cpex.tools.exit_codes import ExitCode

__all__ = ["TRANSPORTS", "Place", "Transport", "serve"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where to listen, in place of what the configuration says; `None` leaves that to it."""

    host: str | None = None
    port: int | None = None
    uds: str | None = None


@dataclass(frozen=True, slots=True)
class Transport:
    """One way to be reached."""

    takes: frozenset[str]
    """The options that mean something for it: fields of `Place`."""
    run: Callable[[str, Place], Coroutine[Any, Any, None]]
    """Serves a configuration until it is cancelled."""


async def _mcp_stdio(config: str, _: Place) -> None:
    from cpex.framework.external.mcp.server import runtime

    await runtime.run("stdio", config)


async def _mcp_http(config: str, place: Place) -> None:
    from cpex.framework.external.mcp.server import runtime

    await runtime.run("http", config, host=place.host, port=place.port, uds=place.uds)


async def _grpc(config: str, place: Place) -> None:
    from cpex.framework.external.grpc.server.runtime import run_server

    await run_server(config, place.host, place.port)


async def _unix(config: str, place: Place) -> None:
    from cpex.framework.external.unix.server.server import run_server

    await run_server(config, place.uds)


TRANSPORTS: Mapping[str, Transport] = {
    "mcp-stdio": Transport(frozenset(), _mcp_stdio),
    "mcp-http": Transport(frozenset({"host", "port", "uds"}), _mcp_http),
    "grpc": Transport(frozenset({"host", "port"}), _grpc),
    "unix": Transport(frozenset({"uds"}), _unix),
}
_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_NEED_EXTRA = {"grpc", "google"}
"""Modules of the extra `grpc`."""


def serve(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="The configuration whose plugins are served.")],
    transport: Annotated[
        str, typer.Option("--transport", "-t", help=f"How to be reached: {', '.join(TRANSPORTS)}.", metavar="WORD")
    ],
    host: Annotated[str | None, typer.Option("--host", help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", "-p", help="Port to listen on.", min=1, max=65535)] = None,
    uds: Annotated[str | None, typer.Option("--uds", help="Unix socket to listen on.", metavar="PATH")] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", "-l", help=f"One of {', '.join(_LEVELS)}.", metavar="LEVEL")
    ] = None,
) -> None:
    """Serve the plugins of a configuration to hosts in other processes.

    Where to listen is what the options say, else the configuration's section
    about servers, else the environment. Logs go to standard error.

    Exits with 0 when it is stopped by SIGTERM, SIGINT or, over mcp-stdio,
    the end of standard input; with 1 when it cannot start.

    Example: cpex serve plugins.yaml --transport mcp-http --port 8000
    """
    chosen = _chosen(transport)
    place = Place(host, port, uds)
    _check(transport, chosen, place)
    if log_level is not None and log_level.upper() not in _LEVELS:
        raise typer.BadParameter(f"{log_level!r} is none of {', '.join(_LEVELS)}", param_hint="--log-level")
    from cpex.framework.external.running import run_until_stopped

    try:
        run_until_stopped(lambda: chosen.run(config, place), log_level)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEED_EXTRA:
            raise
        sys.stderr.write(f"error: transport `{transport}` needs the extra `grpc`: pip install 'cpex[grpc]'\n")
        raise typer.Exit(ExitCode.FAILURE) from None


def _chosen(word: str) -> Transport:
    chosen = TRANSPORTS.get(word)
    if chosen is None:
        raise typer.BadParameter(f"{word!r} is none of {', '.join(TRANSPORTS)}", param_hint="--transport")
    return chosen


def _check(word: str, chosen: Transport, place: Place) -> None:
    given = [name for name in ("host", "port", "uds") if getattr(place, name) is not None]
    for name in given:
        if name not in chosen.takes:
            raise typer.BadParameter(f"means nothing for {word}", param_hint=f"--{name}")
    if "uds" in given and len(given) > 1:
        raise typer.BadParameter("a Unix socket has neither host nor port", param_hint="--uds")
