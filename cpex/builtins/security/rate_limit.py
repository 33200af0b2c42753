"""The rate limit: how often somebody may call something."""

from __future__ import annotations

from collections import Counter
from typing import Any, Literal

from pydantic import Field

from cpex.builtins.content import BEFORE_HOOKS
from cpex.builtins.guard import Guard, GuardedCall
from cpex.builtins.security.limit_headers import HTTP_TOO_MANY_REQUESTS, limit_headers, retry_after
from cpex.builtins.security.scopes import Scope, owner, scope_parts
from cpex.builtins.store.guarded import GuardedStore, StoreSettings
from cpex.builtins.store.port import Rate, Taken
from cpex.builtins.targets import Target, targets_of
from cpex.framework import PluginConfig, PluginResult, PluginViolation, clock

__all__ = ["RateLimitPlugin", "RateLimitSettings"]

CODE = "RATE_LIMIT_EXCEEDED"
_BEFORE_MESSAGES = ("cmf.tool_pre_invoke", "cmf.prompt_pre_fetch", "cmf.resource_pre_fetch", "cmf.llm_input")

_ENDS = ("llm_output", "tool_post_invoke", "prompt_post_fetch", "resource_post_fetch")
"""Where something ends that was counted when it began."""


class RateLimitSettings(StoreSettings):
    """How often, how much at once, and for whom together."""

    requests_per_minute: int = Field(default=60, ge=1, le=1_000_000)
    """Calls that come back in a minute, evenly."""
    burst_size: int = Field(default=10, ge=1, le=1_000_000)
    """Calls that may come at once after a quiet time."""
    scope: Scope = "user"
    """Who shares a limit: `session`, `user`, `tenant`, `tool`, `server` or `global`; several joined by `+`."""
    headers: Literal["all", "standard", "legacy", "none"] = "all"
    """Which headers tell of the limit: `RateLimit` and `RateLimit-Policy`, `X-RateLimit-*`, both or none."""
    max_keys: int = Field(default=100_000, ge=1)
    """Limits that a store in memory keeps; beyond it the one idle longest starts afresh."""


class RateLimitPlugin(Guard):
    """Denies calls that come too often.

    A token bucket for each user, tenant, tool or combination of them, as `scope` says; users of different tenants are
    different users, and calls without a user share one limit. A call that is denied takes nothing; one that another
    plugin denies later has taken its token. A message that names several tools takes one from the bucket of each.

    A denial has the code `RATE_LIMIT_EXCEEDED`, HTTP status 429, `Retry-After` and headers that tell of the limit;
    while the store is away it is `STORE_UNAVAILABLE` with 503. An allowed call carries the headers in its result.

    Source: docs/plugins/rate_limit.md.
    """

    settings_model = RateLimitSettings
    guards = (*BEFORE_HOOKS, *_BEFORE_MESSAGES, "evaluate")

    def __init__(self, config: PluginConfig) -> None:
        """Validate the settings and name the store.

        Raises:
            pydantic.ValidationError: A setting is unknown or does not fit.
            ValueError: The store cannot be where it is said to be.
            ModuleNotFoundError: The store's library is not installed; the message names the extra.
        """
        super().__init__(config)
        self._settings = settings = RateLimitSettings.model_validate(config.config or {})
        self._rate = Rate.per_minute(settings.requests_per_minute, settings.burst_size)
        self._store = GuardedStore(self.name, settings, max_entries=settings.max_keys)

    @property
    def store_errors(self) -> int:
        """Calls that the store did not answer, since the start."""
        return self._store.errors

    async def shutdown(self) -> None:
        """Close the store; it opens again on use."""
        await self._store.close()

    async def on_hook(self, call: GuardedCall) -> PluginResult[Any]:
        """Count a call, or deny it."""
        if call.hook == "evaluate" and call.stage in _ENDS:
            return PluginResult()
        now_s = clock.now().timestamp()
        tightest: Taken | None = None
        for key, amount in self._buckets(call).items():
            taken = await self._take(key, amount, now_s)
            if taken is None:
                return self._store.decide()
            if not taken.accepted:
                return self._denial(taken, now_s)
            tightest = taken if tightest is None or taken.remaining < tightest.remaining else tightest
        if tightest is None:
            return PluginResult()
        headers = self._headers(tightest, now_s)
        return PluginResult(metadata={self.name: {"remaining": tightest.remaining}}, http_headers=headers or None)

    async def _take(self, key: str, amount: int, now_s: float) -> Taken | None:
        return await self._store.ask(lambda store: store.take(key, self._rate, now_s=now_s, amount=amount))

    def _buckets(self, call: GuardedCall) -> Counter[str]:
        """How many tokens the call takes from which bucket."""
        scope = self._settings.scope
        targets: list[Target | None] = [None]
        if scope_parts(scope) & {"tool", "server"}:
            targets = [*targets_of(call.hook, call.payload)] or [None]
        return Counter(owner(scope, call, target, "rate_limit", self.name) for target in targets)

    def _headers(self, taken: Taken, now_s: float) -> dict[str, str]:
        settings = self._settings
        return limit_headers(settings.headers, self.name, settings.requests_per_minute, taken, now_s)

    def _denial(self, taken: Taken, now_s: float) -> PluginResult[Any]:
        settings = self._settings
        wait_s = taken.retry_after_s
        headers = {} if wait_s is None else {"Retry-After": retry_after(wait_s)}
        again = f"try again in {retry_after(wait_s)} s" if wait_s is not None else "no waiting helps, ask for fewer"
        numbers = {"requests_per_minute": settings.requests_per_minute}
        if wait_s is not None:
            numbers["retry_after_s"] = int(retry_after(wait_s))
        violation = PluginViolation(
            reason=f"Rate limit of {settings.requests_per_minute} requests per minute exceeded",
            description=f"Too many calls; {again}.",
            code=CODE,
            details={**numbers, "burst_size": settings.burst_size, "scope": settings.scope},
            http_status_code=HTTP_TOO_MANY_REQUESTS,
            http_headers={**headers, **self._headers(taken, now_s)} or None,
        )
        return PluginResult(continue_processing=False, violation=violation, denial_metadata=numbers)
