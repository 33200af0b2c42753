"""Decisions about managers, contexts, replies, outcomes and the clock."""

from __future__ import annotations

import ast
import asyncio
from pathlib import Path
from typing import Any

import pytest
from support import allow, call, deny, manager_of, plugin, tool_payload

import cpex
from cpex.framework import (
    GlobalContext,
    HookPayloadPolicy,
    HttpAuthResolveUserPayload,
    HttpHeaderPayload,
    PluginError,
    PluginManager,
    PluginResult,
    TenantPluginManager,
    get_plugin_manager,
)
from cpex.framework.models import Config

SHIPPED = Path(cpex.__file__).parent


@pytest.mark.conformance("D23")
def test_resetting_forgets_the_manager_of_the_process_and_tenants_share_nothing(
    shared_manager: type[PluginManager], environment: Any
) -> None:
    environment("PLUGINS_ENABLED", "true")
    environment("PLUGINS_CONFIG_FILE", "")
    first = get_plugin_manager()
    assert get_plugin_manager() is first
    tenant = TenantPluginManager(Config(plugin_timeout_s=3))
    assert isinstance(tenant, PluginManager)
    type(tenant).reset()
    assert get_plugin_manager() is first
    assert (tenant.config.plugin_timeout_s, shared_manager().config) == (3, None)
    shared_manager.reset()
    assert get_plugin_manager() is not first


@pytest.mark.conformance("D23")
def test_a_second_set_of_policies_is_refused(shared_manager: type[PluginManager]) -> None:
    policies = {"h": HookPayloadPolicy(writable_fields=frozenset({"a"}))}
    shared_manager(hook_policies=policies)
    assert shared_manager(hook_policies=dict(policies)).executor.hook_policies == policies
    with pytest.raises(ValueError, match="already has another `hook_policies`"):
        shared_manager(hook_policies={"h": HookPayloadPolicy(writable_fields=frozenset({"b"}))})


@pytest.mark.conformance("D24")
async def test_state_survives_a_hook_that_the_plugin_has_no_part_in() -> None:
    async def remembers(payload: Any, context: Any) -> PluginResult[Any]:
        context.set_state("count", context.get_state("count", 0) + 1)
        return PluginResult(metadata={"count": context.get_state("count")})

    manager = manager_of(plugin(remembers, hooks=["before", "after"]), plugin(allow, "other", hooks=["between"]))
    _, table = await call(manager, hook="before")
    _, table = await call(manager, hook="between", local_contexts=table)
    _, table = await call(manager, hook="nobody_has_it", local_contexts=table)
    result, table = await call(manager, hook="after", local_contexts=table)
    assert result.metadata == {"count": 2}
    assert len(table) == 2


@pytest.mark.conformance("D24")
async def test_the_table_is_none_only_where_nobody_is_registered_and_nothing_came_in() -> None:
    manager = manager_of(plugin(allow, conditions=[{"tools": ["another"]}]))
    assert (await call(manager))[1] == {}
    assert (await call(manager, hook="nobody_has_it"))[1] is None


@pytest.mark.conformance("D5a")
async def test_conditions_are_judged_on_the_payload_as_it_then_stands() -> None:
    async def renames(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=payload.model_copy(update={"name": "other"}))

    guard = plugin(deny, "guard", priority=200, conditions=[{"tools": ["other"]}])
    result, _ = await call(manager_of(plugin(renames), guard))
    assert result.continue_processing is False


@pytest.mark.conformance("D29")
async def test_a_foreign_payload_is_no_way_around_the_hooks_class() -> None:
    async def swaps(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=HttpHeaderPayload({"a": "b"}))

    async def gives_a_dict(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload={"name": "t", "args": {"from": "a dict"}})

    with pytest.raises(PluginError, match="HttpHeaderPayload for hook tool_pre_invoke; expected ToolPreInvokePayload"):
        await call(manager_of(plugin(swaps)))
    result, _ = await call(manager_of(plugin(gives_a_dict)))
    assert result.modified_payload == tool_payload(**{"from": "a dict"})


@pytest.mark.conformance("D29")
async def test_of_two_dict_replies_the_last_stands_and_is_the_recorded_one() -> None:
    def user(name: str) -> Any:
        async def handler(payload: Any, context: Any) -> PluginResult[Any]:
            return PluginResult(modified_payload={"email": name, name: True})

        return handler

    hook = "http_auth_resolve_user"
    request = HttpAuthResolveUserPayload.model_construct(headers=HttpHeaderPayload({}))
    manager = manager_of(plugin(user("a"), "a", [hook]), plugin(user("b"), "b", [hook]))
    result, _ = await call(manager, request, hook=hook)
    assert result.modified_payload == {"email": "b", "b": True}
    assert [each.payload_modified for each in result.executions] == [True, True]


@pytest.mark.conformance("D30")
@pytest.mark.parametrize("decision", ["allowed", "denied", "failed"])
async def test_a_plugin_learns_what_was_finally_decided(decision: str) -> None:
    told: list[Any] = []

    async def completed(outcome: Any) -> None:
        told.append(outcome)

    async def decides(payload: Any, context: Any) -> PluginResult[Any]:
        if decision == "failed":
            raise RuntimeError("broken")
        return await (deny if decision == "denied" else allow)(payload, context)

    async def redacts(payload: Any, context: Any) -> PluginResult[Any]:
        return PluginResult(modified_payload=payload.model_copy(update={"args": {"secret": "***"}}))

    ran, absent, watches = plugin(allow, "ran"), plugin(allow, "absent", ["another"]), plugin(allow, "all", ["another"])
    for each in (ran, absent, watches):
        # Found by its name, as a method would be.
        each.hook_completed = completed  # type: ignore[attr-defined]
    watches.observes_all = True
    manager = manager_of(
        ran, absent, watches, plugin(decides, "decides", priority=200), plugin(redacts, "redacts", mode="transform")
    )
    call_of = asyncio.create_task(call(manager, tool_payload(secret="s3cret"), GlobalContext(request_id="r7")))
    await asyncio.wait([call_of])
    assert (call_of.exception() is not None) is (decision == "failed")
    await manager.shutdown()
    assert len(told) == 2
    outcome = told[0]
    assert (outcome.hook, outcome.request_id, outcome.allowed) == ("tool_pre_invoke", "r7", decision == "allowed")
    assert (outcome.violation is not None) is (decision == "denied")
    assert outcome.payload.args == {"secret": "***"}
    assert (len(outcome.executions) >= 2, outcome.duration_ns > 0) == (True, True)


@pytest.mark.conformance("D31")
def test_nothing_but_the_clock_asks_the_system_for_the_time() -> None:
    asked = []
    for path in sorted((SHIPPED / "framework").rglob("*.py")) + sorted((SHIPPED / "builtins").rglob("*.py")):
        if path == SHIPPED / "framework" / "clock.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if name in ("datetime.now", "datetime.utcnow", "date.today", "datetime.datetime.now") or name.startswith(
                ("time.time", "time.monotonic", "time.perf_counter")
            ):
                asked.append(f"{path.relative_to(SHIPPED)}:{node.lineno} {name}")
    assert asked == []
