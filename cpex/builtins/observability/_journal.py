"""A file of JSON lines that several processes append to and that survives any of them dying.

Every append holds the file's advisory lock (`flock`), writes whole lines with one `write` to an `O_APPEND` descriptor,
and takes back what did not fit. A process that was killed in the middle of a line leaves a torn tail; whoever appends
next, in whichever process, mends it first. So each line of the file is one JSON object at all times, except for a tail
that nobody has written after yet.

The journal decides where bytes go, and how a chain of lines (`_chain`) goes on over crashes, files and processes. What
a line says, and when the disk is told to keep it, is its owner's business.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import threading
from pathlib import Path

from cpex.builtins.observability._chain import GENESIS, Chain, Head
from cpex.builtins.observability._inherited import begin_anew_in_children
from cpex.builtins.observability._tail import MAX_LINE_BYTES, Tail, is_whole, read_tail, recovered

_READ_WRITE_APPEND = os.O_RDWR | os.O_APPEND | os.O_CREAT
_OWNER_ONLY = 0o600
_UNKNOWN = -1


class Journal:
    """Appends lines to one file. Its methods may be called from any thread."""

    def __init__(
        self,
        path: Path,
        *,
        rotate_bytes: int | None = None,
        rotate_keep: int = 5,
        chain: Chain | None = None,
        durable: bool = True,
    ) -> None:
        """Name the file; nothing is opened yet.

        Args:
            rotate_bytes: Size in bytes beyond which the file is set aside as `<path>.1`; `None` for never.
            rotate_keep: How many files are kept aside; the oldest is deleted.
            chain: Seals every line; `None` writes them as they are.
            durable: Have the disk keep what rotation and creation do to the folder; otherwise when the system likes.
        """
        self.path = path
        self._rotate_bytes = rotate_bytes
        self._rotate_keep = rotate_keep
        self._chain = chain
        self._durable = durable
        self._mutex = threading.Lock()
        self._sync_mutex = threading.Lock()
        self._appended = 0
        """How many times lines were appended, ever."""
        self._kept = 0
        """Of these, how many the disk has confirmed."""
        self._fd: int | None = None
        self._pid = os.getpid()
        """The process that opened the file."""
        self._open = False
        self._head: Head | None = None
        """The last line that this process knows of, in whichever file."""
        self._size = _UNKNOWN
        """Size in bytes up to which the open file is known to be whole lines, the last of them `_head`'s."""
        begin_anew_in_children(self)

    def begin_anew(self) -> None:
        """In a forked child: let no thread of the parent's, which is not there, keep the locks."""
        self._mutex, self._sync_mutex = threading.Lock(), threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether the journal takes lines."""
        return self._open

    def open(self) -> None:
        """Create the file and its folder if need be, and mend what a crash left. Does nothing when already open.

        Raises:
            OSError: The file cannot be opened, or is not a regular file of such lines.
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
            self._leave_parent()
            self._let_go()

    def try_append(self, *lines: bytes) -> bool:
        """Append lines if that takes no waiting for another process or thread.

        Returns:
            False when nothing was written because somebody else is writing at this moment.

        Raises:
            OSError: No line was written; nothing of them is left in the file.
        """
        if not self._mutex.acquire(blocking=False):
            return False
        try:
            return self._append(lines, blocking=False)
        finally:
            self._mutex.release()

    def append(self, *lines: bytes) -> None:
        """Append lines, waiting for other writers.

        Raises:
            OSError: No line was written; nothing of them is left in the file.
        """
        with self._mutex:
            self._append(lines, blocking=True)

    def sync(self) -> None:
        """Wait until all lines so far would survive a power failure. Callers that wait together ask the disk once.

        Raises:
            OSError: The disk did not confirm.
        """
        wanted = self._appended
        with self._sync_mutex:
            if self._kept >= wanted:
                return
            with self._mutex:
                if self._fd is None:
                    return
                # A descriptor of its own: the file may be rotated away by another thread while the disk works.
                fd, reached = os.dup(self._fd), self._appended
            try:
                os.fsync(fd)
            finally:
                os.close(fd)
            self._kept = reached

    def _append(self, lines: tuple[bytes, ...], *, blocking: bool) -> bool:
        if not self._open:
            raise OSError(errno.EBADF, "the file is closed", str(self.path))
        if max(map(len, lines), default=0) > MAX_LINE_BYTES:
            raise OSError(errno.EMSGSIZE, f"a record has more than {MAX_LINE_BYTES} bytes", str(self.path))
        if not self._lock(blocking):
            return False
        try:
            self._mend()
            if self._is_full(sum(map(len, lines))):
                self._rotate()
            self._write(lines)
            self._appended += 1
        finally:
            self._unlock()
        return True

    def _write(self, lines: tuple[bytes, ...]) -> None:
        fd, start, head = self._descriptor(), self._size, self._head
        if self._chain is not None:
            sealed = []
            for line in lines:
                done, head = self._chain.seal(line, head or GENESIS)
                sealed.append(done)
            lines = tuple(sealed)
        block = b"".join(lines)
        # Whatever happens from here on, the file is to be looked at again before it is trusted.
        self._size = _UNKNOWN
        written = os.write(fd, block)
        if written != len(block):
            # The lock is ours, so what follows `start` is nothing but our own half line.
            os.ftruncate(fd, start)
            raise OSError(errno.ENOSPC, f"only {written} of {len(block)} bytes fitted", str(self.path))
        self._size, self._head = start + written, head

    # The lock, and the file that it is on.

    def _lock(self, blocking: bool) -> bool:
        """Lock the file that the path names now, which may be another one than at the last append."""
        flags = fcntl.LOCK_EX if blocking else fcntl.LOCK_EX | fcntl.LOCK_NB
        self._leave_parent()
        while True:
            if self._fd is None:
                self._fd = self._open_file()
            try:
                fcntl.flock(self._fd, flags)
            except BlockingIOError:
                return False
            if names(self.path, self._fd):
                return True
            self._leave()

    def _leave_parent(self) -> None:
        """After a fork, open the file anew: a lock belongs to the open file, and parent and child would share it."""
        if self._fd is not None and self._pid != os.getpid():
            # No unlocking: it may be the parent's turn.
            os.close(self._fd)
            self._fd, self._size = None, _UNKNOWN

    def _unlock(self) -> None:
        if self._fd is not None:
            fcntl.flock(self._fd, fcntl.LOCK_UN)

    def _open_file(self) -> int:
        is_new = not self.path.exists()
        fd = os.open(self.path, _READ_WRITE_APPEND, _OWNER_ONLY)
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise OSError(errno.EINVAL, "not a regular file", str(self.path))
        if is_new:
            self._sync_folder()
        self._pid = os.getpid()
        return fd

    def _leave(self) -> None:
        """Let go of a file that was moved away, after a look at where its chain ended."""
        if self._chain is not None and self._size != os.fstat(self._descriptor()).st_size:
            tail = read_tail(self._descriptor(), self.path, self._chain)
            self._head = tail.head if tail.head is not None else self._head
        if self._durable and self._kept < self._appended:
            os.fsync(self._descriptor())
        self._let_go()

    def _let_go(self) -> None:
        self._size = _UNKNOWN
        if self._fd is not None:
            # A copy of the descriptor may be with `sync`; closing ours alone would leave the lock with it.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = None

    def _descriptor(self) -> int:
        if self._fd is None:
            raise OSError(errno.EBADF, "the file is closed", str(self.path))
        return self._fd

    # Torn tails, and where the chain stands.

    def _mend(self) -> None:
        """Make the file end in a whole line, and learn which one that is.

        A tail that is a whole record without its line end gets one. Any other tail is overwritten by a `recovered`
        record that quotes it: one `pwrite`, never shorter than what it covers, so a crash in here is mended likewise.
        """
        fd = self._descriptor()
        size = os.fstat(fd).st_size
        if size == self._size:
            return
        tail = read_tail(fd, self.path, self._chain)
        if self._chain is not None:
            self._head = tail.head if tail.head is not None else self._head_before()
        if tail.torn:
            self._mend_tail(fd, size, tail)
        self._size = os.fstat(fd).st_size

    def _mend_tail(self, fd: int, size: int, tail: Tail) -> None:
        if is_whole(tail.torn, self._chain):
            os.write(fd, b"\n")
            if self._chain is not None:
                self._head = self._chain.read(tail.torn).head
            return
        record, head = recovered(tail), self._head
        if self._chain is not None:
            record, head = self._chain.seal(record, head or GENESIS)
        start = size - len(tail.torn)
        self._overwrite(record, start)
        if len(record) < len(tail.torn):
            # Only for a tail that was too long to be quoted; a crash before this line leaves a tail that is shorter.
            os.ftruncate(fd, start + len(record))
        self._head = head

    def _head_before(self) -> Head:
        """What the first line of a file continues: the file that was set aside last, or what this process has seen."""
        known = self._head or GENESIS
        try:
            fd = os.open(self._aside(1), os.O_RDONLY)
        except OSError:
            return known
        try:
            before = read_tail(fd, self._aside(1), self._chain).head or GENESIS
        finally:
            os.close(fd)
        return before if before.seq >= known.seq else known

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
        return self._rotate_bytes is not None and self._size > 0 and self._size + coming > self._rotate_bytes

    def _rotate(self) -> None:
        """Set the file aside and go on in a new one, as other processes will when they find the path changed."""
        if self._durable:
            os.fsync(self._descriptor())
        # Only as far as there is no gap: after a crash in the middle of this, nothing need be moved twice.
        first_free = 1
        while first_free <= self._rotate_keep and self._aside(first_free).exists():
            first_free += 1
        for number in range(min(first_free, self._rotate_keep) - 1, 0, -1):
            os.replace(self._aside(number), self._aside(number + 1))
        os.replace(self.path, self._aside(1))
        # The old file stays locked until there is a new one: a reader who finds neither waits for it.
        old, self._fd = self._descriptor(), None
        try:
            self._lock(blocking=True)
        finally:
            # Closing alone would leave the lock with a copy of the descriptor that `sync` may have.
            fcntl.flock(old, fcntl.LOCK_UN)
            os.close(old)
        self._size = _UNKNOWN
        self._sync_folder()
        self._mend()

    def _aside(self, number: int) -> Path:
        return aside(self.path, number)

    def _sync_folder(self) -> None:
        """Have the disk keep the names of files, too."""
        if not self._durable:
            return
        fd = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def names(path: Path, fd: int) -> bool:
    """Whether a path leads to an open file."""
    try:
        named = os.stat(path)
    except FileNotFoundError:
        return False
    return os.path.samestat(named, os.fstat(fd))


def aside(path: Path, number: int) -> Path:
    """Where the last file but `number` was set aside."""
    return path.with_name(f"{path.name}.{number}")
