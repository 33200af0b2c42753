"""What a test leaves behind in its process, without help of other packages."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

__all__ = ["children", "open_descriptors"]


def children() -> set[int]:
    """Ids of this process's children."""
    found: set[int] = set()
    for task in Path("/proc/self/task").iterdir():
        with suppress(OSError):
            found |= {int(each) for each in (task / "children").read_text(encoding="ascii").split()}
    return found


def open_descriptors() -> dict[int, str]:
    """Every open descriptor of this process, and what it leads to."""
    found = {}
    for entry in Path("/proc/self/fd").iterdir():
        # The one that lists them is gone again.
        with suppress(OSError):
            found[int(entry.name)] = os.readlink(entry)
    return found
