"""Starts a plugin server on a Unix socket: `python -m cpex.framework.external.unix.server.runtime`.

Takes no arguments: the configuration is at `PLUGINS_CONFIG_PATH`, where it listens says `UnixSocketPluginServer`. Ends
with 0 on SIGINT and SIGTERM, with 1 on failure.
"""

from __future__ import annotations

from cpex.framework.external.running import run_until_stopped
from cpex.framework.external.unix.server.server import run_server

__all__ = ["main", "run", "run_server"]


async def run() -> None:
    """Serve as the environment says, until cancelled."""
    await run_server()


def main() -> None:
    """Serve as the environment says, until a signal."""
    run_until_stopped(run)


if __name__ == "__main__":
    main()
