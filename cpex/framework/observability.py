"""How the framework is watched: the tracing port, with a tracer that does nothing, and the load of the engines.

The framework opens spans only when the host has set a provider and named a trace. Which spans there are, and when they
close, is the pipeline's business; what becomes of them is the provider's.

What the engines of a process are busy with can be read at any time (`engine_load`), as those who answer a scrape must.
Totals belong to the process: they only grow, and outlive the managers that they were counted in.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Sized
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable
from weakref import WeakSet

__all__ = [
    "EngineLoad",
    "NullObservability",
    "ObservabilityProvider",
    "count_lost_background_work",
    "current_trace_id",
    "engine_load",
    "watch_engine",
]

current_trace_id: ContextVar[str | None] = ContextVar("current_trace_id", default=None)
"""The trace that hook calls of this context belong to. The host sets it; unset or empty means no spans."""


@runtime_checkable
class ObservabilityProvider(Protocol):
    """Receives spans. It is not told of parents: spans of one trace nest by the order of their start and end.

    Both methods are called with keyword arguments only, from the event loop, so they must not block. What they raise is
    logged and never reaches the caller.
    """

    def start_span(
        self,
        trace_id: str,
        name: str,
        kind: str = "internal",
        resource_type: str | None = None,
        resource_name: str | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> str | None:
        """Open a span and return its id; with `None` the span is not closed either."""

    def end_span(self, span_id: str | None, status: str = "ok", attributes: dict[str, Any] | None = None) -> None:
        """Close a span with status `ok` or `error`."""


class NullObservability:
    """A provider that records nothing."""

    def start_span(
        self,
        trace_id: str,
        name: str,
        kind: str = "internal",
        resource_type: str | None = None,
        resource_name: str | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> str | None:
        """Open nothing."""
        return None

    def end_span(self, span_id: str | None, status: str = "ok", attributes: dict[str, Any] | None = None) -> None:
        """Close nothing."""


@dataclass(frozen=True, slots=True)
class EngineLoad:
    """What all engines of this process are busy with, and what they do without."""

    background: int
    """Background tasks that have not ended: fire-and-forget plugins, observers of outcomes, redactions for both."""
    refused: int
    """Turns of background plugins that were not taken because the limit was reached, since the process began."""
    skipped: int
    """Turns that were not taken because the payload could not be redacted for them, since the process began."""
    disabled: frozenset[str]
    """Plugins that are switched off because they failed (`on_error: disable`)."""
    not_started: frozenset[str]
    """Plugins that a manager started without."""


class WatchedEngine(Protocol):
    """What is read of an engine, from any thread."""

    @property
    def background(self) -> Sized: ...

    @property
    def disabled(self) -> Collection[str]: ...

    @property
    def not_started(self) -> Collection[str]: ...


_lock = threading.Lock()
_engines: WeakSet[WatchedEngine] = WeakSet()
_lost = {"refused": 0, "skipped": 0}


def watch_engine(engine: WatchedEngine) -> None:
    """Count an engine in, for as long as it lives."""
    with _lock:
        _engines.add(engine)


def count_lost_background_work(*, refused: int = 0, skipped: int = 0) -> None:
    """Add to the totals of `EngineLoad`."""
    with _lock:
        _lost["refused"] += refused
        _lost["skipped"] += skipped


def engine_load() -> EngineLoad:
    """The load at this moment. Safe in any thread."""
    with _lock:
        engines, lost = list(_engines), dict(_lost)
    return EngineLoad(
        background=sum(len(engine.background) for engine in engines),
        refused=lost["refused"],
        skipped=lost["skipped"],
        disabled=frozenset().union(*(frozenset(engine.disabled) for engine in engines)),
        not_started=frozenset().union(*(frozenset(engine.not_started) for engine in engines)),
    )
