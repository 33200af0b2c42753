"""A file of JSON lines that several processes append to and that survives any of them dying.

Every append holds the file's advisory lock (`flock`), writes one whole line with one `write` to an `O_APPEND`
descriptor, and takes a line back that did not fit. A process that was killed in the middle of a line leaves a torn
tail; whoever appends next, in whichever process, mends it first. So each line of the file is one JSON object at all
times, except for a tail that nobody has written after yet.

The journal decides where bytes go. What a line says, and when the disk is told to keep it, is its owner's business.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import stat
import threading
from pathlib import Path

from cpex.builtins.observability._records import encode, timestamp

MAX_TEAR_BYTES = 4 * 1024 * 1024
"""How far back a line may begin. A file whose end is longer than that is not a file of ours."""

_READ_WRITE_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT
_OWNER_ONLY = 0o600


class Journal:
    """Appends lines to one file. Its methods may be called from any thread."""

    def __init__(self, path: Path, *, rotate_bytes: int | None = None, rotate_keep: int = 5) -> None:
        """Name the file; nothing is opened yet.

        Args:
            rotate_bytes: Size in bytes beyond which the file is set aside as `<path>.1`; `None` for never.
            rotate_keep: How many files are kept aside; the oldest is deleted.
        """
        self.path = path
        self._rotate_bytes = rotate_bytes
        self._rotate_keep = rotate_keep
        self._mutex = threading.Lock()
        self._fd: int | None = None
        self._open = False

    @property
    def is_open(self) -> bool:
        """Whether the journal takes lines."""
        return self._open

    def open(self) -> None:
        """Create the file and its folder if need be, and mend what a crash left. Does nothing when already open.

        Raises:
            OSError: The file cannot be opened, or is not a regular file of lines.
        """
        with self._mutex:
            if self._open:
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._open = True
            try:
                self._lock(blocking=True)
                try:
                    self._mend()
                finally:
                    self._unlock()
            except BaseException:
                self._open = False
                self._let_go()
                raise

    def close(self) -> None:
        """Stop taking lines. Does nothing when already closed."""
        with self._mutex:
            self._open = False
            self._let_go()

    def try_append(self, line: bytes) -> bool:
        """Append a line if that takes no waiting for another process or thread.

        Returns:
            False when the line was not written because somebody else is writing at this moment.

        Raises:
            OSError: The line was not written; nothing of it is left in the file.
        """
        if not self._mutex.acquire(blocking=False):
            return False
        try:
            return self._append(line, blocking=False)
        finally:
            self._mutex.release()

    def append(self, line: bytes) -> None:
        """Append a line, waiting for other writers.

        Raises:
            OSError: The line was not written; nothing of it is left in the file.
        """
        with self._mutex:
            self._append(line, blocking=True)

    def sync(self) -> None:
        """Wait until all lines so far would survive a power failure.

        Raises:
            OSError: The disk did not confirm.
        """
        with self._mutex:
            if self._fd is None:
                return
            # A descriptor of its own: the file may be rotated away by another thread while the disk works.
            fd = os.dup(self._fd)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def _append(self, line: bytes, *, blocking: bool) -> bool:
        if not self._open:
            raise OSError(errno.EBADF, "the audit log is closed", str(self.path))
        if not self._lock(blocking):
            return False
        try:
            self._mend()
            if self._is_full(len(line)):
                self._rotate()
            self._write(line)
        finally:
            self._unlock()
        return True

    def _write(self, line: bytes) -> None:
        fd = self._descriptor()
        start = os.fstat(fd).st_size
        written = os.write(fd, line)
        if written != len(line):
            # The lock is ours, so what follows `start` is nothing but our own half line.
            os.ftruncate(fd, start)
            raise OSError(errno.ENOSPC, f"only {written} of {len(line)} bytes fitted", str(self.path))

    # The lock, and the file that it is on.

    def _lock(self, blocking: bool) -> bool:
        """Lock the file that the path names now, which may be another one than at the last append."""
        flags = fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB
        while True:
            if self._fd is None:
                self._fd = self._open_file()
            try:
                fcntl.flock(self._fd, flags)
            except BlockingIOError:
                return False
            if self._is_current(self._fd):
                return True
            self._let_go()

    def _unlock(self) -> None:
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _open_file(self) -> int:
        fd = os.open(self.path, _READ_WRITE_APPEND, _OWNER_ONLY)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", str(self.path))
        return fd

    def _is_current(self, fd: int) -> bool:
        """Whether the path still names the open file; another process, or `logrotate`, may have moved it."""
        try:
            named = os.stat(self.path)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, os.fstat(fd))

    def _let_go(self) -> None:
        if self._fd is not None:
            # A copy of the descriptor may be with `sync`; closing ours alone would leave the lock with it.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None

    def _descriptor(self) -> int:
        if self._fd is None:
            raise OSError(errno.EBADF, "the audit log is closed", str(self.path))
        return self._fd

    # Torn tails.

    def _mend(self) -> None:
        """Make the file end in a whole line.

        A tail that is a whole object without its line end gets one. Any other tail is overwritten by a `recovered`
        record that quotes it: one `pwrite`, never shorter than what it covers, so a crash in here is mended likewise.
        """
        fd = self._descriptor()
        size = os.fstat(fd).st_size
        if size == 0 or os.pread(fd, 1, size - 1) == b"\n":
            return
        tail = self._tail(fd, size)
        if _is_object(tail):
            os.write(fd, b"\n")
            return
        record = encode(
            {
                "v": 1,
                "ts": timestamp(),
                "type": "recovered",
                "torn_bytes": len(tail),
                "fragment": tail.decode("utf-8", "backslashreplace"),
            }
        )
        self._overwrite(record, size - len(tail))

    def _tail(self, fd: int, size: int) -> bytes:
        """What follows the last line end."""
        start = max(0, size - MAX_TEAR_BYTES)
        end = os.pread(fd, size - start, start)
        cut = end.rfind(b"\n")
        if cut < 0 and start > 0:
            raise OSError(errno.EINVAL, f"not a file of lines: its last {MAX_TEAR_BYTES} bytes are one", str(self.path))
        return end[cut + 1 :]

    def _overwrite(self, record: bytes, offset: int) -> None:
        # Linux appends on an `O_APPEND` descriptor wherever `pwrite` points, so this needs one without.
        fd = os.open(self.path, os.O_WRONLY)
        try:
            if os.pwrite(fd, record, offset) != len(record):
                raise OSError(errno.ENOSPC, "no room to mend the last line", str(self.path))
        finally:
            os.close(fd)

    # Rotation.

    def _is_full(self, coming: int) -> bool:
        if self._rotate_bytes is None:
            return False
        size = os.fstat(self._descriptor()).st_size
        return size > 0 and size + coming > self._rotate_bytes

    def _rotate(self) -> None:
        """Set the file aside and go on in a new one, as other processes will when they find the path changed."""
        os.fsync(self._descriptor())
        for number in range(self._rotate_keep - 1, 0, -1):
            if (aside := self._aside(number)).exists():
                os.replace(aside, self._aside(number + 1))
        os.replace(self.path, self._aside(1))
        self._let_go()
        self._lock(blocking=True)
        self._mend()

    def _aside(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _is_object(text: bytes) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False
