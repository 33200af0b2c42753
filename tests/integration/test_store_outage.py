"""What plugins do when a Redis or Valkey server is killed under them, and when it is back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from redis_servers import PATIENT, PROGRAMS, RedisServer, running_redis

from cpex.builtins.privacy.pii_redaction import PIIRedactionPlugin
from cpex.builtins.security.circuit_breaker import CircuitBreakerPlugin
from cpex.builtins.security.rate_limit import RateLimitPlugin
from cpex.builtins.security.token_budget import TokenBudgetPlugin
from cpex.builtins.store.failures import StoreFailure, store_failures
from cpex.framework import GlobalContext, Plugin, PluginConfig, TenantPluginManager, ToolPreInvokePayload, clock
from cpex.framework.models import Config

CASES: dict[str, tuple[type[Plugin], dict[str, Any]]] = {
    "rate": (RateLimitPlugin, {"burst_size": 2, "scope": "global"}),
    "budget": (TokenBudgetPlugin, {"budget": 6}),
    "breaker": (CircuitBreakerPlugin, {}),
    "pii": (PIIRedactionPlugin, {"mode": "tokenise", "token_key": "a secret of the test's own"}),
}


@pytest.fixture(params=PROGRAMS)
def server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    with running_redis(program=request.param) as running:
        yield running


@pytest.mark.parametrize("policy", ["deny", "allow", "local"])
@pytest.mark.parametrize("name", CASES)
async def test_a_killed_server_leaves_the_policy_to_decide_until_it_is_back(
    server: RedisServer, name: str, policy: str
) -> None:
    cls, settings = CASES[name]
    config = {**settings, "store": f"{server.fresh_url()}{PATIENT}", "on_store_error": policy}
    plugin = cls(PluginConfig(name=f"{name}-{policy}", kind="x.Y", hooks=["tool_pre_invoke"], config=config))
    manager = TenantPluginManager(Config())
    manager._registry.register(plugin)
    manager._initialized = True
    failure = StoreFailure(plugin.name, "redis", policy)
    # The counts are the process's, whichever tests it ran before.
    before = store_failures().get(failure, 0)

    async def verdict() -> str:
        payload = ToolPreInvokePayload(name="t", args={"q": "x"})
        result, _ = await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id="r"))
        return result.violation.code if result.violation else "allowed"

    with clock.use_clock(clock.FixedClock(datetime(2024, 5, 20, tzinfo=UTC))) as time:
        assert await verdict() == "allowed"
        server.kill()
        away = [await verdict(), await verdict()]
        server.start()
        time.advance(1)
        assert await verdict() == "allowed", "the server has forgotten what it held, and counts again"
    await manager.shutdown()
    assert away == (["STORE_UNAVAILABLE"] * 2 if policy == "deny" else ["allowed"] * 2)
    assert store_failures()[failure] == before + 2
