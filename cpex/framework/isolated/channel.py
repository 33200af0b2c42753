"""The worker's ends of the two pipes, out of reach of plugin code.

What a plugin prints, and what compiled code writes to descriptor 1, must not end up between the lines that the host
reads; and a plugin that reads its standard input must not take the host's lines away. So both descriptors are
duplicated at the start, and the well-known ones are pointed elsewhere: output to standard error, input to nothing.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import threading
from io import BufferedReader
from typing import Any, BinaryIO

from cpex.framework.isolated.framing import frame

__all__ = ["Channel", "read_line"]

_STEP = 65536


class Channel:
    """Lines from the host, lines to the host."""

    def __init__(self, source: BufferedReader, sink: BinaryIO) -> None:
        self.source = source
        self._sink = sink
        self._lock = threading.Lock()

    @classmethod
    def take_over(cls) -> Channel:
        """Take standard input and output of this process for the lines."""
        sys.stdout.flush()
        source, sink = os.dup(0), os.dup(1)
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.close(nothing)
        os.dup2(2, 1)
        # Prints appear on standard error as they are made, beside what is logged there.
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - it lives as long as the process
        sys.stdout = io.TextIOWrapper(
            os.fdopen(1, "wb", closefd=False), "utf-8", "backslashreplace", line_buffering=True, write_through=True
        )
        return cls(os.fdopen(source, "rb"), os.fdopen(sink, "wb"))

    def send(self, message: dict[str, Any], *, typed: bool = False) -> None:
        """Send a message.

        Raises:
            ValueError, TypeError: It holds what JSON has no word for; nothing was sent.
            OSError: The host does not read any more.
        """
        self.send_line(frame(message, typed=typed))

    def send_line(self, line: bytes) -> None:
        """Send a line that is made already.

        Raises:
            OSError: The host does not read any more.
        """
        with self._lock:
            self._sink.write(line)
            self._sink.flush()

    def wait_until_nobody_reads(self) -> bool:
        """Wait until the host has closed its end of the answers; at once `False` where that cannot be noticed."""
        if not (hasattr(select, "poll") and stat.S_ISFIFO(os.fstat(self._sink.fileno()).st_mode)):
            return False
        # A descriptor of its own: the other one may be closed meanwhile, and its number given to something else.
        watched = os.dup(self._sink.fileno())
        poll = select.poll()
        poll.register(watched, 0)
        poll.poll()
        os.close(watched)
        return True


def read_line(source: BinaryIO, max_bytes: int | None) -> tuple[bytes, bool]:
    """Read a line without its end; of one over the limit only the start is kept, the rest is read and dropped.

    Args:
        max_bytes: Of the line, its end not counted; `None` for no limit.

    Returns:
        The line, and whether it was over the limit. At the end of the stream, `b""` and `False`, which an empty line is
        not: that is `b"\\n"`.
    """
    line = source.readline() if max_bytes is None else source.readline(max_bytes + 1)
    if max_bytes is None or line.endswith(b"\n") or len(line) <= max_bytes:
        return line if line == b"\n" else line.removesuffix(b"\n"), False
    while (rest := source.readline(_STEP)) and not rest.endswith(b"\n"):
        pass
    return line, True
