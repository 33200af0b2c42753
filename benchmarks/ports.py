"""Ports for servers that must be told where to listen.

A port that the system gives out may be given to somebody else before the server has started: to a listener of another
process, or as the near end of any connection. These lie outside of what the system gives out on Linux and macOS, and
each process has a block of its own.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import socket
import tempfile
from pathlib import Path

__all__ = ["free_port"]

_FIRST = 10_000
_BLOCK = 250
_BLOCKS = 40
_APART = 1000
"""A plugin server with TLS listens this many ports further up, too: every other thousand is left out for that."""


def _own_block() -> range:
    """A block that no other process of this user has; it is this one's as long as it lives."""
    folder = Path(tempfile.gettempdir()) / f"cpex-test-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for number in range(_BLOCKS):
        handle = os.open(folder / str(number), os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
        else:
            # Left open: the lock ends with the process.
            thousand, rest = divmod(number * _BLOCK, _APART)
            first = _FIRST + 2 * _APART * thousand + rest
            return range(first, first + _BLOCK)
    raise RuntimeError(f"{_BLOCKS} processes run tests at once; add blocks in {__file__}")


_ports = itertools.cycle(_own_block())


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nobody listens, and that nobody else is told."""
    for port in itertools.islice(_ports, _BLOCK):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise RuntimeError(f"all of {_BLOCK} ports are in use; see who listens on them with `ss -tlnp`")
