"""The store of one machine: an SQLite file that several processes share, with nothing to install.

Write-ahead logging lets readers pass writers; a write takes the file's lock before it reads, so no two processes decide
on the same state. The file must lie on a local disk: locks of network file systems are not to be relied on.
"""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

from cpex.builtins.store.entries import Entry, EntryStore, Step
from cpex.builtins.store.forks import close_before_forks
from cpex.builtins.store.port import StoreError

__all__ = ["SqliteStore", "use_write_ahead_log"]

T = TypeVar("T")
_VERSION = 1
_SCHEMA = (
    "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, expires_us INTEGER) WITHOUT ROWID",
    "CREATE INDEX IF NOT EXISTS entries_by_expiry ON entries (expires_us) WHERE expires_us IS NOT NULL",
    f"PRAGMA user_version = {_VERSION}",
)
_SWITCH_PAUSE_S = 0.005
_SWEEP_EVERY = 256
"""Writes between two sweeps for what has expired."""
_SWEEP_AT_MOST = 1_000
"""Entries that one sweep removes, so that no caller pays for all."""


class SqliteStore(EntryStore):
    """Keeps entries in an SQLite file.

    Works in a thread of its own, so a wait for the file's lock holds up no other task. A process that dies loses
    nothing; a machine that loses power may lose the last moments, and the file stays whole. Before a fork the file is
    closed; parent and child open it anew.
    """

    def __init__(self, path: str | Path, *, timeout_s: float = 5.0) -> None:
        """Name the file; it is made on first use, readable by its owner only.

        Args:
            timeout_s: How long to wait for another process that is writing.

        Raises:
            ValueError: The file's directory does not exist, or the path is a directory.
        """
        self._path = Path(path).expanduser()
        if self._path.is_dir() or not self._path.parent.is_dir():
            raise ValueError(f"store `{path}` cannot be a file there; name a file in a directory that exists")
        self._timeout_s = timeout_s
        self._worker: _Worker | None = None
        self._abandoned: list[_Worker] = []

    async def close(self) -> None:
        """Close the file and end the thread."""
        worker, self._worker = self._worker, None
        if worker is not None and worker.pid == os.getpid():
            await asyncio.get_running_loop().run_in_executor(worker.executor, worker.close)
            worker.executor.shutdown(wait=False)

    async def _read(self, key: str, now_us: int) -> Entry | None:
        return await self._run(lambda worker: worker.read(key, now_us))

    async def _step(self, key: str, decide: Callable[[Entry | None], Step[T]], now_us: int) -> T:
        return await self._run(lambda worker: worker.step(key, decide, now_us))

    async def _run(self, work: Callable[[_Worker], T]) -> T:
        worker = self._current_worker()
        try:
            return await asyncio.get_running_loop().run_in_executor(worker.executor, work, worker)
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"store `{self._path}` did not answer: {error}") from error

    def _current_worker(self) -> _Worker:
        if self._worker is not None and self._worker.pid != os.getpid():
            # Its thread is the parent's, and so is its connection after a fork that Python did not make: it is kept.
            self._abandoned.append(self._worker)
            self._worker = None
        if self._worker is None:
            self._worker = _Worker(self._path, self._timeout_s)
        return self._worker


class _Worker:
    """One thread and its connection. The methods of its owner, but for the constructor, run in that thread."""

    def __init__(self, path: Path, timeout_s: float) -> None:
        self.pid = os.getpid()
        self.executor = ThreadPoolExecutor(1, thread_name_prefix="cpex-store")
        self._path = path
        self._timeout_s = timeout_s
        self._connection: sqlite3.Connection | None = None
        self._writes = 0
        self.lock = threading.Lock()
        close_before_forks(self)

    def read(self, key: str, now_us: int) -> Entry | None:
        with self.lock:
            return self._read(key, now_us)

    def _read(self, key: str, now_us: int) -> Entry | None:
        query = "SELECT value, expires_us FROM entries WHERE key = ? AND (expires_us IS NULL OR expires_us > ?)"
        row = self._connected().execute(query, (key, now_us)).fetchone()
        return None if row is None else Entry(json.loads(row[0]), row[1])

    def step(self, key: str, decide: Callable[[Entry | None], Step[T]], now_us: int) -> T:
        with self.lock:
            return self._step(key, decide, now_us)

    def _step(self, key: str, decide: Callable[[Entry | None], Step[T]], now_us: int) -> T:
        connection = self._connected()
        # IMMEDIATE takes the write lock before the read; a deferred transaction could fail between the two.
        connection.execute("BEGIN IMMEDIATE")
        try:
            step = decide(self._read(key, now_us))
            if step.changed:
                self._write(key, step.entry, now_us)
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
        return step.answer

    def close(self) -> None:
        with self.lock:
            self.drop_connection()

    def drop_connection(self) -> None:
        if self._connection is not None and self.pid == os.getpid():
            self._connection.close()
            self._connection = None

    def _write(self, key: str, entry: Entry | None, now_us: int) -> None:
        if entry is None:
            self._connected().execute("DELETE FROM entries WHERE key = ?", (key,))
        else:
            row: tuple[Any, ...] = (key, json.dumps(entry.value), entry.expires_us)
            self._connected().execute("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", row)
        self._writes += 1
        if self._writes % _SWEEP_EVERY == 0:
            self._sweep(now_us)

    def _sweep(self, now_us: int) -> None:
        expired = "SELECT key FROM entries WHERE expires_us <= ? ORDER BY expires_us LIMIT ?"
        self._connected().execute(f"DELETE FROM entries WHERE key IN ({expired})", (now_us, _SWEEP_AT_MOST))

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            # SECURITY: made here rather than by SQLite, which would let the umask decide who may read it.
            os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
            connection = sqlite3.connect(
                # Another thread closes it before it forks.
                self._path,
                timeout=self._timeout_s,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                use_write_ahead_log(connection, self._timeout_s)
                _prepare(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection


def use_write_ahead_log(connection: sqlite3.Connection, timeout_s: float) -> None:
    """Switch the file over. SQLite does not wait for others that are doing the same, so this does."""
    for attempt in count(1):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            # The lower byte is the code; the rest says where it came from.
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or attempt * _SWITCH_PAUSE_S >= timeout_s:
                raise
        time.sleep(_SWITCH_PAUSE_S)


def _prepare(connection: sqlite3.Connection) -> None:
    """Bring a file into the form that the store needs; several processes may do so at once."""
    connection.execute("PRAGMA synchronous = NORMAL")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == _VERSION:
        return
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if version not in (0, _VERSION) or (version == 0 and tables):
        raise sqlite3.DatabaseError("the file holds something else; name a file of its own")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("COMMIT")
