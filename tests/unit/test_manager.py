"""Managers: starting all or nothing, sharing or not, addressing one plugin, shutting down."""

from __future__ import annotations

import asyncio
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import unit.specimens_of_manager as specimens
from support import FunctionPlugin, SpanLog, allow, call, deny, manager_of, never, other_tasks, plugin, tool_payload

from cpex.framework.errors import (
    ConfigFileNotFound,
    PluginError,
    PluginLoadError,
    PluginTimeoutError,
    PluginViolationError,
)
from cpex.framework.hooks.policies import HookPayloadPolicy
from cpex.framework.hooks.tools import ToolHookType, ToolPreInvokePayload
from cpex.framework.manager import PluginManager, TenantPluginManager, get_plugin_manager
from cpex.framework.models.config import Config, PluginConfig
from cpex.framework.models.context import GlobalContext, PluginContext
from cpex.framework.models.mode import PluginMode
from cpex.framework.models.result import PluginResult
from cpex.framework.settings import settings

TOOL = "tool_pre_invoke"


@pytest.fixture
def log() -> Iterator[list[tuple[str, str]]]:
    """What the plugins of the module of specimens log."""
    specimens.LOG.clear()
    yield specimens.LOG
    specimens.LOG.clear()


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing of the process-wide manager or of the environment, before and after."""
    monkeypatch.delenv("PLUGINS_FAIL_ON_PLUGIN_ERROR", raising=False)
    settings.cache_clear()
    PluginManager.reset()
    yield
    PluginManager.reset()
    settings.cache_clear()


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Sets a variable and has the settings read again."""

    def put(name: str, value: str) -> None:
        monkeypatch.setenv(name, value)
        settings.cache_clear()

    return put


def entry(kind: str, name: str, **config: Any) -> PluginConfig:
    """One plugin of the module of specimens."""
    return PluginConfig(name=name, kind=f"unit.specimens_of_manager.{kind}", **{"hooks": [TOOL], **config})


def tenant(*entries: PluginConfig) -> TenantPluginManager:
    return TenantPluginManager(Config(plugins=list(entries)))


# Starting.


async def test_plugins_are_made_in_order_and_started_once(log: list[Any]) -> None:
    manager = tenant(entry("Good", "a"), entry("Good", "b"), entry("CannotBeMade", "off", mode="disabled"))
    assert (manager.initialized, manager.plugin_count, manager.has_hooks_for(TOOL)) == (False, 0, False)
    assert (await call(manager)) == (PluginResult(), None)
    await asyncio.gather(manager.initialize(), manager.initialize())
    assert log == [("start", "a"), ("start", "b")]
    assert (manager.initialized, manager.plugin_count, manager.has_hooks_for(ToolHookType.TOOL_PRE_INVOKE)) == (
        True,
        2,
        True,
    )
    assert manager.get_plugin("a") is not None
    assert manager.get_plugin("off") is None
    result, _ = await call(manager)
    assert result.metadata == {"a": None, "b": None}
    await manager.shutdown()


async def test_when_plugins_fail_to_start_all_are_named_and_nothing_is_left(log: list[Any]) -> None:
    manager = tenant(
        entry("Good", "first"),
        entry("CannotBeMade", "made"),
        entry("CannotStart", "started"),
        entry("Missing", "missing"),
        entry("Good", "unbound", hooks=["prompt_pre_fetch"]),
        entry("Good", "first"),
        entry("Good", "last"),
    )
    with pytest.raises(PluginLoadError) as caught:
        await manager.initialize()
    text = str(caught.value)
    assert "Plugin initialization failed: made" in text
    for part in ("bad settings", "started", "nobody there", "missing", "unbound", "already registered"):
        assert part in text
    assert isinstance(caught.value, RuntimeError)
    assert (manager.initialized, manager.plugin_count, manager.has_hooks_for(TOOL)) == (False, 0, False)
    started = [name for what, name in log if what == "start"]
    stopped = [name for what, name in log if what == "stop"]
    assert sorted(set(stopped)) == sorted({*started, "started"})


@pytest.mark.parametrize("rule", ["ignore", "disable"])
@pytest.mark.parametrize("kind", ["CannotBeMade", "CannotStart", "Missing"])
async def test_a_plugin_that_may_be_missing_is_left_out_and_listed(
    rule: str, kind: str, log: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    manager = tenant(entry(kind, "lost", on_error=rule), entry("Good", "kept"))
    await manager.initialize()
    assert (manager.initialized, manager.plugin_count, manager.get_plugin("lost")) == (True, 1, None)
    failed = manager.failed_plugins["lost"]
    assert (failed.name, failed.kind) == ("lost", f"unit.specimens_of_manager.{kind}")
    assert caplog.text.count("Starting without plugin lost") == 1
    await manager.shutdown()


@pytest.mark.parametrize(("setting", "rule", "starts"), [("true", "ignore", False), ("false", "fail", True)])
async def test_the_environment_overrides_the_plugins_rules_both_ways(
    setting: str, rule: str, starts: bool, log: list[Any], environment: Callable[[str, str], None]
) -> None:
    environment("PLUGINS_FAIL_ON_PLUGIN_ERROR", setting)
    manager = tenant(entry("CannotStart", "lost", on_error=rule))
    if starts:
        await manager.initialize()
        assert list(manager.failed_plugins) == ["lost"]
    else:
        with pytest.raises(PluginLoadError):
            await manager.initialize()


async def test_a_plugin_that_takes_too_long_to_start_fails(log: list[Any]) -> None:
    manager = tenant(entry("Hangs", "slow", initialize_timeout_s=0.02))
    with pytest.raises(PluginLoadError) as caught:
        await manager.initialize()
    assert "Plugin slow did not finish initialize() within 0.02s" in str(caught.value)
    assert log == [("stop", "slow")]
    assert other_tasks() == set()


async def test_a_start_that_is_cancelled_leaves_nothing_behind(log: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    manager = tenant(entry("Good", "a"), entry("Hangs", "b"))
    monkeypatch.setattr(specimens, "STARTED", asyncio.Event())
    starting = asyncio.create_task(manager.initialize())
    await specimens.STARTED.wait()
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert (manager.initialized, manager.plugin_count) == (False, 0)
    assert ("stop", "a") in log


async def test_no_call_is_guarded_by_a_part_of_the_plugins_while_they_start(
    log: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    manager = tenant(entry("Good", "a"), entry("StartsLate", "b"))
    monkeypatch.setattr(specimens, "STARTED", asyncio.Event())
    monkeypatch.setattr(specimens, "RELEASED", asyncio.Event())
    starting = asyncio.create_task(manager.initialize())
    await specimens.STARTED.wait()
    assert (manager.initialized, manager.plugin_count, manager.has_hooks_for(TOOL)) == (False, 0, False)
    assert await call(manager) == (PluginResult(), None)
    assert "so nothing guards it: await manager.initialize() first (2 plugins are configured)" in caplog.text
    specimens.RELEASED.set()
    await starting
    assert (await call(manager))[0].metadata == {"a": None, "b": None}
    await manager.shutdown()


async def test_threads_that_start_one_manager_at_once_start_it_once(log: list[Any]) -> None:
    manager = tenant(entry("Meets", "a"), entry("Good", "b"))

    def start() -> tuple[bool, int]:
        asyncio.run(manager.initialize())
        return manager.initialized, manager.plugin_count

    states = await asyncio.gather(*(asyncio.to_thread(start) for _ in range(4)))
    assert states == [(True, 2)] * 4
    assert log == [("start", "a"), ("start", "b")]
    assert (await call(manager))[0].metadata == {"a": None, "b": None}
    await manager.shutdown()


async def test_a_reset_during_a_start_leaves_the_new_state_alone(
    log: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    late = "{name: a, kind: unit.specimens_of_manager.StartsLate, hooks: [tool_pre_invoke]}"
    manager = PluginManager(written(tmp_path, "a.yaml", f"plugins: [{late}]"))
    monkeypatch.setattr(specimens, "STARTED", asyncio.Event())
    monkeypatch.setattr(specimens, "RELEASED", asyncio.Event())
    starting = asyncio.create_task(manager.initialize())
    await specimens.STARTED.wait()
    PluginManager.reset()
    other = PluginManager(written(tmp_path, "b.yaml", f"plugins: [{late}]"))
    specimens.RELEASED.set()
    with pytest.raises(RuntimeError, match="was reset while its plugins were starting"):
        await starting
    assert (other.initialized, other.plugin_count) == (False, 0)
    assert log == [("start", "a"), ("stop", "a")]


async def test_a_failed_start_may_be_tried_again_with_a_mended_configuration(log: list[Any]) -> None:
    manager = tenant(entry("CannotStart", "a"))
    with pytest.raises(PluginLoadError):
        await manager.initialize()
    assert manager.config is not None
    manager.config.plugins = [entry("Good", "a")]
    await manager.initialize()
    assert manager.plugin_count == 1
    await manager.shutdown()


async def test_what_a_plugin_does_to_its_configuration_does_not_change_the_host_s(log: list[Any]) -> None:
    manager = tenant(entry("Edits", "a", config={"value": "kept", "list": []}))
    await manager.initialize()
    assert manager.config is not None
    assert manager.config.plugins is not None
    assert manager.config.plugins[0].config == {"value": "kept", "list": []}
    assert (await call(manager))[0].metadata == {"a": "edited"}
    await manager.shutdown()


# Shutting down.


async def test_shutdown_stops_plugins_backwards_past_failures_and_may_be_repeated(
    log: list[Any], caplog: pytest.LogCaptureFixture
) -> None:
    manager = tenant(entry("Good", "a"), entry("FailsToStop", "b"), entry("Good", "c"))
    await manager.shutdown()
    await manager.initialize()
    log.clear()
    await manager.shutdown()
    await manager.shutdown()
    assert log == [("stop", "c"), ("stop", "b"), ("stop", "a")]
    assert "Plugin b failed to shut down" in caplog.text
    assert (manager.initialized, manager.plugin_count) == (False, 0)
    assert await call(manager) == (PluginResult(), None)


async def test_a_plugin_that_stops_its_manager_when_it_is_stopped_does_not_wait_for_itself(log: list[Any]) -> None:
    manager = tenant(entry("Good", "a"), entry("AsksToStop", "b"))
    await manager.initialize()
    stubborn: Any = manager.get_plugin("b")
    stubborn.manager = manager
    log.clear()
    await asyncio.wait_for(manager.shutdown(), 60)
    assert log == [("stop", "b"), ("stop", "a")]
    assert (manager.initialized, manager.plugin_count) == (False, 0)


async def test_after_a_shutdown_replaced_entries_count_at_the_next_start(log: list[Any]) -> None:
    manager = tenant(entry("Good", "a", config={"value": 1}))
    await manager.initialize()
    await manager.shutdown()
    assert manager.config is not None
    assert manager.config.plugins is not None
    manager.config.plugins[0] = entry("Good", "a", config={"value": 2})
    await manager.initialize()
    assert (await call(manager))[0].metadata == {"a": 2}
    await manager.shutdown()


async def test_background_work_ends_before_the_plugins_are_stopped() -> None:
    order = []

    class Ends(FunctionPlugin):
        async def shutdown(self) -> None:
            order.append("stopped")

    async def slow(payload: Any, context: Any) -> PluginResult[Any]:
        await asyncio.sleep(0)
        order.append("done")
        return PluginResult()

    manager = manager_of(Ends(plugin(slow, mode="fire_and_forget").config, slow))
    await call(manager)
    await manager.shutdown()
    assert order == ["done", "stopped"]


# Configuration files.


def written(folder: Path, name: str, text: str = "plugins: []") -> str:
    (folder / name).write_text(textwrap.dedent(text))
    return str(folder / name)


@pytest.mark.parametrize("make", [PluginManager, TenantPluginManager])
def test_a_missing_file_is_an_error(make: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigFileNotFound) as caught:
        make(str(tmp_path / "none.yaml"))
    assert isinstance(caught.value, FileNotFoundError)
    assert "none.yaml" in str(caught.value)


def test_the_enabled_default_path_must_exist(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: Callable[[str, str], None]
) -> None:
    monkeypatch.chdir(tmp_path)
    environment("PLUGINS_ENABLED", "true")
    with pytest.raises(ConfigFileNotFound):
        get_plugin_manager()
    environment("PLUGINS_ENABLED", "false")
    assert get_plugin_manager() is None


@pytest.mark.parametrize("make", [PluginManager, TenantPluginManager])
def test_the_empty_path_is_no_configuration(make: Any) -> None:
    manager = make("")
    assert (manager.config, manager.plugin_count, manager.has_hooks_for(TOOL)) == (None, 0, False)


async def test_limits_of_the_configuration_are_in_force(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        "c.yaml",
        """\
        plugins: []
        plugin_timeout_s: 3
        hook_timeout_s: 4
        max_payload_bytes: 5
        background_limit: 6
        drain_timeout_s: 7
        """,
    )
    executor = TenantPluginManager(path).executor
    assert (executor.timeout, executor.hook_timeout_s, executor.max_payload_bytes) == (3, 4, 5)
    assert (executor.background.limit, executor.background.drain_timeout_s) == (6, 7)
    assert TenantPluginManager(path, timeout=9).executor.timeout == 9


# One state for the process.


def test_all_instances_are_the_same_manager(tmp_path: Path) -> None:
    path = written(tmp_path, "a.yaml", "plugins: []\nplugin_timeout_s: 3")
    first = PluginManager(path, timeout=5)
    second = PluginManager()
    assert second.config is first.config
    assert second.executor is first.executor
    assert PluginManager(path).executor.timeout == 5
    assert PluginManager(timeout=6).executor is first.executor
    assert first.executor.timeout == 6


def test_a_conflicting_argument_is_refused(tmp_path: Path) -> None:
    path, other = written(tmp_path, "a.yaml"), written(tmp_path, "b.yaml")
    policies = {TOOL: HookPayloadPolicy(frozenset({"args"}))}
    first = PluginManager(path, observability=SpanLog(), hook_policies=policies)
    with pytest.raises(ValueError) as caught:
        PluginManager(other)
    assert path in str(caught.value)
    assert other in str(caught.value)
    with pytest.raises(ValueError):
        PluginManager(hook_policies={TOOL: HookPayloadPolicy(frozenset())})
    with pytest.raises(ValueError):
        PluginManager(observability=SpanLog())
    assert (first.config, first.executor.hook_policies) == (PluginManager().config, policies)


async def test_what_is_new_is_taken_over() -> None:
    first, spans = PluginManager(), SpanLog()
    PluginManager(observability=spans)
    assert first.observability is spans
    assert await first.executor.execute([], tool_payload(), GlobalContext(request_id="r"), TOOL) == (
        PluginResult(),
        None,
    )
    policies = {TOOL: HookPayloadPolicy(frozenset({"args"}))}
    PluginManager(hook_policies=policies, default_hook_policy="deny")
    assert (first.executor.hook_policies, first.executor.default_hook_policy) == (policies, "deny")


def test_a_reset_empties_every_instance_and_they_go_on_together(tmp_path: Path) -> None:
    first = PluginManager(written(tmp_path, "a.yaml"))
    PluginManager.reset()
    assert (first.config, first.plugin_count, first.initialized) == (None, 0, False)
    second = PluginManager(written(tmp_path, "b.yaml", "plugins: []\nplugin_dirs: [b]"))
    assert second.config is not None
    assert first.config is second.config
    assert first.executor is second.executor


def test_a_reset_forgets_the_manager_of_the_environment(environment: Callable[[str, str], None]) -> None:
    environment("PLUGINS_ENABLED", "true")
    environment("PLUGINS_CONFIG_FILE", "")
    first = get_plugin_manager()
    assert get_plugin_manager() is first
    PluginManager.reset()
    assert get_plugin_manager() is not first


def test_tenants_share_nothing(tmp_path: Path) -> None:
    path = written(tmp_path, "a.yaml")
    shared = PluginManager(path)
    first, second = TenantPluginManager(path), TenantPluginManager(Config())
    assert isinstance(first, PluginManager)
    assert first.executor is not second.executor
    assert first.executor is not shared.executor
    type(first).reset()
    assert (shared.config is not None, first.config is not None) == (True, True)


# One plugin by name.


async def test_a_single_plugin_is_called_with_payload_and_context() -> None:
    seen = []

    async def handler(payload: Any, context: PluginContext) -> PluginResult[Any]:
        seen.append((payload, context))
        return PluginResult(metadata={"m": 1})

    manager, host = manager_of(plugin(handler)), GlobalContext(request_id="r")
    payload, context = tool_payload(), PluginContext(global_context=host)
    result = await manager.invoke_hook_for_plugin("p", TOOL, payload, context)
    assert result.metadata == {"m": 1}
    assert seen[0][0] is payload
    assert seen[0][1] is context
    await manager.invoke_hook_for_plugin("p", TOOL, payload, host)
    assert seen[1][1].global_context is host
    for data in ({"name": "t", "args": {"a": 1}}, '{"name": "t", "args": {"a": 1}}'):
        await manager.invoke_hook_for_plugin("p", TOOL, data, host, payload_as_json=True)
        assert seen.pop()[0] == ToolPreInvokePayload(name="t", args={"a": 1})


async def test_a_single_call_of_what_is_not_there_is_an_error() -> None:
    manager, host = manager_of(plugin(allow)), GlobalContext(request_id="r")
    for name, hook in (("x", TOOL), ("p", "x")):
        with pytest.raises(PluginError) as caught:
            await manager.invoke_hook_for_plugin(name, hook, tool_payload(), host)
        assert str(caught.value) == f"Unable to find hook {hook} of plugin {name}; known plugins: p"


async def test_a_payload_of_another_form_than_announced_is_an_error() -> None:
    manager, host = manager_of(plugin(allow)), GlobalContext(request_id="r")
    with pytest.raises(ValueError, match="must be str or dict"):
        await manager.invoke_hook_for_plugin("p", TOOL, tool_payload(), host, payload_as_json=True)
    with pytest.raises(ValueError, match="must be a PluginPayload"):
        await manager.invoke_hook_for_plugin("p", TOOL, {"name": "t"}, host)


async def test_a_single_denial_failure_and_timeout_are_told() -> None:
    async def breaks(payload: Any, context: Any) -> PluginResult[Any]:
        raise ValueError("broken")

    manager = manager_of(
        plugin(deny, "denies"),
        plugin(breaks, "breaks"),
        plugin(never, "slow", timeout_s=0.02, on_error="disable"),
    )
    host, payload = GlobalContext(request_id="r"), tool_payload()
    assert not (await manager.invoke_hook_for_plugin("denies", TOOL, payload, host)).continue_processing
    with pytest.raises(PluginViolationError):
        await manager.invoke_hook_for_plugin("denies", TOOL, payload, host, violations_as_exceptions=True)
    with pytest.raises(PluginError):
        await manager.invoke_hook_for_plugin("breaks", TOOL, payload, host)
    with pytest.raises(PluginTimeoutError):
        await manager.invoke_hook_for_plugin("slow", TOOL, payload, host)
    assert manager.disabled_plugins == {"slow"}


# The table of contexts.


async def test_contexts_are_carried_through_hooks_that_concern_no_plugin() -> None:
    async def remembers(payload: Any, context: PluginContext) -> PluginResult[Any]:
        context.set_state("n", context.get_state("n", 0) + 1)
        return PluginResult(metadata={"n": context.get_state("n")})

    manager = manager_of(plugin(remembers), plugin(allow, "other", hooks=["prompt_pre_fetch"]))
    _, table = await call(manager)
    _, table = await call(manager, hook="resource_pre_fetch", local_contexts=table)
    _, table = await call(manager, hook="prompt_pre_fetch", local_contexts=table)
    result, table = await call(manager, local_contexts=table)
    assert result.metadata == {"n": 2}
    assert table is not None
    assert len(table) == 2


async def test_there_is_no_table_only_when_nobody_is_registered_and_none_came_in() -> None:
    manager = manager_of(plugin(allow, mode="disabled"))
    assert (await call(manager, hook="prompt_pre_fetch"))[1] is None
    assert (await call(manager))[1] == {}


async def test_the_incoming_table_is_not_changed() -> None:
    manager = manager_of(plugin(allow, "a"), plugin(allow, "b", hooks=["prompt_pre_fetch"]))
    _, table = await call(manager)
    assert table is not None
    before = dict(table)
    await call(manager, hook="prompt_pre_fetch", local_contexts=table)
    assert table == before


async def test_a_table_of_another_request_is_of_no_use_to_this_one() -> None:
    seen = []

    async def looks(payload: Any, context: PluginContext) -> PluginResult[Any]:
        seen.append(context.get_state("n"))
        context.set_state("n", 1)
        return PluginResult()

    manager = manager_of(plugin(looks))
    _, table = await call(manager, context=GlobalContext(request_id="one"))
    await call(manager, context=GlobalContext(request_id="two"), local_contexts=table)
    assert seen == [None, None]


# Overlays that hosts make with `model_copy`, which validates nothing.


@pytest.mark.parametrize(
    ("overlay", "allows"),
    [
        ({"mode": "sequential"}, False),
        ({"mode": "concurrent"}, False),
        ({"mode": "audit"}, True),
        ({"mode": "transform"}, True),
        ({"mode": "fire_and_forget"}, True),
    ],
)
async def test_a_mode_that_an_overlay_gives_as_text_is_that_mode(overlay: dict[str, str], allows: bool) -> None:
    manager = tenant(entry("Denies", "a").model_copy(update=overlay))
    await manager.initialize()
    result, _ = await call(manager)
    assert result.continue_processing is allows
    assert [(type(record.mode), record.mode) for record in result.executions] == [(PluginMode, overlay["mode"])]
    await manager.shutdown()


async def test_on_error_that_an_overlay_gives_as_text_is_heeded(log: list[Any]) -> None:
    breaks = entry("Breaks", "a")
    manager = tenant(breaks.model_copy(update={"on_error": "fail"}))
    await manager.initialize()
    with pytest.raises(PluginError):
        await call(manager)
    await manager.shutdown()
    manager = tenant(breaks.model_copy(update={"on_error": "disable"}))
    await manager.initialize()
    await call(manager)
    assert manager.disabled_plugins == {"a"}
    await manager.shutdown()
    manager = tenant(entry("CannotStart", "a").model_copy(update={"on_error": "ignore"}))
    await manager.initialize()
    assert list(manager.failed_plugins) == ["a"]
    with pytest.raises(PluginLoadError):
        await tenant(entry("CannotStart", "a").model_copy(update={"on_error": "fail"})).initialize()


async def test_a_plugin_that_an_overlay_disables_by_text_is_not_loaded(log: list[Any]) -> None:
    manager = tenant(entry("CannotBeMade", "a").model_copy(update={"mode": "disabled"}))
    await manager.initialize()
    assert (manager.plugin_count, log) == (0, [])


@pytest.mark.parametrize("overlay", [{"mode": "sequental"}, {"on_error": "never"}])
async def test_an_overlay_that_makes_no_sense_stops_the_start(overlay: dict[str, str], log: list[Any]) -> None:
    manager = tenant(entry("Good", "a").model_copy(update=overlay))
    with pytest.raises(PluginLoadError, match=f"failed: a - '{next(iter(overlay.values()))}' is not a valid"):
        await manager.initialize()
    assert log == [("start", "a"), ("stop", "a")]
