from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from cpex.builtins.security.limit_headers import limit_headers
from cpex.builtins.security.rate_limit import RateLimitPlugin
from cpex.builtins.store.port import Taken
from cpex.framework import (
    AgentPreInvokePayload,
    GlobalContext,
    PluginConfig,
    PluginContext,
    PluginResult,
    PluginViolation,
    PromptPrehookPayload,
    ResourcePreFetchPayload,
    TenantPluginManager,
    ToolPreInvokePayload,
    clock,
)
from cpex.framework.cmf.message import Message, Role, ToolCall, ToolCallContentPart
from cpex.framework.hooks.message import MessageHookType, MessagePayload
from cpex.framework.models import Config

Configure = Callable[..., PluginConfig]
NOON_S = 1_716_206_400
"""2024-05-20 12:00 UTC."""


@pytest.fixture(autouse=True)
def time() -> Iterator[clock.FixedClock]:
    with clock.use_clock(clock.FixedClock(datetime(2024, 5, 20, 12, tzinfo=UTC))) as fixed:
        yield fixed


def of(user: Any = None, tenant: str | None = None) -> PluginContext:
    return PluginContext(global_context=GlobalContext(request_id="r", user=user, tenant_id=tenant))


async def call(plugin: RateLimitPlugin, context: PluginContext | None = None, tool: str = "t") -> PluginResult[Any]:
    return await plugin.tool_pre_invoke(ToolPreInvokePayload(name=tool, args={}), context or of("ann"))


async def allowed(plugin: RateLimitPlugin, *contexts: PluginContext, tool: str = "t") -> list[bool]:
    return [(await call(plugin, context, tool)).continue_processing for context in contexts]


async def test_a_burst_is_let_through_and_then_as_many_as_come_back(
    configure: Configure, time: clock.FixedClock
) -> None:
    plugin = RateLimitPlugin(configure(requests_per_minute=30, burst_size=3))
    assert await allowed(plugin, *[of("ann")] * 4) == [True, True, True, False]
    time.advance(2)
    assert await allowed(plugin, *[of("ann")] * 2) == [True, False]
    time.advance(3600)
    assert await allowed(plugin, *[of("ann")] * 4) == [True, True, True, False]


async def test_a_denial_tells_http_clients_when_to_come_back(configure: Configure, time: clock.FixedClock) -> None:
    plugin = RateLimitPlugin(configure(requests_per_minute=6, burst_size=2))
    first = await call(plugin)
    assert first.metadata == {"guard": {"remaining": 1}}
    assert first.http_headers == {
        "RateLimit-Policy": '"guard";q=6;w=60',
        "RateLimit": '"guard";r=1;t=10',
        "X-RateLimit-Limit": "6",
        "X-RateLimit-Remaining": "1",
        "X-RateLimit-Reset": str(NOON_S + 10),
    }
    await call(plugin)
    time.advance(1.5)
    denied = await call(plugin)
    assert denied.violation == PluginViolation(
        reason="Rate limit of 6 requests per minute exceeded",
        description="Too many calls; try again in 9 s.",
        code="RATE_LIMIT_EXCEEDED",
        details={"requests_per_minute": 6, "burst_size": 2, "scope": "user", "retry_after_s": 9},
        http_status_code=429,
        http_headers={
            "Retry-After": "9",
            "RateLimit-Policy": '"guard";q=6;w=60',
            "RateLimit": '"guard";r=0;t=19',
            "X-RateLimit-Limit": "6",
            "X-RateLimit-Remaining": "0",
            "X-RateLimit-Reset": str(NOON_S + 20),
        },
    )
    assert denied.denial_metadata == {"requests_per_minute": 6, "retry_after_s": 9}
    time.advance(9)
    assert (await call(plugin)).continue_processing


@pytest.mark.parametrize(
    ("scope", "let_through"),
    [
        ("user", [True, False, True, True, False]),
        ("tenant", [True, False, False, True, False]),
        ("global", [True, False, False, False, False]),
        ("tool", [True, False, False, False, True]),
        ("user+tool", [True, False, True, True, True]),
        (["tool", "tenant"], [True, False, False, True, True]),
    ],
)
async def test_the_scope_says_who_shares_a_limit(
    configure: Configure, scope: str | list[str], let_through: list[bool]
) -> None:
    plugin = RateLimitPlugin(configure(burst_size=1, scope=scope))
    answers = await allowed(plugin, of("ann", "acme"), of("ann", "acme"), of("bob", "acme"), of("ann", "umbrella"))
    answers += await allowed(plugin, of("ann", "acme"), tool="other")
    assert answers == let_through


async def test_a_user_is_the_same_however_the_host_tells_it(configure: Configure) -> None:
    plugin = RateLimitPlugin(configure(burst_size=1))
    assert await allowed(plugin, of("ann"), of({"email": "ann"}), of(), of()) == [True, False, True, False]


async def test_a_tool_and_a_prompt_of_one_name_are_apart(configure: Configure) -> None:
    plugin = RateLimitPlugin(configure(burst_size=1, scope="tool"))
    context = of()
    answers = [
        await plugin.tool_pre_invoke(ToolPreInvokePayload(name="x", args={}), context),
        await plugin.prompt_pre_fetch(PromptPrehookPayload(prompt_id="x"), context),
        await plugin.resource_pre_fetch(ResourcePreFetchPayload(uri="x"), context),
        await plugin.agent_pre_invoke(AgentPreInvokePayload(agent_id="x", messages=[]), context),
        await plugin.prompt_pre_fetch(PromptPrehookPayload(prompt_id="x"), context),
    ]
    assert [answer.continue_processing for answer in answers] == [True, True, True, True, False]


@pytest.mark.parametrize(
    ("style", "names"),
    [
        ("all", {"RateLimit", "RateLimit-Policy", "X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}),
        ("standard", {"RateLimit", "RateLimit-Policy"}),
        ("legacy", {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}),
        ("none", set()),
    ],
)
async def test_headers_come_in_the_style_that_was_asked_for(configure: Configure, style: str, names: set[str]) -> None:
    plugin = RateLimitPlugin(configure(burst_size=1, headers=style))
    allowed_call, denied_call = await call(plugin), await call(plugin)
    assert set(allowed_call.http_headers or {}) == names
    assert denied_call.violation is not None
    assert set(denied_call.violation.http_headers or {}) == names | {"Retry-After"}


def test_a_name_cannot_end_a_header_line() -> None:
    headers = limit_headers("standard", 'a"b\\c\r\nSet-Cookie: x\u00e9', 6, Taken(True, 1, full_after_s=0.5), 0)
    assert headers["RateLimit"] == '"a\\"b\\\\c??Set-Cookie: x?";r=1;t=1'


def calling(*tools: str) -> MessagePayload:
    calls = [ToolCallContentPart(content=ToolCall(tool_call_id=tool, name=tool)) for tool in tools]
    return MessagePayload(message=Message(role=Role.ASSISTANT, content=calls))


async def test_a_message_takes_from_the_bucket_of_every_tool_that_it_calls(configure: Configure) -> None:
    plugin = RateLimitPlugin(configure(burst_size=2, scope="tool"))
    hook = getattr(plugin, "cmf.tool_pre_invoke")
    first = await hook(calling("a", "b", "a"), of())
    assert first.metadata == {"guard": {"remaining": 0}}
    assert [(await hook(calling(tool), of())).continue_processing for tool in ("a", "b", "b")] == [False, True, False]
    # The typed hook of the same tool is under the same limit.
    assert await allowed(plugin, of(), tool="b") == [False]


async def test_a_message_that_no_bucket_can_hold_is_told_so(configure: Configure) -> None:
    plugin = RateLimitPlugin(configure(burst_size=2, scope="tool", headers="none"))
    denied = await getattr(plugin, "cmf.tool_pre_invoke")(calling("a", "a", "a"), of())
    assert denied.violation is not None
    assert denied.violation.description == "Too many calls; no waiting helps, ask for fewer."
    assert denied.violation.http_headers is None
    assert await allowed(plugin, of(), tool="a") == [True]


async def test_a_message_that_brings_an_answer_is_no_call(configure: Configure) -> None:
    plugin = RateLimitPlugin(configure(burst_size=1, scope="user"))
    answer = calling().model_copy(update={"hook": MessageHookType.TOOL_POST_INVOKE})
    assert [(await plugin.evaluate(answer, of("ann"))).continue_processing for _ in range(3)] == [True] * 3


async def test_a_message_that_names_nothing_is_one_call(configure: Configure) -> None:
    plugin = RateLimitPlugin(configure(burst_size=1, scope="user"))
    assert [(await plugin.evaluate(calling(), of("ann"))).continue_processing for _ in range(2)] == [True, False]


async def test_a_limit_in_a_file_is_shared_and_survives_a_restart(configure: Configure, tmp_path: Path) -> None:
    settings = {"burst_size": 3, "store": str(tmp_path / "state.db")}
    first, second = RateLimitPlugin(configure(**settings)), RateLimitPlugin(configure(**settings))
    assert await allowed(first, of("ann")) + await allowed(second, of("ann")) == [True, True]
    await first.shutdown()
    await second.shutdown()
    third = RateLimitPlugin(configure(**settings))
    assert await allowed(third, of("ann"), of("ann")) == [True, False]
    await third.shutdown()
    await third.shutdown()


@pytest.mark.parametrize(
    ("policy", "let_through"), [("deny", [False, False]), ("allow", [True, True]), ("local", [True, False])]
)
async def test_without_its_store_the_policy_decides(
    configure: Configure, tmp_path: Path, policy: str, let_through: list[bool]
) -> None:
    (tmp_path / "state.db").write_text("no database" * 200)
    plugin = RateLimitPlugin(configure(burst_size=1, store=str(tmp_path / "state.db"), on_store_error=policy))
    assert await allowed(plugin, of("ann"), of("ann")) == let_through
    assert plugin.store_errors == 2
    await plugin.shutdown()


async def test_in_a_pipeline_the_denial_reaches_the_host_with_its_headers() -> None:
    config = PluginConfig(
        name="limit",
        kind="cpex.builtins.security.rate_limit.RateLimitPlugin",
        hooks=["tool_pre_invoke"],
        config={"burst_size": 1, "scope": "global"},
    )
    manager = TenantPluginManager(Config(plugins=[config]))
    await manager.initialize()
    payload = ToolPreInvokePayload(name="t", args={})
    results = [
        (await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id=str(number))))[0]
        for number in range(2)
    ]
    await manager.shutdown()
    assert results[0].continue_processing
    violation = results[1].violation
    assert violation is not None
    assert (violation.plugin_name, violation.http_status_code) == ("limit", 429)
    assert (violation.http_headers or {})["Retry-After"] == "1"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"requests_per_minute": "not_a_number"}, "requests_per_minute"),
        ({"requests_per_minute": 0}, "requests_per_minute"),
        ({"burst_size": 0}, "burst_size"),
        ({"scope": "planet"}, r"unknown scopes \['planet'\]; known: session, user, tenant, tool, server, global"),
        ({"scope": "user+global"}, "`global` is one limit for everybody"),
        ({"scope": 5}, "scope"),
        ({"scope": []}, "unknown scopes"),
        ({"request_per_minute": 5}, "request_per_minute"),
        ({"store": "mysql://x"}, "no store is of the kind `mysql`"),
    ],
)
def test_settings_that_make_no_sense_stop_the_start(
    configure: Configure, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        RateLimitPlugin(configure(**settings))
