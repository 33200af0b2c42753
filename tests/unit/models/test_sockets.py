"""Where a Unix socket may lie."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cpex.framework.models.sockets import check_socket, check_socket_folder

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of this user alone."""
    tmp_path.chmod(0o700)
    return tmp_path


@pytest.fixture
def path(folder: Path) -> Iterator[str]:
    """A socket in it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(folder / "s"))
        yield str(folder / "s")


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o770, 0o1777])
def test_a_socket_of_this_user_is_good_where_nobody_else_can_replace_it(folder: Path, path: str, mode: int) -> None:
    folder.chmod(mode)
    check_socket_folder(path)
    check_socket(path)


@pytest.mark.conformance("E16.parent")
@pytest.mark.parametrize("mode", [0o777, 0o702])
def test_a_folder_in_which_others_may_replace_it_is_refused(folder: Path, path: str, mode: int) -> None:
    folder.chmod(mode)
    with pytest.raises(PermissionError) as raised:
        check_socket(path)
    assert str(raised.value) == (
        f"{folder} is a folder that every user of this machine may write to, so that any of them may put a socket of "
        f"their own into it; put the socket elsewhere, or run: chmod o-w {folder}"
    )


@pytest.mark.conformance("E16.parent")
@needs_root
def test_a_strangers_socket_in_a_folder_for_all_is_refused(folder: Path, path: str) -> None:
    folder.chmod(0o1777)
    os.chown(path, 12345, 12345)
    # Root trusts nobody else's.
    with pytest.raises(PermissionError, match=r"belongs to user 12345, not to this one"):
        check_socket(path)
    folder.chmod(0o755)
    check_socket(path)


def test_what_is_not_there_is_not_found(folder: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_socket(str(folder / "none"))
    with pytest.raises(FileNotFoundError):
        check_socket(str(folder / "no" / "folder"))
