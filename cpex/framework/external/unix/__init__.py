"""Plugins behind a plain Unix socket: messages with their length in front, any number of questions under way."""

from __future__ import annotations

from cpex.framework.external.unix.client import UnixSocketExternalPlugin

__all__ = ["UnixSocketExternalPlugin"]
