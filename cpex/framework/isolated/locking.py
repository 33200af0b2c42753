"""A lock between processes: whoever builds an environment does it alone.

The lock is the operating system's and belongs to an open file, so it ends with its holder, however that ends. The file
itself stays.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

__all__ = ["locked"]

POLL_S = 0.05
"""Seconds between two looks at a lock that somebody else holds. A thread that waits for it could not be stopped."""


@asynccontextmanager
async def locked(path: Path) -> AsyncIterator[None]:
    """Hold the lock of a file, which is made if it is not there. Waits without end; may be cancelled.

    Raises:
        OSError: The file cannot be made or locked.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        # The operating system tells nobody when a lock becomes free.
        while not _try_lock(handle):  # noqa: ASYNC110
            await asyncio.sleep(POLL_S)
        yield
    finally:
        # Closing gives the lock back.
        os.close(handle)


if os.name == "nt":
    import msvcrt

    def _try_lock(handle: int) -> bool:
        try:
            # mypy: these names exist on the platform of this branch only.
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]
        except OSError:
            return False
        return True
else:
    import fcntl

    def _try_lock(handle: int) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
