"""The rate limit: how often somebody may call something."""

from __future__ import annotations

import math
from typing import Any

from pydantic import Field, field_validator

from cpex.builtins.content import content_of
from cpex.builtins.session import user_id
from cpex.builtins.store.guarded import GuardedStore, StoreSettings, store_key
from cpex.builtins.store.port import Rate, Taken
from cpex.framework import Plugin, PluginConfig, PluginContext, PluginPayload, PluginResult, PluginViolation, clock

__all__ = ["RateLimitPlugin", "RateLimitSettings"]

CODE = "RATE_LIMIT_EXCEEDED"
HTTP_TOO_MANY_REQUESTS = 429
"""Source: RFC 6585, section 4."""
_SCOPES = ("user", "tenant", "tool", "global")
_TARGET_FIELDS = ("name", "prompt_id", "uri", "agent_id")


class RateLimitSettings(StoreSettings):
    """How often, how much at once, and for whom together."""

    requests_per_minute: int = Field(default=60, ge=1, le=1_000_000)
    """Calls that come back in a minute, evenly."""
    burst_size: int = Field(default=10, ge=1, le=1_000_000)
    """Calls that may come at once after a quiet time."""
    scope: str = "user"
    """Who shares a limit: `user`, `tenant`, `tool` or `global`; several joined by `+`, such as `user+tool`."""
    max_keys: int = Field(default=100_000, ge=1)
    """Limits that a store in memory keeps; beyond it the one idle longest starts afresh."""

    @field_validator("scope", mode="before")
    @classmethod
    def _join(cls, value: Any) -> Any:
        return "+".join(value) if isinstance(value, list) and all(isinstance(part, str) for part in value) else value

    @field_validator("scope")
    @classmethod
    def _check_scope(cls, value: str) -> str:
        parts = [part.strip() for part in value.split("+")]
        if unknown := [part for part in parts if part not in _SCOPES]:
            raise ValueError(f"unknown scopes {unknown}; known: {', '.join(_SCOPES)}, and several joined by `+`")
        if "global" in parts and len(parts) > 1:
            raise ValueError("`global` is one limit for everybody and goes with no other scope; leave one of them out")
        # One order, so that `user+tool` and `tool+user` are one limit.
        return "+".join(scope for scope in _SCOPES if scope in parts)


class RateLimitPlugin(Plugin):
    """Denies calls that come too often.

    A token bucket for each user, tenant, tool or combination of them, as `scope` says; users of different tenants are
    different users, and calls without a user share one limit. A call that is denied takes nothing; one that another
    plugin denies later has taken its token.

    A denial has the code `RATE_LIMIT_EXCEEDED`, HTTP status 429, `Retry-After` and `X-RateLimit-*` headers; while the
    store is away it is `STORE_UNAVAILABLE` with 503. An allowed call carries the `X-RateLimit-*` headers in its result.

    Source: docs/plugins/rate_limit.md.
    """

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
        self._scope = frozenset(settings.scope.split("+"))
        self._store = GuardedStore(self.name, settings, max_entries=settings.max_keys)

    @property
    def store_errors(self) -> int:
        """Calls that the store did not answer, since the start."""
        return self._store.errors

    async def shutdown(self) -> None:
        """Close the store; it opens again on use."""
        await self._store.close()

    async def _take(self, payload: PluginPayload, context: PluginContext) -> PluginResult[Any]:
        """Count a call, or deny it."""
        now_s = clock.now().timestamp()
        key = self._key(payload, context)
        taken = await self._store.ask(lambda store: store.take(key, self._rate, now_s=now_s))
        if taken is None:
            return self._store.decide()
        headers = self._headers(taken, now_s)
        if not taken.accepted:
            return self._denial(taken, headers)
        return PluginResult(metadata={self.name: {"remaining": taken.remaining}}, http_headers=headers)

    tool_pre_invoke = prompt_pre_fetch = resource_pre_fetch = agent_pre_invoke = _take

    def _key(self, payload: PluginPayload, context: PluginContext) -> str:
        scope, shared = self._scope, context.global_context
        user = user_id(context) if "user" in scope else None
        tenant = shared.tenant_id if scope & {"user", "tenant"} else None
        target = _target(payload) if "tool" in scope else None
        return store_key("rate_limit", self.name, self._settings.scope, tenant, user, target)

    def _headers(self, taken: Taken, now_s: float) -> dict[str, str]:
        return {
            "X-RateLimit-Limit": str(self._settings.requests_per_minute),
            "X-RateLimit-Remaining": str(taken.remaining),
            "X-RateLimit-Reset": str(math.ceil(now_s + taken.full_after_s)),
        }

    def _denial(self, taken: Taken, headers: dict[str, str]) -> PluginResult[Any]:
        settings = self._settings
        # A bucket holds at least one token, so one call can always be waited for.
        retry_after_s = max(1, math.ceil(taken.retry_after_s or 0))
        violation = PluginViolation(
            reason=f"Rate limit of {settings.requests_per_minute} requests per minute exceeded",
            description=f"Too many calls; try again in {retry_after_s} s.",
            code=CODE,
            details={
                "requests_per_minute": settings.requests_per_minute,
                "burst_size": settings.burst_size,
                "scope": settings.scope,
                "retry_after_s": retry_after_s,
            },
            http_status_code=HTTP_TOO_MANY_REQUESTS,
            http_headers={"Retry-After": str(retry_after_s), **headers},
        )
        numbers = {"requests_per_minute": settings.requests_per_minute, "retry_after_s": retry_after_s}
        return PluginResult(continue_processing=False, violation=violation, denial_metadata=numbers)


def _target(payload: PluginPayload) -> str:
    """What is called, with its hook, so that a tool and a prompt of one name are apart."""
    name = next((value for field in _TARGET_FIELDS if (value := getattr(payload, field, None)) is not None), "")
    return f"{content_of(payload).hook}:{name}"
