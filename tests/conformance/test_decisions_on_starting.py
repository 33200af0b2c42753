"""Decisions about configurations and starting: nothing that cannot guard starts as if it could."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from conformance.specimens import HERE
from support import call, of_ours, tool_payload

from cpex.framework import GlobalContext, PluginConfig, PluginManager, TenantPluginManager, get_plugin_manager
from cpex.framework.errors import ConfigError, ConfigFileNotFound, PluginLoadError
from cpex.framework.models import Config

Environment = Callable[[str, str], None]


def written(folder: Path, *entries: str) -> str:
    """A configuration file with these plugins."""
    path = folder / "c.yaml"
    path.write_text("plugins:\n" + "".join(f"  - {{{entry}, hooks: [tool_pre_invoke]}}\n" for entry in entries))
    return str(path)


def fresh_interpreter(code: str) -> Any:
    """What a program prints, as JSON, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    return json.loads(done.stdout)


@pytest.mark.conformance("D1")
async def test_plugins_that_cannot_start_stop_the_start_and_all_are_named_with_place_and_cause(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        f"name: good, kind: {HERE}.Allows",
        f"name: refuses, kind: {HERE}.CannotBeMade",
        f"name: lonely, kind: {HERE}.CannotStart",
    )
    manager = TenantPluginManager(path)
    with pytest.raises(PluginLoadError, match="Plugin initialization failed: refuses") as caught:
        await manager.initialize()
    assert isinstance(caught.value, RuntimeError)
    text = str(caught.value)
    for part in (f"{path}:3", "the settings are not to be borne", "lonely", f"{path}:4", "nobody answers"):
        assert part in text
    assert (manager.initialized, manager.plugin_count, manager.has_hooks_for("tool_pre_invoke")) == (False, 0, False)


@pytest.mark.conformance("D1.lenient")
@pytest.mark.parametrize("rule", ["ignore", "disable"])
async def test_a_plugin_that_may_be_missing_is_left_out_and_listed(
    rule: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = written(
        tmp_path, f"name: good, kind: {HERE}.Allows", f"name: bad, kind: {HERE}.CannotStart, on_error: {rule}"
    )
    manager = TenantPluginManager(path)
    await manager.initialize()
    warnings = [each.getMessage() for each in of_ours(caplog.records) if each.levelno == logging.WARNING]
    assert warnings == [f"Starting without plugin bad (on_error: {rule}), which failed to start: nobody answers"]
    assert isinstance(manager.failed_plugins["bad"].error, ConnectionError)
    assert (manager.initialized, manager.plugin_count) == (True, 1)
    await manager.shutdown()


@pytest.mark.conformance("D2")
def test_a_configuration_that_was_named_must_be_there(
    tmp_path: Path,
    environment: Environment,
    shared_manager: type[PluginManager],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigFileNotFound, match=r"missing\.yaml") as caught:
        TenantPluginManager(str(tmp_path / "missing.yaml"))
    assert isinstance(caught.value, FileNotFoundError)
    # Enabled and left at its default path, the framework is as strict.
    monkeypatch.chdir(tmp_path)
    environment("PLUGINS_ENABLED", "true")
    with pytest.raises(ConfigFileNotFound, match=r"plugins/config\.yaml"):
        get_plugin_manager()
    assert shared_manager("").config is None


@pytest.mark.conformance("D4")
async def test_a_hook_that_nobody_has_stops_the_start_and_the_nearest_are_named() -> None:
    entry = PluginConfig(name="p", kind=f"{HERE}.Allows", hooks=["tool_pre_invok"])
    with pytest.raises(PluginLoadError, match="did you mean tool_pre_invoke"):
        await TenantPluginManager(Config(plugins=[entry])).initialize()


@pytest.mark.conformance("D10")
async def test_a_plugin_cannot_change_its_configuration_for_others() -> None:
    entry = PluginConfig(
        name="p", kind=f"{HERE}.ChangesItsSettings", hooks=["tool_pre_invoke"], config={"limits": {"tools": []}}
    )
    manager = TenantPluginManager(Config(plugins=[entry]))
    await manager.initialize()
    await call(manager)
    assert manager.config.plugins[0].config == {"limits": {"tools": []}}
    assert manager._registry.get_plugin("p").trusted_config.config == {"limits": {"tools": []}}
    await manager.shutdown()


@pytest.mark.conformance("D27")
def test_importing_the_framework_loads_the_standard_library_and_pydantic_alone() -> None:
    code = """if True:
        import json, sys
        import pydantic, pydantic_core, annotated_types, typing_extensions, typing_inspection
        before = {name.partition(".")[0] for name in sys.modules}
        import cpex.framework
        from cpex.framework import Plugin, PluginManager, ToolPreInvokePayload
        # The build's settings are a module of the standard library whose name depends on the machine.
        after = {name.partition(".")[0] for name in sys.modules if not name.startswith("_sysconfigdata")}
        print(json.dumps(sorted(after - before - sys.stdlib_module_names - {"cpex"})))
    """
    assert fresh_interpreter(code) == []


def _a_hook_of(plugin: type[Any]) -> str:
    only_after = hasattr(plugin, "tool_post_invoke") and not hasattr(plugin, "tool_pre_invoke")
    return "tool_post_invoke" if only_after else "tool_pre_invoke"


@pytest.mark.conformance("D27")
async def test_a_plain_install_holds_the_libraries_of_the_built_in_plugins(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Left to their defaults, some write into the working directory.
    monkeypatch.chdir(tmp_path)
    entries = [
        PluginConfig(name=each.name, kind=each.name, hooks=[_a_hook_of(each.load())], mode="audit", on_error="fail")
        for each in entry_points(group="cpex.plugins")
        # These say in their own settings what to write to, ask or allow; the others work as they are.
        if not any(word in each.name.lower() for word in ("auditlog", "allowlist", "webhook", "policydecision"))
    ]
    manager = TenantPluginManager(Config(plugins=entries))
    await manager.initialize()
    await manager.shutdown()


@pytest.mark.conformance("D28")
def test_the_names_of_the_founding_patterns_are_registered() -> None:
    assert {each.name for each in entry_points(group="cpex.plugins")} >= {
        "security.TokenBudgetPlugin",
        "security.ContentPolicyPlugin",
        "privacy.PIIRedactionPlugin",
        "observability.AuditLogPlugin",
    }


@pytest.mark.conformance("D3")
def test_a_mistyped_key_is_an_error_that_names_the_nearest(tmp_path: Path, environment: Environment) -> None:
    path = written(tmp_path, f"name: p, kind: {HERE}.Allows, priorty: 5")
    with pytest.raises(ConfigError) as caught:
        TenantPluginManager(path)
    assert isinstance(caught.value, ValueError)
    (fault,) = caught.value.faults
    assert (fault.code, fault.path) == ("config-unknown-key", "plugins[0].priorty")
    assert "priority" in (fault.help or "")
    environment("PLUGINS_STRICT_CONFIG", "false")
    assert TenantPluginManager(path).config.plugins[0].priority == 100


async def test_a_call_before_the_start_says_once_that_nothing_guards_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    manager = TenantPluginManager(written(tmp_path, f"name: good, kind: {HERE}.Allows"))
    for _ in range(2):
        result, _ = await manager.invoke_hook("tool_pre_invoke", tool_payload(), GlobalContext(request_id="r"))
        assert result.continue_processing
    assert [each.getMessage() for each in of_ours(caplog.records) if each.levelno == logging.WARNING] == [
        "Hook tool_pre_invoke was called while no plugins are running, so nothing guards it: await "
        "manager.initialize() first (1 plugins are configured)"
    ]
