"""The harness runs plugins as a host does, and says so when they misbehave."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from cpex.framework import (
    Plugin,
    PluginConfig,
    PluginContext,
    PluginError,
    PluginResult,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
    clock,
    hook,
)
from cpex.framework.errors import ConfigError, PluginLoadError
from cpex.testing import (
    PluginHarness,
    RecordingPlugin,
    assert_allowed,
    assert_changed,
    assert_denied,
    configured,
    crash,
    denial,
    deny,
    make_payload,
    never,
    plugin_of,
    record_of,
)


class Settings(BaseModel):
    allowed: set[str] = set()


class AllowList(Plugin):
    def __init__(self, config: PluginConfig) -> None:
        super().__init__(config)
        self.settings = Settings.model_validate(config.config or {})
        self.stopped = False

    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> PluginResult[Any]:
        return PluginResult() if payload.name in self.settings.allowed else denial("TOOL_NOT_ALLOWED")

    async def shutdown(self) -> None:
        self.stopped = True


class Latency(Plugin):
    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> PluginResult[Any]:
        context.set_state("start", clock.monotonic())
        return PluginResult()

    async def tool_post_invoke(self, payload: ToolPostInvokePayload, context: PluginContext) -> PluginResult[Any]:
        context.set_state("latency_s", clock.monotonic() - context.get_state("start"))
        return PluginResult()


class Leaking(Plugin):
    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> PluginResult[Any]:
        self.task = asyncio.create_task(asyncio.Event().wait(), name="forgotten")
        return PluginResult()


class Shout(Plugin):
    async def tool_pre_invoke(self, payload: ToolPreInvokePayload, context: PluginContext) -> PluginResult[Any]:
        args = {key: value.upper() for key, value in (payload.args or {}).items()}
        return PluginResult(modified_payload=payload.model_copy(update={"args": args}))

    @hook("mail_pre_send")
    async def check(self, payload: Any, context: PluginContext) -> PluginResult[Any]:
        return PluginResult()


async def test_a_plugin_is_tested_in_five_lines() -> None:
    async with PluginHarness(AllowList, config={"allowed": ["search"]}) as harness:
        assert_allowed(await harness.call("tool_pre_invoke", name="search"))
        assert_denied(await harness.call("tool_pre_invoke", name="shell"), "TOOL_NOT_ALLOWED", by="AllowList")


async def test_settings_that_the_plugin_refuses_stop_the_start() -> None:
    with pytest.raises(PluginLoadError, match=r"^Plugin initialization failed: AllowList - Settings: allowed: Input"):
        async with PluginHarness(AllowList, config={"allowed": 3}):
            raise AssertionError("the harness was entered")


async def test_hooks_are_those_that_the_class_handles_by_name_or_by_mark() -> None:
    async with PluginHarness(Shout) as harness:
        assert harness.plugin.hooks == ["tool_pre_invoke", "mail_pre_send"]
    async with PluginHarness(Shout, hooks=["tool_pre_invoke"]) as harness:
        assert harness.plugin.hooks == ["tool_pre_invoke"]


async def test_a_class_that_handles_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^Plugin handles no known hook: name a method like a hook"):
        PluginHarness(Plugin)


async def test_the_mode_holds_as_in_production() -> None:
    async with PluginHarness(AllowList, mode="audit") as harness:
        result = assert_allowed(await harness.call("tool_pre_invoke", name="shell"))
        assert record_of(result, "AllowList").requested_allow is False


async def test_state_flows_from_hook_to_hook_under_a_clock_that_the_test_moves() -> None:
    async with PluginHarness(Latency) as harness:
        await harness.call("tool_pre_invoke")
        harness.clock.advance(1.5)
        await harness.call("tool_post_invoke")
        assert harness.state()["latency_s"] == 1.5


async def test_a_new_request_starts_without_state() -> None:
    async with PluginHarness(Latency) as harness:
        await harness.call("tool_pre_invoke")
        first = harness.request.request_id
        request = harness.new_request(session="s", user="ann")
        assert (request.metadata, request.user) == ({"session_id": "s"}, "ann")
        assert (request.request_id != first, harness.state()) == (True, {})


async def test_several_plugins_run_in_the_order_of_their_priority() -> None:
    recorder = RecordingPlugin()
    guard = configured(AllowList, {"allowed": ["search"]}, priority=20)
    async with PluginHarness(guard, configured(Shout, priority=10), recorder) as harness:
        payload = assert_changed(await harness.call("tool_pre_invoke", name="search", args={"q": "x"}), args={"q": "X"})
        await harness.call("tool_pre_invoke", name="shell", args={"q": "x"})
        await harness.settle()
    assert payload.name == "search"
    assert [(hook, seen.args) for hook, seen, _ in recorder.calls] == [("tool_pre_invoke", {"q": "X"})]
    assert [outcome.allowed for outcome in recorder.outcomes] == [True, False]


async def test_fields_are_refused_where_it_is_open_whose_they_are() -> None:
    with pytest.raises(TypeError, match=r"^`mode`: for one plugin class only; wrap each of several as configured\("):
        PluginHarness(AllowList, Shout, mode="audit")


async def test_a_crash_reaches_the_test_as_it_reaches_a_host() -> None:
    async with PluginHarness(plugin_of(crash, name="broken")) as harness:
        with pytest.raises(PluginError, match="this plugin always fails"):
            await harness.call("tool_pre_invoke")


async def test_a_plugin_that_hangs_is_cut_off() -> None:
    async with PluginHarness(plugin_of(never, on_error="ignore", timeout_s=0.01)) as harness:
        result = await harness.call("tool_pre_invoke")
        assert record_of(result).status == "timeout"


async def test_a_task_left_behind_fails_the_test_and_is_named() -> None:
    harness = PluginHarness(Leaking)
    await harness.__aenter__()
    await harness.call("tool_pre_invoke")
    task = harness.plugin.task
    with pytest.raises(AssertionError, match=r"^tasks are still running after shutdown: forgotten \(Event.wait\)$"):
        await harness.__aexit__(None, None, None)
    task.cancel()


async def test_a_failing_test_reports_its_own_failure_and_still_shuts_down() -> None:
    harness = PluginHarness(Leaking)
    plugins: list[Any] = []

    async def test() -> None:
        async with harness:
            await harness.call("tool_pre_invoke")
            plugins.append(harness.plugin)
            raise LookupError("the test's own")

    with pytest.raises(LookupError, match="the test's own"):
        await test()
    assert not harness.manager.initialized
    plugins[0].task.cancel()


async def test_a_cancelled_test_shuts_down() -> None:
    harness = PluginHarness(AllowList)
    entered = asyncio.Event()

    async def test() -> None:
        async with harness:
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(test())
    await entered.wait()
    plugin = harness.plugin
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert plugin.stopped


async def test_calls_before_the_start_are_refused_rather_than_unguarded() -> None:
    harness = PluginHarness(AllowList)
    with pytest.raises(RuntimeError, match=r"^the plugins are not started; use `async with` on the harness$"):
        await harness.call("tool_pre_invoke")
    with pytest.raises(LookupError, match="no plugin is running"):
        _ = harness.plugin


async def test_a_payload_and_fields_together_are_refused() -> None:
    async with PluginHarness(AllowList) as harness:
        with pytest.raises(TypeError, match="a payload or its fields, not both"):
            await harness.call("tool_pre_invoke", make_payload("tool_pre_invoke"), name="x")


async def test_spans_are_kept() -> None:
    from cpex.framework.observability import current_trace_id

    async with PluginHarness(AllowList, config={"allowed": ["tool"]}) as harness:
        token = current_trace_id.set("trace")
        await harness.call("tool_pre_invoke")
        current_trace_id.reset(token)
    assert harness.spans.started
    assert harness.spans.open() == []


CONFIG = """\
plugins:
  - name: tools
    kind: security.ToolAllowListPlugin
    hooks: [tool_pre_invoke]
    config: {allowed_tools: ["{{ env.T }}"]}
  - {name: remote, kind: somewhere.else.Remote, mode: sequential, priority: 200, hooks: [tool_pre_invoke]}
"""


async def test_a_configuration_file_runs_with_fakes_in_place_of_some_plugins(tmp_path: Path) -> None:
    file = tmp_path / "plugins.yaml"
    file.write_text(CONFIG)
    async with PluginHarness.from_config(file, replace={"remote": deny}, env={"T": "search"}) as harness:
        assert_denied(await harness.call("tool_pre_invoke", name="search"), "NO", by="remote")
        assert_denied(await harness.call("tool_pre_invoke", name="shell"), "TOOL_NOT_ALLOWED", by="tools")
        assert list(harness.plugins) == ["tools", "remote"]


async def test_replacing_what_is_not_configured_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "plugins.yaml"
    file.write_text(CONFIG)
    with pytest.raises(ValueError, match=r"^`replace` names `remte`, which is not configured; plugins: tools, remote$"):
        PluginHarness.from_config(file, replace={"remte": deny}, env={"T": "search"})


async def test_a_faulty_file_is_refused_with_its_faults(tmp_path: Path) -> None:
    file = tmp_path / "plugins.yaml"
    file.write_text(CONFIG.replace("priority", "prioriti"))
    with pytest.raises(ConfigError, match="did you mean `priority`"):
        PluginHarness.from_config(file, env={"T": "x"})


async def test_background_work_that_does_not_end_fails_the_test() -> None:
    part = plugin_of(never, mode="fire_and_forget", timeout_s=60)
    async with PluginHarness(part, limits={"drain_timeout_s": 0.01}) as harness:
        await harness.call("tool_pre_invoke")
        with pytest.raises(AssertionError, match=r"^1 background tasks did not end within the drain timeout$"):
            await harness.settle()
