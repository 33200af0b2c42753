"""Telling the cancellations of a handler's own task groups from those that are meant for it.

`asyncio.TaskGroup` cancels the task that it belongs to when one of its children fails, and takes that back when it
ends. Before Python 3.13 it forgets to when the child fails while the group is waiting for its children, which is how
most groups are written. The task then counts as cancelled by somebody for ever, and a handler that has caught its
group's failure would look like one that swallows its caller's cancellation.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import types
from collections.abc import Iterator
from typing import Any

__all__ = ["OwnRequests"]

_FORGETFUL = sys.version_info < (3, 13)
_EXIT = asyncio.TaskGroup.__aexit__.__code__
_WAITING = (types.CoroutineType, types.GeneratorType, types.AsyncGeneratorType)


class OwnRequests:
    """Takes back, in one run of a handler, what its task groups forget to take back."""

    __slots__ = ("_base", "_others", "_seen")

    def __init__(self, base: int) -> None:
        """Begin.

        Args:
            base: How many requests to cancel the task were open when the handler began to wait.
        """
        self._base = base
        self._seen: list[Any] = []
        self._others = False

    def taken_back(self, task: asyncio.Task[Any], coroutine: Any, open_ones: int) -> bool:
        """Look at a cancellation that is about to be delivered; return whether it is only a task group's own.

        Args:
            open_ones: Requests of the engine's own that are open.
        """
        if not _FORGETFUL:
            return False
        left = task.cancelling() - self._base - open_ones
        # A request that came before a group began to end is taken back by it. Which of two it was cannot be told once
        # such a one was delivered: then the cancellation counts as the caller's.
        if left > 0 and not self._others:
            for group in _ending_groups(coroutine):
                if left > 0 and not any(group is each for each in self._seen):
                    self._seen.append(group)
                    task.uncancel()
                    left -= 1
                    if not left:
                        return True
        self._others = True
        return False


def _ending_groups(coroutine: Any) -> Iterator[asyncio.TaskGroup]:
    """The task groups that a suspended coroutine waits for at its end, and that have asked to cancel their task."""
    waiting = coroutine
    while waiting is not None:
        if getattr(waiting, "cr_code", None) is _EXIT:
            group = waiting.cr_frame.f_locals["self"]
            if group._parent_cancel_requested:
                yield group
        waiting = _awaited_by(waiting)


def _awaited_by(waiting: Any) -> Any:
    for name in ("cr_await", "gi_yieldfrom", "ag_await"):
        if hasattr(waiting, name):
            return getattr(waiting, name)
    # What stands between the two, such as the step of an asynchronous generator, does not tell what it waits for.
    return next((each for each in gc.get_referents(waiting) if isinstance(each, _WAITING)), None)
