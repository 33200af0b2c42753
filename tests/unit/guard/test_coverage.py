"""The coverage ledger: a mandatory hook that did not run stops the operation, or alarms."""

from __future__ import annotations

import asyncio
import logging
import pickle
from typing import Any

import pytest
from support import allow, deny, manager_of, plugin

from cpex.framework.errors import CoverageError
from cpex.framework.guard import HTTP, TOOL
from cpex.framework.guard.coverage import MAX_RECORDS, gaps
from cpex.framework.hooks.tools import ToolPreInvokePayload
from cpex.framework.loader.config import ConfigLoader
from cpex.framework.manager import TenantPluginManager
from cpex.framework.models.config import Config
from cpex.framework.models.coverage import CoverageConfig, CoverageMode
from cpex.framework.models.result import PluginResult

PRE, POST = "tool_pre_invoke", "tool_post_invoke"
BOTH = CoverageConfig(mandatory=[PRE, POST])
ALARM = CoverageConfig(mode=CoverageMode.ALARM, mandatory=[PRE, POST])


async def crash(payload: Any, context: Any) -> PluginResult[Any]:
    raise RuntimeError("boom")


async def test_an_operation_whose_mandatory_hooks_ran_passes_and_is_entered() -> None:
    manager = manager_of(plugin(allow, hooks=[PRE, POST]))
    async with manager.request(coverage=BOTH) as request:
        assert await request.call_tool("a", {}, lambda: 1) == 1
        (record,) = request.ledger.records
    assert (record.kind, record.target, record.outcome) == ("tool", "a", "completed")
    assert (record.hooks, record.missing) == ([PRE, POST], [])


async def test_a_missing_pre_hook_stops_the_operation() -> None:
    called: list[int] = []
    async with manager_of().request(coverage=BOTH) as request:
        with pytest.raises(CoverageError, match="tool `a` went past mandatory hook `tool_pre_invoke`") as caught:
            await request.call_tool("a", {}, lambda: called.append(1))
        (record,) = request.ledger.records
    assert (called, record.outcome, record.missing) == ([], "bypassed", [PRE])
    assert (caught.value.kind, caught.value.target, caught.value.missing) == ("tool", "a", (PRE,))
    copy = pickle.loads(pickle.dumps(caught.value))
    assert (str(copy), copy.missing) == (str(caught.value), (PRE,))


async def test_a_missing_post_hook_withholds_the_result() -> None:
    called: list[int] = []
    async with manager_of(plugin(allow)).request(coverage=BOTH) as request:
        with pytest.raises(CoverageError, match="`tool_post_invoke`"):
            await request.call_tool("a", {}, lambda: called.append(1))
    assert called == [1]


@pytest.mark.parametrize(
    "guard",
    [
        plugin(crash, on_error="ignore"),
        plugin(allow, conditions=[{"tools": ["another"]}]),
        plugin(allow, conditions=[{"tenant_ids": ["another"]}]),
    ],
    ids=["failed", "another-tool", "another-tenant"],
)
async def test_a_hook_whose_plugins_all_failed_or_did_not_apply_has_not_run(guard: Any) -> None:
    async with manager_of(guard).request(coverage=CoverageConfig(mandatory=[PRE])) as request:
        with pytest.raises(CoverageError):
            await request.call_tool("a", {}, lambda: 1)


async def test_a_background_plugin_counts_as_having_run() -> None:
    manager = manager_of(plugin(allow, mode="fire_and_forget"))
    async with manager.request(coverage=CoverageConfig(mandatory=[PRE])) as request:
        assert await request.call_tool("a", {}, lambda: 1) == 1
    await manager.executor.drain()


async def test_an_alarm_logs_and_counts_and_lets_the_operation_pass(caplog: pytest.LogCaptureFixture) -> None:
    from prometheus_client import REGISTRY

    def exported() -> float:
        return REGISTRY.get_sample_value("cpex_coverage_gaps_total", {"kind": "tool", "hook": PRE}) or 0

    before, counted = exported(), gaps["tool", PRE]
    async with manager_of().request(coverage=ALARM) as request:
        with caplog.at_level(logging.WARNING):
            assert await request.call_tool("a", {}, lambda: 1) == 1
        assert request.ledger.records[0].missing == [PRE, POST]
    assert ["tool `a` went past mandatory hook" in text for text in caplog.messages] == [True, True]
    assert (gaps["tool", PRE] - counted, exported() - before) == (1, 1)


async def test_off_looks_at_nothing() -> None:
    coverage = CoverageConfig(mode=CoverageMode.OFF, mandatory=[PRE])
    async with manager_of().request(coverage=coverage) as request:
        assert await request.call_tool("a", {}, lambda: 1) == 1
        assert not request.ledger.records


async def test_a_denial_or_a_failure_is_no_gap() -> None:
    async with manager_of(plugin(deny), plugin(allow, "q", hooks=[POST])).request(
        coverage=BOTH, on_denial="return"
    ) as request:
        assert (await request.call_tool("a", {}, lambda: 1)).code == "NO"
        assert request.ledger.records[0].missing == []
    async with manager_of(plugin(allow)).request(coverage=BOTH) as request:
        with pytest.raises(ZeroDivisionError):
            await request.call_tool("a", {}, lambda: 1 // 0)
        assert request.ledger.records[0].missing == []


async def test_an_operation_that_the_host_performed_by_itself_is_a_gap() -> None:
    async with manager_of(plugin(allow, hooks=[PRE, POST])).request(coverage=BOTH) as request:
        with pytest.raises(CoverageError, match=r"`tool_pre_invoke`, `tool_post_invoke`"):
            request.bypassed(TOOL, "a")
        # Nothing is mandatory around these.
        request.bypassed(HTTP, "GET /")
        assert [each.outcome for each in request.ledger.records] == ["bypassed", "bypassed"]


async def test_an_operation_that_was_begun_and_never_ended_is_a_gap_at_the_end_of_the_request() -> None:
    manager = manager_of(plugin(allow, hooks=[PRE, POST]))
    with pytest.raises(CoverageError, match="`tool_post_invoke`"):
        async with manager.request(coverage=BOTH) as request:
            await request.operation(TOOL, ToolPreInvokePayload(name="a")).before()
    assert request.ledger.records[0].outcome == "bypassed"


async def test_what_is_raised_already_is_not_hidden_by_a_gap() -> None:
    manager = manager_of(plugin(allow, hooks=[PRE, POST]))
    request = manager.request(coverage=BOTH)

    async def host() -> None:
        async with request:
            await request.operation(TOOL, ToolPreInvokePayload(name="a")).before()
            raise KeyError("the host's own")

    with pytest.raises(KeyError):
        await host()
    assert request.ledger.records[0].missing == [POST]


async def test_a_long_request_remembers_its_latest_operations_only() -> None:
    async with manager_of(plugin(allow)).request() as request:
        for number in range(MAX_RECORDS + 5):
            await request.call_tool(f"t{number}", {}, lambda: 1)
        assert len(request.ledger.records) == MAX_RECORDS
        assert request.ledger.records[0].target == "t5"


async def test_a_configuration_names_the_mandatory_hooks() -> None:
    text = "plugins: []\ncoverage:\n  mode: alarm\n  mandatory: [tool_pre_invoke]\n"
    config = ConfigLoader.load_text(text, file="c.yaml").config
    manager = TenantPluginManager(config)
    await manager.initialize()
    async with manager.request() as request:
        assert request.ledger.coverage.hooks == {PRE}
    await manager.shutdown()


def test_a_bare_off_in_yaml_is_off() -> None:
    loaded = ConfigLoader.load_text("plugins: []\ncoverage: {mode: off, mandatory: [tool_pre_invoke]}\n", file="c.yaml")
    assert loaded.config.coverage == CoverageConfig(mode=CoverageMode.OFF, mandatory=[PRE])


async def test_a_mandatory_hook_that_stands_around_no_operation_is_an_error_at_the_start() -> None:
    manager = TenantPluginManager(Config(coverage=CoverageConfig(mandatory=["tool_pre_invok", "identity_resolve"])))
    with pytest.raises(
        ValueError, match=r"no operation: `identity_resolve`, `tool_pre_invok`; known: agent_post_invoke"
    ):
        await manager.initialize()
    assert not manager.initialized


async def test_parallel_operations_are_entered_each_by_itself() -> None:
    manager = manager_of(plugin(allow, hooks=[PRE, POST]))
    gate = asyncio.Barrier(3)
    async with manager.request(coverage=BOTH) as request:
        await asyncio.gather(*(request.call_tool(name, {}, lambda: gate.wait()) for name in "abc"))
        assert {(each.target, tuple(each.hooks)) for each in request.ledger.records} == {
            (name, (PRE, POST)) for name in "abc"
        }
        assert len({each.id for each in request.ledger.records}) == 3
