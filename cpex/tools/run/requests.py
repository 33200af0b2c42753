"""Requests whose contexts wait for their next event."""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from typing import Any

from cpex.framework.models.context import GlobalContext, PluginContextTable

__all__ = ["MAX_OPEN", "OpenRequests"]

MAX_OPEN = 10_000
"""Requests; when more are open, the oldest is forgotten."""

_COUNTERPARTS = (("_post_", "_pre_"), ("_output", "_input"))
"""Parts of the names of hooks after and before an operation."""


@dataclass(slots=True)
class _Request:
    contexts: PluginContextTable
    state: dict[str, Any]
    metadata: dict[str, Any]
    waiting: Counter[str] = field(default_factory=Counter)
    """Pre hooks that were allowed and whose post hook is still to come."""


class OpenRequests:
    """Carries plugins' contexts and the shared state from event to event of one request.

    A request is forgotten when the post hook of each of its pre hooks has come, or when too many newer ones are open:
    the post hook of a call that was denied may never come.
    """

    def __init__(self, limit: int = MAX_OPEN) -> None:
        self._limit = limit
        self._requests: OrderedDict[str, _Request] = OrderedDict()

    def __len__(self) -> int:
        return len(self._requests)

    def resume(self, context: GlobalContext) -> PluginContextTable | None:
        """The contexts of earlier events of the request, if any; its shared state is put into `context`.

        What the event itself says about the state wins.
        """
        request = self._requests.get(context.request_id)
        if request is None:
            return None
        context.state = {**request.state, **context.state}
        context.metadata = {**request.metadata, **context.metadata}
        return request.contexts

    def keep(self, hook: str, context: GlobalContext, contexts: PluginContextTable | None, *, allowed: bool) -> None:
        """Keep what an event left behind, unless it was the last of its request.

        Args:
            contexts: `None` keeps those of earlier events.
        """
        request_id = context.request_id
        request = self._requests.get(request_id)
        if request is None:
            request = self._requests[request_id] = _Request({}, {}, {})
        if contexts is not None:
            request.contexts = contexts
        request.state, request.metadata = context.state, context.metadata
        if not self._goes_on(request.waiting, hook, allowed=allowed):
            del self._requests[request_id]
        elif len(self._requests) > self._limit:
            self._requests.popitem(last=False)

    @staticmethod
    def _goes_on(waiting: Counter[str], hook: str, *, allowed: bool) -> bool:
        """Note the hook; False when it was a post hook, and no other is waited for."""
        for after, before in _COUNTERPARTS:
            if before in hook:
                # What was denied does not happen, so nothing follows it.
                waiting[hook] += allowed
                return True
            if after in hook:
                waiting -= Counter({hook.replace(after, before): 1})
                return waiting.total() > 0
        return True
