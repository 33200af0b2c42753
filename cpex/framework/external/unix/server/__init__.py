"""The serving end of a Unix socket."""

from __future__ import annotations

from cpex.framework.external.unix.server.server import UnixSocketPluginServer

__all__ = ["UnixSocketPluginServer"]
