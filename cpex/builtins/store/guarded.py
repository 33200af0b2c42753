"""A store that may be away, and what a plugin does meanwhile."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, field_validator

from cpex.builtins.store.failures import StoreFailure, count_store_failure
from cpex.builtins.store.memory import MemoryStore
from cpex.builtins.store.opening import check_target, open_store, store_kind
from cpex.builtins.store.port import Store, StoreError
from cpex.framework import PluginResult, PluginViolation, clock

__all__ = ["HTTP_SERVICE_UNAVAILABLE", "STORE_UNAVAILABLE", "GuardedStore", "StoreSettings", "store_key"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
"""Code of a denial because the store is away."""
HTTP_SERVICE_UNAVAILABLE = 503
_PAUSE_S = 1.0
"""How long a store that failed is left alone, so that an outage costs one waiting call a second and not all of them."""


# SECURITY: an error about `store` would otherwise quote its password.
class StoreSettings(BaseModel, extra="forbid", frozen=True, hide_input_in_errors=True):
    """Where a plugin keeps its state, and what it does when it cannot get there."""

    store: str | None = None
    """A path for SQLite, a `redis://` or `rediss://` URL, or nothing: this process's memory."""
    on_store_error: Literal["deny", "allow", "local"] = "deny"
    """What becomes of a call while the store is away; `local` counts in this process alone."""

    @field_validator("store")
    @classmethod
    def _check_store(cls, value: str | None) -> str | None:
        return None if value is None else check_target(value)


class GuardedStore:
    """The store of one plugin, with its rule for outages.

    An outage is logged when it begins and when it ends; every call that it touched is counted, here and for the whole
    process (`cpex.builtins.store.failures`).
    """

    def __init__(self, plugin: str, settings: StoreSettings, *, max_entries: int = 100_000) -> None:
        """Open the store that the settings name.

        Args:
            plugin: The plugin's name, for the log and for results.
            max_entries: What a store in memory keeps.

        Raises:
            ValueError: The store cannot be where it is said to be.
            ModuleNotFoundError: The store's library is not installed; the message names the extra.
        """
        self._plugin = plugin
        self._policy = settings.on_store_error
        self._local = MemoryStore(max_entries=max_entries)
        self._store: Store = self._local if settings.store is None else open_store(settings.store)
        self._failure = StoreFailure(plugin, store_kind(settings.store), settings.on_store_error)
        self._away_until_s: float | None = None
        self._errors_before = 0
        self.errors = 0
        """Calls that the store did not answer, since the start."""

    @property
    def forgotten(self) -> int:
        """Entries in memory that were dropped to make room."""
        return self._local.forgotten

    async def ask(self, operation: Callable[[Store], Awaitable[T]]) -> T | None:
        """Run an operation on the store.

        Returns:
            The answer, with `local` possibly that of this process; `None` when the store is away and policy decides.
        """
        if self._away_until_s is not None and clock.monotonic() < self._away_until_s:
            self._count()
        else:
            try:
                answer = await operation(self._store)
            except StoreError as error:
                self._note_failure(error)
            else:
                self._note_success()
                return answer
        return await operation(self._local) if self._policy == "local" else None

    def decide(self) -> PluginResult[Any]:
        """What becomes of a call for which `ask` had no answer; the result's metadata names the policy."""
        metadata = {self._plugin: {"store_error": self._policy}}
        if self._policy == "allow":
            return PluginResult(metadata=metadata)
        violation = PluginViolation(
            reason="The limits cannot be checked",
            description="The store that holds them does not answer; try again soon.",
            code=STORE_UNAVAILABLE,
            http_status_code=HTTP_SERVICE_UNAVAILABLE,
            http_headers={"Retry-After": str(round(_PAUSE_S))},
        )
        return PluginResult(continue_processing=False, violation=violation, metadata=metadata)

    async def close(self) -> None:
        """Give back what the store holds."""
        await self._store.close()

    def _note_failure(self, error: StoreError) -> None:
        if self._away_until_s is None:
            self._errors_before = self.errors
            logger.warning(
                "plugin `%s`: %s; until it does, `on_store_error: %s` holds", self._plugin, error, self._policy
            )
        self._count()
        self._away_until_s = clock.monotonic() + _PAUSE_S

    def _count(self) -> None:
        self.errors += 1
        count_store_failure(self._failure)

    def _note_success(self) -> None:
        if self._away_until_s is not None:
            self._away_until_s = None
            missed = self.errors - self._errors_before
            logger.warning("plugin `%s`: the store answers again, after %d calls without it", self._plugin, missed)


def store_key(*parts: str | None) -> str:
    """One key for these parts, that nobody can read names or addresses from; different parts never share one."""
    return hashlib.blake2b(json.dumps(parts).encode(), digest_size=16).hexdigest()
