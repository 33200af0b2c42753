"""The chain of an audit log in a table of an SQLite file, one sealed line a row, for those who want to ask with SQL.

SQLite's write-ahead log does by itself what the journal of lines (`_journal`) does: a record is there whole or not at
all, whoever is killed, and writers of several processes take turns. The lines are the same, and so is their chain.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

from cpex.builtins.observability._chain import GENESIS, Chain, Head, NotSealed
from cpex.builtins.observability._tail import MAX_LINE_BYTES
from cpex.builtins.store.forks import close_before_forks
from cpex.builtins.store.sqlite import use_write_ahead_log

_OWNER_ONLY = 0o600
_WAIT_S = 30.0
"""How long others that write are waited for."""
_CHECKPOINT_EVERY = 1_000
"""Appends after which the write-ahead log is carried over into the table, so that it does not grow without end."""
_MAGIC = b"SQLite format 3\0"
_TABLE = "CREATE TABLE IF NOT EXISTS records (seq INTEGER PRIMARY KEY, line TEXT NOT NULL)"


class TableJournal:
    """Appends lines to the table `records`. Its methods may be called from any thread."""

    def __init__(self, path: Path, *, chain: Chain, durable: bool = True) -> None:
        """Name the file; nothing is opened yet.

        Args:
            durable: Give things to the disk in such an order that a power failure leaves a whole file.
        """
        self.path = path
        self.lock = threading.Lock()
        self._chain = chain
        self._durable = durable
        self._sync_mutex = threading.Lock()
        self._appended = 0
        """How many times lines were appended, ever."""
        self._kept = 0
        """Of these, how many the disk has confirmed."""
        self._checkpointed = 0
        """Of these, how many there were when the write-ahead log was last carried over."""
        self._is_new = True
        """Whether the disk has yet to keep the names of the file and its write-ahead log."""
        self._open = False
        self._connection: sqlite3.Connection | None = None
        close_before_forks(self)

    def open(self) -> None:
        """Create the file and its folder if need be. Does nothing when already open.

        Raises:
            OSError: The file cannot be opened, or holds something else than such records.
        """
        with self.lock, self._as_os_error():
            if not self._open:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._connection = self._connect()
                self._open = True

    def close(self) -> None:
        """Stop taking lines. Does nothing when already closed."""
        with self.lock:
            self._open = False
            self.drop_connection()

    def drop_connection(self) -> None:
        """Close the file, which the next append opens again. The caller has the lock."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def try_append(self, *lines: bytes) -> bool:
        """Append lines if that takes no waiting for another process or thread; see `Journal.try_append`."""
        if not self.lock.acquire(blocking=False):
            return False
        try:
            return self._append(lines, wait_s=0)
        finally:
            self.lock.release()

    def append(self, *lines: bytes) -> None:
        """Append lines, waiting for other writers.

        Raises:
            OSError: No line was written.
        """
        with self.lock:
            if not self._append(lines, wait_s=_WAIT_S):
                raise OSError(errno.EBUSY, f"others have been writing to it for {_WAIT_S:g} seconds", str(self.path))

    def sync(self) -> None:
        """Wait until all lines so far would survive a power failure; see `Journal.sync`.

        Raises:
            OSError: The disk did not confirm.
        """
        wanted = self._appended
        with self._sync_mutex:
            if self._kept >= wanted:
                return
            reached = self._appended
            # What has been carried over from the write-ahead log was confirmed then; with the last user it goes.
            with contextlib.suppress(FileNotFoundError):
                _fsync(self.path.with_name(f"{self.path.name}-wal"))
            if self._is_new:
                _fsync(self.path.parent)
                self._is_new = False
            self._kept = reached
            if reached - self._checkpointed >= _CHECKPOINT_EVERY:
                with self.lock, self._as_os_error():
                    if self._open:
                        self._connected().execute("PRAGMA wal_checkpoint(PASSIVE)")
                self._checkpointed = reached

    def _append(self, lines: tuple[bytes, ...], *, wait_s: float) -> bool:
        if not self._open:
            raise OSError(errno.EBADF, "the file is closed", str(self.path))
        if max(map(len, lines), default=0) > MAX_LINE_BYTES:
            raise OSError(errno.EMSGSIZE, f"a record has more than {MAX_LINE_BYTES} bytes", str(self.path))
        with self._as_os_error():
            connection = self._connected()
            connection.execute(f"PRAGMA busy_timeout = {wait_s * 1000:.0f}")
            try:
                # IMMEDIATE takes the write lock before the read, so that no two writers follow the same record.
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                    return False
                raise
            try:
                head = self._head(connection)
                for line in lines:
                    sealed, head = self._chain.seal(line, head)
                    connection.execute("INSERT INTO records VALUES (?, ?)", (head.seq, sealed[:-1].decode("ascii")))
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            self._appended += 1
        return True

    def _head(self, connection: sqlite3.Connection) -> Head:
        """The last record, which another process may have written."""
        row = connection.execute("SELECT line FROM records ORDER BY seq DESC LIMIT 1").fetchone()
        try:
            return GENESIS if row is None else self._chain.read(_text(row[0])).head
        except NotSealed as error:
            text = f"{error}, so nothing can follow its last record; move the file"
            raise OSError(errno.EINVAL, text, str(self.path)) from None

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _connect(self) -> sqlite3.Connection:
        self._is_new = True
        # SECURITY: made here rather than by SQLite, which would let the umask decide who may read it.
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, _OWNER_ONLY))
        connection = sqlite3.connect(self.path, timeout=_WAIT_S, isolation_level=None, check_same_thread=False)
        try:
            use_write_ahead_log(connection, _WAIT_S)
            connection.execute(f"PRAGMA synchronous = {'NORMAL' if self._durable else 'OFF'}")
            if self._durable:
                # It waits for the disk, and appends are made in the event loop: `sync` does it, in its thread.
                connection.execute("PRAGMA wal_autocheckpoint = 0")
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.text_factory = bytes
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables - {b"records"}:
            raise OSError(errno.EINVAL, "it holds something else; name a file of its own", str(self.path))
        connection.execute(_TABLE)
        self._head(connection)

    @contextlib.contextmanager
    def _as_os_error(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            full = getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL
            raise OSError(errno.ENOSPC if full else errno.EIO, str(error), str(self.path)) from error


def is_table(path: Path) -> bool:
    """Whether a file is one of SQLite's.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return file.read(len(_MAGIC)) == _MAGIC


def table_lines(path: Path) -> Iterator[bytes]:
    """The lines of a table, oldest first, each with a line end: those that stood in it when the reading began.

    Raises:
        OSError: It cannot be read, or is no such table.
    """
    try:
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_WAIT_S)
        with contextlib.closing(connection):
            connection.text_factory = bytes
            for (line,) in connection.execute("SELECT line FROM records ORDER BY seq"):
                yield _text(line) + b"\n"
    except sqlite3.Error as error:
        raise OSError(errno.EIO, str(error), str(path)) from error


def _text(value: object) -> bytes:
    """A row's text. Anything else was not written by us, and is no sealed record."""
    return value if isinstance(value, bytes) else b""


def _fsync(place: Path) -> None:
    fd = os.open(place, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
