"""What a forked child has of its parent and neither uses nor ends.

A task or a connection of the parent's is bound to its event loop. To cancel or close it in the child would take the
sockets out of the selector that both share; to drop it would have it warn that nobody has ended it. So it is kept.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["Inheritable", "begin_anew_in_children", "keep"]


class Inheritable(Protocol):
    """Has what is its process's own. It does not know of other such objects."""

    def begin_anew(self) -> None:
        """Leave the parent's things to the parent. Called in the child, when it has no other thread yet."""


_inheritable: WeakSet[Inheritable] = WeakSet()
_kept: list[object] = []


def begin_anew_in_children(this: Inheritable) -> None:
    """Have an object begin anew in each process that is forked off, for as long as it lives."""
    _inheritable.add(this)


def keep(what: object) -> None:
    """Keep something of the parent's, untouched, until the end of the process."""
    _kept.append(what)


def _in_child() -> None:
    for each in list(_inheritable):
        each.begin_anew()


# Where processes cannot fork, there is nothing to do.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
