"""What the start commands of all plugin servers do alike: logs on stderr, orderly ends, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from collections.abc import Awaitable, Callable

from cpex.framework.errors import ConfigError, PluginLoadError, cause_text
from cpex.framework.logs import configure_logs
from cpex.framework.settings import PluginsLogSettings

__all__ = ["LOOPBACK", "run_until_stopped", "serve_until_stopped", "warn_of_open_door"]

logger = logging.getLogger(__name__)


LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1", "[::1]"})
"""Hosts that only this machine reaches."""


def run_until_stopped(
    serve: Callable[[], Awaitable[None]], log_level: str | None = None, *, what: str = "plugin server"
) -> None:
    """Run a server until SIGINT or SIGTERM, then let it clean up.

    Args:
        what: It is called in the log, should it fail by a fault of its own.
        log_level: Wins over `PLUGINS_LOG_LEVEL`; `PLUGINS_LOG_FORMAT` says what a line looks like.

    Raises:
        SystemExit: With 0 after a signal, with 1 when the server failed; the reason is on stderr.
    """
    log_format = "text"
    try:
        configured = PluginsLogSettings()
        log_format = configured.log_format
        configure_logs(configured.log_format, (log_level or configured.log_level).upper())
        serve_until_stopped(serve)
    except (ConfigError, PluginLoadError, OSError, ValueError) as error:
        # Mistakes of an operator: their text says what to do, a traceback would only hide it.
        text = cause_text(error)
        if log_format == "json":
            logger.error("%s", text)
        else:
            # For whoever has started it by hand; nothing else is on standard error yet.
            print(text if text.startswith("error") else f"error: {text}", file=sys.stderr)  # noqa: T201
        raise SystemExit(1) from None
    # The end of the program: whatever it is goes into the log, as all else does.
    except Exception:
        logger.exception("The %s failed", what)
        raise SystemExit(1) from None
    raise SystemExit(0)


def serve_until_stopped(serve: Callable[[], Awaitable[None]]) -> None:
    """Run a server on an event loop of its own until SIGINT or SIGTERM, then let it clean up and return.

    Raises:
        Exception: Whatever the server raises.
    """
    asyncio.run(_until_signalled(serve))


def warn_of_open_door(host: str, *, authenticated: bool) -> None:
    """Tell the operator of a server that other machines reach and that asks nobody who they are."""
    if host not in LOOPBACK and not authenticated:
        logger.warning(
            "The plugin server listens on %s, where other machines may reach it, and asks for no client certificate: "
            "whoever connects can call its plugins and read their configuration; require one, or bind to 127.0.0.1",
            host,
        )


async def _until_signalled(serve: Callable[[], Awaitable[None]]) -> None:
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(serve())
    for number in (signal.SIGINT, signal.SIGTERM):
        # Not on every platform; there the default handlers end the process.
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, task.cancel)
    with contextlib.suppress(asyncio.CancelledError):
        await task
