"""Decisions kept for a while, around any resolver."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from dataclasses import replace
from typing import Any

from cpex.framework import clock
from cpex.framework.models.copying import copy_tree
from cpex.framework.pdp.base import FAIL_OPEN, PdpResolver, PdpResult

__all__ = ["CachingResolver"]


class CachingResolver(PdpResolver):
    """Answers a question that was answered within `ttl_s` from memory.

    A decision holds for the whole question, so facts that differ from call to call (a request id, a time) keep the
    cache from ever answering: leave them out. What a resolver let pass without a decision is not kept.
    """

    def __init__(self, resolver: PdpResolver, ttl_s: float, max_entries: int = 10_000) -> None:
        """Put a cache in front of a resolver.

        Args:
            ttl_s: Seconds that a decision holds, by the framework's clock.
            max_entries: Decisions kept; the one unused longest goes first.

        Raises:
            ValueError: A limit is not positive.
        """
        if ttl_s <= 0 or max_entries <= 0:
            raise ValueError("ttl_s and max_entries must be positive")
        self._resolver = resolver
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._kept: OrderedDict[bytes, tuple[float, PdpResult]] = OrderedDict()

    async def resolve(self, input_data: dict[str, Any]) -> PdpResult:
        """Answer from memory, or ask; see `PdpResolver.resolve`."""
        key = _key(input_data)
        if key is None:
            return await self._resolver.resolve(input_data)
        found = self._kept.get(key)
        if found is not None and clock.monotonic() - found[0] < self._ttl_s:
            self._kept.move_to_end(key)
            return replace(_own(found[1]), from_cache=True, latency_ms=0.0)
        asked_at = clock.monotonic()
        result = await self._resolver.resolve(input_data)
        if not (result.reason or "").endswith(FAIL_OPEN):
            self._kept[key] = asked_at, _own(result)
            self._kept.move_to_end(key)
            if len(self._kept) > self._max_entries:
                self._kept.popitem(last=False)
        return result

    def forget(self) -> None:
        """Forget every decision, as after a change of policy."""
        self._kept.clear()

    async def close(self) -> None:
        """Close the resolver behind."""
        await self._resolver.close()


def _own(result: PdpResult) -> PdpResult:
    """The same with a context of its own: what one caller writes into it is not for the next one."""
    return replace(result, context=copy_tree(result.context))


def _key(input_data: dict[str, Any]) -> bytes | None:
    """A digest of a question; `None` for one that is no JSON, which the resolver is to refuse.

    A question holds the arguments of a call: as a key they would be kept, and ten thousand large ones are a lot.
    """
    try:
        text = json.dumps(input_data, sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None
    return hashlib.sha256(text.encode("ascii")).digest()
