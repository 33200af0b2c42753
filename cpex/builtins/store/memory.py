"""The store of one process: a dictionary that forgets."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from cpex.builtins.store.entries import Entry, EntryStore, Step

__all__ = ["MemoryStore"]

T = TypeVar("T")


class MemoryStore(EntryStore):
    """Keeps entries in this process, up to a number.

    No operation has a suspension point, so requests on one event loop never meet in the middle of one. Not for several
    threads. `close` keeps the entries: they live as long as the object.
    """

    def __init__(self, *, max_entries: int = 100_000) -> None:
        """Start empty.

        Args:
            max_entries: Beyond it the entry that was not used for longest is forgotten.
        """
        self._max_entries = max_entries
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self.forgotten = 0
        """Entries that were dropped to make room before they had expired."""

    def __len__(self) -> int:
        return len(self._entries)

    async def close(self) -> None:
        """Do nothing: there is nothing to give back."""

    async def _read(self, key: str, now_us: int) -> Entry | None:
        return self._current(key, now_us)

    async def _step(self, key: str, decide: Callable[[Entry | None], Step[T]], now_us: int) -> T:
        entry = self._current(key, now_us)
        step = decide(entry)
        if step.changed:
            self._write(key, step.entry, now_us)
        elif entry is not None:
            self._entries.move_to_end(key)
        return step.answer

    def _current(self, key: str, now_us: int) -> Entry | None:
        entry = self._entries.get(key)
        return entry if entry is not None and not _expired(entry, now_us) else None

    def _write(self, key: str, entry: Entry | None, now_us: int) -> None:
        if entry is None:
            self._entries.pop(key, None)
            return
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > self._max_entries:
            _, dropped = self._entries.popitem(last=False)
            self.forgotten += not _expired(dropped, now_us)


def _expired(entry: Entry, now_us: int) -> bool:
    return entry.expires_us is not None and entry.expires_us <= now_us
