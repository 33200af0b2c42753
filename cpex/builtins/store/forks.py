"""No SQLite connection crosses a fork.

SQLite keeps account of its locks by file within a process. A child that inherits the account believes that it has locks
which are its parent's: when the parent then closes the file, it finds nobody else at it and removes the write-ahead
log, and what the child writes from then on is lost. So connections are closed before a fork, and both sides open anew.

Source: sqlite.org/howtocorrupt.html, section 2.6, "Carrying an open database connection across a fork()".
"""

from __future__ import annotations

import os
import threading
from typing import Protocol
from weakref import WeakSet

__all__ = ["ConnectionHolder", "close_before_forks"]


class ConnectionHolder(Protocol):
    """Has a connection, and opens it when it is needed. It does not know of other holders."""

    lock: threading.Lock
    """Held while the connection is used; never by somebody who forks."""

    def drop_connection(self) -> None:
        """Close the connection, if there is one. The caller has the lock."""


_holders: WeakSet[ConnectionHolder] = WeakSet()
_locked: list[ConnectionHolder] = []


def close_before_forks(holder: ConnectionHolder) -> None:
    """Close a holder's connection whenever this process is about to fork, for as long as the holder lives."""
    _holders.add(holder)


def _before() -> None:
    for holder in list(_holders):
        holder.lock.acquire()
        _locked.append(holder)
        holder.drop_connection()


def _after() -> None:
    while _locked:
        _locked.pop().lock.release()


# Where processes cannot fork, there is nothing to do.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before, after_in_parent=_after, after_in_child=_after)
