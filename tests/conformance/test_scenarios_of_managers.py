"""Scenarios of release 0.1: state, contexts, start and end of managers. Departures are those of the manifest."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conformance.specimens import HERE
from support import call, denial, manager_of, plugin

from cpex.framework import GlobalContext, PluginConfig, PluginManager, PluginResult, TenantPluginManager
from cpex.framework.models import Config

Environment = Callable[[str, str], None]


def entry(name: str, specimen: str = "Allows", **config: Any) -> PluginConfig:
    return PluginConfig(name=name, kind=f"{HERE}.{specimen}", hooks=["tool_pre_invoke"], **config)


def configuration(folder: Path, name: str) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(f"plugins:\n  - {{name: {name}, kind: {HERE}.Allows, hooks: [tool_pre_invoke]}}\n")
    return str(path)


async def writes(payload: Any, context: Any) -> PluginResult[Any]:
    context.global_context.state["k"] = context.global_context.metadata["m"] = 1
    return PluginResult()


@pytest.mark.conformance("S20")
async def test_what_an_audit_plugin_writes_stays_in_its_own_context() -> None:
    request = GlobalContext(request_id="r")
    _, table = await call(manager_of(plugin(writes, mode="audit")), context=request)
    (context,) = table.values()
    assert (request.state, request.metadata) == ({}, {})
    assert context.global_context.state == {"k": 1}


@pytest.mark.conformance("S21")
async def test_what_a_sequential_plugin_writes_reaches_the_host() -> None:
    request = GlobalContext(request_id="r")
    await call(manager_of(plugin(writes)), context=request)
    assert (request.state, request.metadata) == ({"k": 1}, {"m": 1})


@pytest.mark.conformance("S22")
async def test_a_plugin_meets_its_own_state_in_the_requests_next_hook() -> None:
    contexts = []

    async def counts(payload: Any, context: Any) -> PluginResult[Any]:
        contexts.append(context)
        context.set_state("count", context.get_state("count", 0) + 1)
        return PluginResult()

    manager = manager_of(plugin(counts))
    _, table = await call(manager)
    await call(manager, local_contexts=table)
    assert contexts[0] is contexts[1]
    assert contexts[1].state == {"count": 2}


@pytest.mark.conformance("S23", "D21")
@pytest.mark.parametrize("halts", [False, True])
async def test_the_longest_retry_delay_counts_also_when_the_call_is_denied(halts: bool) -> None:
    def delays(milliseconds: int, deny: bool = False) -> Any:
        async def handler(payload: Any, context: Any) -> PluginResult[Any]:
            return (denial if deny else PluginResult)(retry_delay_ms=milliseconds)

        return handler

    result, _ = await call(
        manager_of(plugin(delays(5), "a"), plugin(delays(3), "b"), plugin(delays(9, halts), "c", mode="concurrent"))
    )
    assert (result.continue_processing, result.retry_delay_ms) == (not halts, 9)


@pytest.mark.conformance("S25", "D23")
async def test_the_manager_of_the_process_refuses_a_second_configuration_until_it_is_reset(
    tmp_path: Path, shared_manager: type[PluginManager]
) -> None:
    first, second = configuration(tmp_path, "a"), configuration(tmp_path, "b")
    assert shared_manager(first).config is shared_manager().config
    with pytest.raises(ValueError, match=r"already uses the configuration `.*a\.yaml` in this process and cannot"):
        shared_manager(second)
    shared_manager.reset()
    assert [each.name for each in shared_manager(second).config.plugins] == ["b"]


@pytest.mark.conformance("S26", "D1.environment")
async def test_of_two_plugins_of_one_name_the_first_is_kept_where_failures_are_let_pass(
    environment: Environment,
) -> None:
    environment("PLUGINS_FAIL_ON_PLUGIN_ERROR", "false")
    manager = TenantPluginManager(Config(plugins=[entry("p", config={"setting": 1}), entry("p", "Denies")]))
    await manager.initialize()
    result, _ = await call(manager)
    await manager.shutdown()
    assert (result.continue_processing, result.metadata) == (True, {"p": 1})
    assert list(manager.failed_plugins) == ["p"]
    assert "already registered" in str(manager.failed_plugins["p"].error)


@pytest.mark.conformance("S27", "D1.environment")
async def test_where_failures_are_fatal_a_bad_kind_stops_the_start_whatever_on_error_says(
    environment: Environment,
) -> None:
    environment("PLUGINS_FAIL_ON_PLUGIN_ERROR", "true")
    manager = TenantPluginManager(Config(plugins=[entry("p", "NotThere", on_error="ignore"), entry("good")]))
    with pytest.raises(RuntimeError, match="Plugin initialization failed: p"):
        await manager.initialize()
    assert (manager.initialized, manager.plugin_count) == (False, 0)


@pytest.mark.conformance("S28")
async def test_a_manager_that_starts_again_reads_its_configuration_again() -> None:
    manager = TenantPluginManager(Config(plugins=[entry("p", config={"setting": "old"})]))
    await manager.initialize()
    await manager.shutdown()
    manager.config.plugins[0] = entry("p", config={"setting": "new"})
    await manager.initialize()
    result, _ = await call(manager)
    await manager.shutdown()
    assert result.metadata == {"p": "new"}


class SharedList(list[str]):
    """A list that stays itself in a copied configuration, so that a test sees what plugins write."""

    def __deepcopy__(self, memo: Any) -> SharedList:
        return self


@pytest.mark.conformance("S29")
async def test_plugins_stop_in_reverse_order_and_one_that_fails_keeps_no_other_from_it() -> None:
    journal = SharedList()
    settings: dict[str, Any] = {"journal": journal}
    names = {"a": {}, "b": {"fails_at": "stop"}, "c": {}}
    plugins = [entry(name, "Journal", config=settings | extra) for name, extra in names.items()]
    manager = TenantPluginManager(Config(plugins=plugins))
    await manager.initialize()
    await manager.shutdown()
    assert journal == ["start a", "start b", "start c", "stop c", "stop b", "stop a"]


@pytest.mark.conformance("S30", "D13")
async def test_what_a_plugin_is_handed_is_a_dict_to_every_reader() -> None:
    found = []

    async def reads(payload: Any, context: Any) -> PluginResult[Any]:
        args = payload.args
        found.append((isinstance(args, dict), args == {"x": {"y": 1}}, json.dumps(args), type(args.copy())))
        found.append((type(copy.copy(args)), {**args}, args | {"z": 0}))
        return PluginResult()

    await call(manager_of(plugin(reads)))
    assert found == [
        (True, True, '{"x": {"y": 1}}', dict),
        (dict, {"x": {"y": 1}}, {"x": {"y": 1}, "z": 0}),
    ]
