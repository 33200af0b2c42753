"""Running the tools that build an environment: a time limit, their output kept, nothing left running."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

__all__ = ["OWN_GROUP", "CommandFailed", "build_environment_variables", "kill_group", "run_command"]

LAST_LINES = 10
"""Lines of output that a failure tells."""
_MAX_LINE = 500
_DROPPED = ("PYTHON", "PLUGINS_", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Prefixes of variables that do not reach the tools: what steers this interpreter, and the framework's own settings,
among which are passwords."""
OWN_GROUP: dict[str, Any] = {"process_group": 0} if os.name == "posix" else {}
"""Starts a process as the leader of a group, so that what it starts can be ended with it. Not of a session: schedulers
that share the machine out by sessions would let host and worker wait for each other."""
_USER_INFO = re.compile(r"(?<=://)[^/\s@]+@")


class CommandFailed(Exception):
    """A tool failed or took too long.

    Attributes:
        reason: `exited with status 1`, `was ended by signal 9` or `took longer than 300s`.
        last_lines: The end of its output, at most 10 lines.
    """

    def __init__(self, reason: str, last_lines: Sequence[str]) -> None:
        super().__init__(reason)
        self.reason = reason
        self.last_lines = list(last_lines)

    def told(self) -> str:
        """The end of the output, indented, on lines of its own; empty when there was none."""
        return "".join(f"\n  {line}" for line in self.last_lines)


def build_environment_variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that pip gets: the host's own, so that proxies and package indexes are found, less a few."""
    kept = {name: value for name, value in environ.items() if not name.startswith(_DROPPED)}
    return {**kept, "PYTHONUTF8": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}


async def run_command(command: Sequence[str], timeout_s: float, cwd: str | None = None) -> None:
    """Run a tool to its end.

    Raises:
        CommandFailed: It ended with another status than 0, or had to be stopped because its time was over.
        OSError: It cannot be started.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env=build_environment_variables(os.environ),
        **OWN_GROUP,
    )
    lines: deque[str] = deque(maxlen=LAST_LINES)
    try:
        async with asyncio.timeout(timeout_s):
            await _keep_lines(process, lines)
            status = await process.wait()
    except TimeoutError:
        raise CommandFailed(f"took longer than {timeout_s:g}s and was stopped", lines) from None
    finally:
        kill_group(process.pid)
        await process.wait()
        # What the tool started may hold the pipe open for longer than the tool itself lives.
        process._transport.close()  # type: ignore[attr-defined]  # asyncio offers no other way to its pipes
    if status != 0:
        ended = f"was ended by signal {-status}" if status < 0 else f"exited with status {status}"
        raise CommandFailed(ended, lines)


async def _keep_lines(process: asyncio.subprocess.Process, lines: deque[str]) -> None:
    assert process.stdout is not None  # asked for above
    rest = b""
    while data := await process.stdout.read(65536):
        *whole, rest = (rest + data).split(b"\n")
        lines.extend(line for line in map(_readable, whole) if line)
        rest = rest[-65536:]
    if rest.strip():
        lines.append(_readable(rest))


def _readable(line: bytes) -> str:
    # SECURITY: addresses of package indexes may hold a password.
    return _USER_INFO.sub("", line.decode("utf-8", "replace").rstrip())[:_MAX_LINE]


def kill_group(pid: int) -> None:
    """End a process that leads a group, and everything in the group; does nothing when all of it has ended."""
    if hasattr(os, "killpg"):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
    else:
        with suppress(OSError):
            os.kill(pid, signal.SIGTERM)
