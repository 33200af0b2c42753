"""How often the stores of this process did not answer, for whoever reports it.

Counts belong to the process, as those of a metrics library do: they only grow, and outlive the plugins that caused
them. What is counted is decided in `guarded`; what becomes of the counts is the business of observers.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

__all__ = ["StoreFailure", "count_store_failure", "observe_store_failures", "store_failures"]


class StoreFailure(NamedTuple):
    """One call or refund that went without its store."""

    plugin: str
    """Name of the plugin, as configured."""
    store: str
    """Kind of store: `sqlite`, `redis` or `redis-cluster`."""
    policy: str
    """What became of it, as `on_store_error` says: `deny`, `allow` or `local`."""


Observer = Callable[[StoreFailure], None]

_lock = threading.Lock()
_counts: Counter[StoreFailure] = Counter()
_observers: list[Observer] = []


def store_failures() -> dict[StoreFailure, int]:
    """How often each kind of failure has happened in this process so far: a copy."""
    with _lock:
        return dict(_counts)


def observe_store_failures(observer: Observer) -> Callable[[], None]:
    """Tell `observer` of every failure from now on.

    It is called in the task or thread that met the failure, must not block, and must not raise.

    Returns:
        A function that ends it; calling that twice does nothing.
    """
    with _lock:
        _observers.append(observer)

    def stop() -> None:
        with _lock:
            # By identity: two equal observers are two.
            _observers[:] = [each for each in _observers if each is not observer]

    return stop


def count_store_failure(failure: StoreFailure) -> None:
    """Count a failure and tell the observers."""
    with _lock:
        _counts[failure] += 1
        observers = list(_observers)
    for observer in observers:
        observer(failure)
