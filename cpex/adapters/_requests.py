"""The request that an adapter's operation belongs to: the one that the host has opened, else one of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from cpex.framework.errors import PluginViolationError
from cpex.framework.guard import Request, current_request
from cpex.framework.guard.sync import SyncGuard, SyncRequest, current_sync_request

if TYPE_CHECKING:
    from cpex.framework.manager import PluginManager

__all__ = ["denial_text", "request_of", "sync_request_of"]


@asynccontextmanager
async def request_of(manager: PluginManager, facts: Any = None) -> AsyncIterator[Request]:
    """The open request of this manager, or a new one with these facts."""
    known = current_request.get()
    if known is not None and known.manager is manager:
        yield known
        return
    async with manager.request(**(facts or {})) as own:
        yield own


@contextmanager
def sync_request_of(guard: SyncGuard) -> Iterator[SyncRequest]:
    """The same, for code without an event loop."""
    known = current_sync_request.get()
    if known is not None and known.request.manager is guard.manager:
        yield known
        return
    with guard.request() as own:
        yield own


def denial_text(denial: PluginViolationError) -> str:
    """What a model or a user may read of a denial."""
    violation = denial.violation
    return f"denied: {violation.reason} ({violation.code})" if violation is not None else "denied"
