"""Every block of the chapters on patterns does, unchanged, what its chapter says."""

from __future__ import annotations

import importlib.util
import json
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from doc_blocks import ROOT, Blocks, blocks, is_whole

from cpex.framework import (
    ConfigLoader,
    GlobalContext,
    PluginConfig,
    PluginManager,
    PluginMode,
    PromptPrehookPayload,
    TenantPluginManager,
    ToolPostInvokePayload,
    ToolPreInvokePayload,
)
from cpex.framework.errors import PluginLoadError

CHAPTERS = sorted((ROOT / "docs" / "patterns").glob("*.md"))
# The programs at the end of the chapters are run as those of all pages are.
BLOCKS = Blocks(
    {
        name: place
        for chapter in CHAPTERS
        for name, place in blocks(f"patterns/{chapter.name}").places.items()
        if not name.startswith(("main.", "plugins."))
    }
)
CARD = "4111 1111 1111 1111"


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    modules = set(sys.modules)
    path = list(sys.path)
    monkeypatch.chdir(tmp_path)
    PluginManager.reset()
    yield
    PluginManager.reset()
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def config_file(yaml: str, **top: Any) -> str:
    """Write YAML of the page as a configuration, fragments below `plugins:`."""
    text = yaml if is_whole(yaml) else f"plugins:\n{yaml}"
    Path("plugins.yaml").write_text(text + "".join(f"{key}: {json.dumps(value)}\n" for key, value in top.items()))
    return "plugins.yaml"


def module(name: str, code: str) -> ModuleType:
    Path(f"{name}.py").write_text(code)
    spec = importlib.util.spec_from_file_location(name, f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


async def started(yaml: str, **top: Any) -> TenantPluginManager:
    manager = TenantPluginManager(config_file(yaml, **top))
    await manager.initialize()
    return manager


async def test_layers_block_redact_and_log() -> None:
    manager = await started(BLOCKS["layered.yaml"])
    context = GlobalContext(request_id="1", user="ann")
    result, table = await manager.invoke_hook(
        "tool_pre_invoke", ToolPreInvokePayload(name="pay", args={"note": f"card {CARD}"}), context
    )
    assert result.continue_processing
    assert result.modified_payload.args == {"note": "card [CARD-REDACTED]"}
    assert [record.plugin_name for record in result.executions] == [
        "token_budget",
        "content_policy",
        "pii_redactor",
        "audit_logger",
    ]
    await manager.invoke_hook(
        "tool_post_invoke", ToolPostInvokePayload(name="pay", result="ann@example.com"), context, local_contexts=table
    )
    await manager.invoke_hook("prompt_pre_fetch", PromptPrehookPayload(prompt_id="greet", args={"a": "b"}), context)
    await manager.shutdown()
    log = Path("cpex-audit.jsonl").read_text()
    assert {json.loads(line)["hook"] for line in log.splitlines()} >= {"tool_pre_invoke", "tool_post_invoke"}
    assert CARD not in log
    assert "ann@example.com" not in log


async def test_denied_content_reaches_no_tool_and_the_log_redacted() -> None:
    manager = await started(BLOCKS["layered.yaml"])
    payload = ToolPreInvokePayload(name="shell", args={"command": "rm -rf / --no-preserve-root", "card": CARD})
    result, _ = await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id="1"))
    assert not result.continue_processing
    assert result.violation is not None
    assert result.violation.plugin_name == "content_policy"
    await manager.shutdown()
    assert CARD not in Path("cpex-audit.jsonl").read_text()


EXPERIMENTAL = """
from cpex.framework import Plugin, PluginViolation, ToolPreInvokeResult


class ContentPolicyV2(Plugin):
    async def tool_pre_invoke(self, payload, context):
        violation = PluginViolation(reason="too new", description="a rule on trial", code="TRIAL")
        return ToolPreInvokeResult(continue_processing=False, violation=violation)
"""


async def test_a_policy_on_trial_blocks_nothing_and_is_enforced_after_one_line() -> None:
    Path("mine").mkdir()
    Path("mine/experimental.py").write_text(EXPERIMENTAL)
    manager = await started(BLOCKS["audit.yaml"], plugin_dirs=["mine"])
    result, _ = await manager.invoke_hook(
        "tool_pre_invoke", ToolPreInvokePayload(name="t"), GlobalContext(request_id="1")
    )
    await manager.shutdown()
    record = result.executions[0]
    assert result.continue_processing
    assert (record.requested_allow, record.effective_allow, record.error_code) == (False, True, "TRIAL")

    trial_line = next(line for line in BLOCKS["audit.yaml"].splitlines() if "mode: audit" in line)
    manager = await started(
        BLOCKS["audit.yaml"].replace(trial_line, BLOCKS["promote.yaml"].rstrip()), plugin_dirs=["mine"]
    )
    result, _ = await manager.invoke_hook(
        "tool_pre_invoke", ToolPreInvokePayload(name="t"), GlobalContext(request_id="1")
    )
    await manager.shutdown()
    assert not result.continue_processing


async def test_a_guardrail_cleans_inputs_and_outputs() -> None:
    Path("guardrail.py").write_text(BLOCKS["guardrail.py"])
    yaml = """
      - name: guard
        kind: guardrail.PIIGuardrailPlugin
        mode: transform
        hooks: [tool_pre_invoke, tool_post_invoke]
    """
    manager = await started(textwrap.indent(textwrap.dedent(yaml), "  "), plugin_dirs=["."])
    context = GlobalContext(request_id="1")
    arguments = {"note": CARD, "n": 1}
    before, _ = await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="t", args=arguments), context)
    after, _ = await manager.invoke_hook("tool_post_invoke", ToolPostInvokePayload(name="t", result=CARD), context)
    assert before.modified_payload.args == {"note": "[CARD-REDACTED]", "n": 1}
    assert after.modified_payload.result == "[CARD-REDACTED]"
    assert arguments == {"note": CARD, "n": 1}
    await manager.shutdown()


async def test_state_flows_from_the_pre_to_the_post_hook() -> None:
    Path("latency.py").write_text(BLOCKS["latency.py"])
    yaml = "  - {name: latency, kind: latency.LatencyTrackerPlugin, hooks: [tool_pre_invoke, tool_post_invoke]}\n"
    manager = await started(yaml, plugin_dirs=["."])
    context = GlobalContext(request_id="1")
    _, table = await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="t"), context)
    _, table = await manager.invoke_hook(
        "tool_post_invoke", ToolPostInvokePayload(name="t", result=1), context, local_contexts=table
    )
    assert table is not None
    [plugin_context] = table.values()
    assert plugin_context.get_state("tool_latency_ms") >= 0
    await manager.shutdown()


@pytest.mark.parametrize("own", [False, True], ids=["built-in", "own module"])
async def test_an_allow_list_denies_what_is_not_on_it(own: bool) -> None:
    code = BLOCKS["allow_list.py"]
    if own:
        Path("mine").mkdir()
        Path("mine/security.py").write_text(code)
    manager = await started(BLOCKS["allow_list.yaml"], **({"plugin_dirs": ["mine"]} if own else {}))
    context = GlobalContext(request_id="1")
    allowed, _ = await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="calculator"), context)
    denied, _ = await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="shell"), context)
    assert allowed.continue_processing
    assert denied.violation is not None
    assert denied.violation.code == "TOOL_NOT_ALLOWED"
    assert denied.violation.reason == "Tool 'shell' not in allow list"
    assert (type(manager.get_plugin("tool_allowlist")).__module__ == "security") is own
    await manager.shutdown()


async def test_a_wrong_setting_stops_the_start_and_names_its_place() -> None:
    Path("rate_limit.py").write_text(BLOCKS["rate_limit.py"])
    yaml = """  - name: limit
    kind: rate_limit.RateLimitPlugin
    config: {requests_per_minute: not_a_number}
"""
    manager = TenantPluginManager(config_file(yaml, plugin_dirs=["."]))
    with pytest.raises(PluginLoadError, match="Plugin initialization failed: limit") as caught:
        await manager.initialize()
    assert "requests_per_minute" in str(caught.value)
    assert "plugins.yaml:2:" in str(caught.value)
    assert manager.plugin_count == 0


async def test_a_plugin_may_be_started_and_stopped_more_than_once() -> None:
    lifecycle = module("lifecycle", "from cpex.framework import Plugin\n" + BLOCKS["lifecycle.py"])
    clients: list[SimpleNamespace] = []

    async def create_client() -> SimpleNamespace:
        async def close() -> None:
            client.closed += 1

        client = SimpleNamespace(closed=0, close=close)
        clients.append(client)
        return client

    lifecycle.create_client = create_client  # type: ignore[attr-defined]  # the page leaves it to the user
    plugin = lifecycle.MyPlugin(PluginConfig(name="mine", kind="lifecycle.MyPlugin"))
    for _ in range(2):
        await plugin.initialize()
    for _ in range(2):
        await plugin.shutdown()
    assert [client.closed for client in clients] == [1]


async def test_telemetry_runs_in_the_background() -> None:
    manager = await started(BLOCKS["observability.yaml"])
    context = GlobalContext(request_id="1")
    result, table = await manager.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="t"), context)
    assert await result.wait_for_background_tasks() == []
    assert [record.mode for record in result.executions] == [PluginMode.FIRE_AND_FORGET] * 2
    result, _ = await manager.invoke_hook(
        "tool_post_invoke", ToolPostInvokePayload(name="t", result=1), context, local_contexts=table
    )
    assert await result.wait_for_background_tasks() == []
    await manager.shutdown()


def test_every_yaml_block_is_a_valid_configuration() -> None:
    for name, yaml in BLOCKS.items():
        if name.endswith(".yaml") and name != "promote.yaml":
            assert ConfigLoader.load_config(config_file(yaml)).plugins
