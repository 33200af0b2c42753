"""Where a Unix socket may lie: nobody but its owner may put another one in its place.

Whoever may write to a folder may rename and remove what lies in it, and put a socket of their own there, which then
sees every payload and answers for every plugin. The sticky bit, which `/tmp` has, keeps others from that, and leaves
them a place that is empty: there a socket counts only when it belongs to this user or to root.

Source: docs/reference/external.md, "Sockets".
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

__all__ = ["check_socket", "check_socket_folder", "is_shared"]


def is_shared(path: str) -> bool:
    """Whether every user of this machine may make files in the folder of a socket.

    Raises:
        OSError: It cannot be looked at.
    """
    return bool(_folder(path).stat().st_mode & stat.S_IWOTH)


def check_socket_folder(path: str) -> None:
    """Refuse a place for a socket at which others may put one of theirs instead.

    Raises:
        PermissionError: It is one.
        OSError: It cannot be looked at.
    """
    folder = _folder(path)
    mode = folder.stat().st_mode
    if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
        raise PermissionError(
            f"{folder} is a folder that every user of this machine may write to, so that any of them may put a socket "
            f"of their own into it; put the socket elsewhere, or run: chmod o-w {folder}"
        )


def check_socket(path: str) -> None:
    """Refuse a socket that somebody else may have put there. Look right before connecting to it.

    Raises:
        PermissionError: It is one.
        OSError: It is not there, or cannot be looked at.
    """
    check_socket_folder(path)
    owner = os.lstat(path).st_uid
    if is_shared(path) and owner not in (0, os.geteuid()):
        raise PermissionError(
            f"{path} belongs to user {owner}, not to this one, in a folder that every user may write to; "
            "put the socket into a folder of your own"
        )


def _folder(path: str) -> Path:
    return Path(path).absolute().parent
