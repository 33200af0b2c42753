"""What the exit code of a command says.

Source: docs/reference/cli.md, "Exit codes".
"""

from __future__ import annotations

from enum import IntEnum

__all__ = ["ExitCode"]


class ExitCode(IntEnum):
    """How a command ended."""

    OK = 0
    """Done, and nothing is wrong."""
    FAILURE = 1
    """Not done, or not all of it: a file with faults, an event that could not be judged."""
    USAGE = 2
    """The command was called in a way that means nothing; nothing was done."""
    NOT_FOUND = 3
    """What the command was to work on is not there; nothing was done."""
    OPERATION = 4
    """An installation, a removal or a new project failed; what was there before is there still."""
    DENIED = 5
    """A plugin denied, and the caller asked to be told by exit code."""
    BROKEN = 6
    """Evidence does not hold: a link of an audit log is broken."""
    INTERRUPTED = 130
    """Ctrl-C; what was done until then was reported."""
    TERMINATED = 143
    """SIGTERM; what was done until then was reported."""
    BROKEN_PIPE = 141
    """Whoever read the output stopped reading."""
