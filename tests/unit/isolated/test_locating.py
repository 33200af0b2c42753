"""Where things of an isolated plugin lie, and what is refused for leading elsewhere."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest
from isolated_environments import ready

from cpex.framework import GlobalContext, PluginConfig, PluginContext, PluginError, ToolPreInvokePayload
from cpex.framework.errors import PluginTimeoutError
from cpex.framework.isolated.client import IsolatedVenvPlugin
from cpex.framework.isolated.locating import requirements_of, worker_script
from cpex.framework.loader.plugin import PluginLoader


def config(**settings: Any) -> PluginConfig:
    """An isolated plugin with these settings."""
    return PluginConfig(name="p", kind="isolated_venv", config={"class_name": "pkg.mod.Cls", **settings})


def refused(folders: list[str], **settings: Any) -> str:
    with pytest.raises(PluginError) as raised:
        IsolatedVenvPlugin(config(**settings), folders)
    text = raised.value.error.message
    assert text.startswith("plugin `p` of kind `isolated_venv`: ")
    return text.partition(": ")[2]


def test_the_first_part_of_the_class_name_is_the_folder(tmp_path: Path) -> None:
    plugin = IsolatedVenvPlugin(config(), [str(tmp_path / "one"), str(tmp_path / "two")])
    assert plugin.plugin_path == tmp_path / "one" / "pkg"
    assert plugin.cache_dir == tmp_path / "one" / "pkg" / ".cpex" / "venv_cache"
    assert plugin.plugin_path.is_dir()
    assert (plugin.comm, plugin.implementation) == (None, "Python")


async def test_with_a_relative_folder_pip_is_found_from_where_it_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs beside the requirements file, where a path relative to the host's working directory leads nowhere."""
    package = tmp_path / "plugins" / "pkg"
    package.mkdir(parents=True)
    (package / "requirements.txt").write_text("# nothing\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    plugin = IsolatedVenvPlugin(config(requirements_file="requirements.txt"), ["plugins"])
    assert (plugin.plugin_path, plugin.plugin_dirs) == (package, ["plugins"])
    ready(plugin.config, tmp_path / "plugins")
    async with asyncio.timeout(60):
        await plugin._environment().install()


@pytest.mark.conformance("V2")
def test_a_later_folder_that_holds_the_package_is_found(tmp_path: Path) -> None:
    (tmp_path / "two" / "pkg").mkdir(parents=True)
    plugin = IsolatedVenvPlugin(config(), [str(tmp_path / "one"), str(tmp_path / "two")])
    assert plugin.plugin_path == tmp_path / "two" / "pkg"


@pytest.mark.conformance("V2")
def test_without_a_folder_or_a_class_the_message_says_what_is_missing(tmp_path: Path) -> None:
    assert refused([]) == "`plugin_dirs` of the configuration names no folder that exists; add one"
    for name in (None, "", 7):
        text = refused([str(tmp_path)], class_name=name)
        assert text == "`config` needs `class_name`, the dotted path of the plugin's class"


@pytest.mark.parametrize("name", ["../up.Cls", "/etc/x.Cls", "Cls", "a..B", "a b.C", "a.b-c.D", ".a.B"])
@pytest.mark.conformance("V19")
def test_a_class_name_that_would_lead_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    expected = f"`class_name: {name}` is no dotted path of a class; write `package.module.Class`"
    assert refused([str(tmp_path)], class_name=name) == expected
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["/etc/passwd", "../requirements.txt", "a/../../b.txt"])
@pytest.mark.conformance("V19")
def test_a_requirements_file_outside_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    text = refused([str(tmp_path)], requirements_file=name)
    assert text.startswith(f"`requirements_file: {name}` leads out of the plugin's folder; ")


def test_requirements_are_those_of_the_installed_package_else_of_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    package = tmp_path / "an_installed_plugin"
    package.mkdir()
    (package / "__init__.py").write_text("")
    named = config(requirements_file="r.txt").model_copy(update={"name": "an-installed-plugin"})
    assert requirements_of(named, tmp_path) == tmp_path / "r.txt"
    (package / "r.txt").write_text("")
    assert requirements_of(named, tmp_path) == package / "r.txt"
    assert requirements_of(config(requirements_file="r.txt"), tmp_path) == tmp_path / "r.txt"
    assert requirements_of(config(), tmp_path) is None


def test_the_worker_is_that_of_the_environment(tmp_path: Path) -> None:
    worker = tmp_path / "lib" / "python3.99" / "site-packages" / "cpex" / "framework" / "isolated" / "worker.py"
    worker.parent.mkdir(parents=True)
    worker.write_text("")
    assert worker_script(tmp_path, "p") == worker


@pytest.mark.conformance("V1")
def test_an_environment_without_a_worker_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginError) as raised:
        worker_script(tmp_path, "p")
    assert raised.value.error.message == (
        f"plugin `p` of kind `isolated_venv`: the environment {tmp_path} holds no `cpex`, which the worker is part of; "
        f"add `cpex` to the plugin's requirements file; remove the folder {tmp_path} if it was made by hand"
    )


class Endless(IsolatedVenvPlugin):
    """Never ready, and asks for little time."""

    default_initialize_timeout_s = 0.01

    async def initialize(self, defer_cache_metadata: bool = False) -> None:
        """Wait for what never comes."""
        await asyncio.Event().wait()


async def test_the_time_for_a_start_is_the_operators_else_the_kinds_own(tmp_path: Path) -> None:
    assert IsolatedVenvPlugin.default_initialize_timeout_s == 900
    loader = PluginLoader()
    loader.append_to_search_path([str(tmp_path)])
    # Known by its kind only; a start that takes fifteen minutes is no test.
    loader._plugin_types["isolated_venv"] = Endless
    with pytest.raises(PluginTimeoutError, match=r"within 0\.01s"):
        await loader.load_and_instantiate_plugin(config())
    told = PluginConfig(name="p", kind="isolated_venv", config={"class_name": "a.B"}, initialize_timeout_s=0.02)
    with pytest.raises(PluginTimeoutError, match=r"within 0\.02s"):
        await loader.load_and_instantiate_plugin(told)


def test_an_environment_that_is_not_there_cannot_be_removed(tmp_path: Path) -> None:
    plugin = IsolatedVenvPlugin(config(), [str(tmp_path)])
    with pytest.raises(FileNotFoundError, match=re.escape(f"there is no environment {tmp_path / 'pkg' / '.venv'}")):
        plugin.remove_venv()


async def test_a_call_before_the_start_is_an_error(tmp_path: Path) -> None:
    plugin = IsolatedVenvPlugin(config(), [str(tmp_path)])
    context = PluginContext(global_context=GlobalContext(request_id="r"))
    with pytest.raises(PluginError, match="Plugin comm not initialized; await initialize"):
        await plugin.invoke_hook("tool_pre_invoke", ToolPreInvokePayload(name="t"), context)
    with pytest.raises(PluginError, match=r"^Hook type 'nobody_knows' not registered; register its payload"):
        await plugin.invoke_hook("nobody_knows", ToolPreInvokePayload(name="t"), context)
    await plugin.shutdown()
