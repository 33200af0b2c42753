"""Environments built for real: by the interpreter's own `venv`, filled by pip from wheels on disk."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from handmade_wheels import make_wheel, wheel_of_this_package
from isolated_environments import PACKAGES, borrow_packages, host, invoke, isolated, pid_of
from support import other_tasks

from cpex.framework import PluginConfig, PluginError
from cpex.framework.errors import PluginLoadError
from cpex.framework.isolated.client import IsolatedVenvPlugin
from cpex.framework.isolated.environment import EnvironmentFailed, python_of
from cpex.framework.isolated.locking import locked
from cpex.framework.isolated.record import RECORD_FILE
from cpex.framework.isolated.venv_comm import VenvProcessCommunicator

VERSION = "0.1.999"
PLUGIN = """
from cpex.framework import Plugin, ToolPreInvokeResult
import tiny

class Mine(Plugin):
    async def tool_pre_invoke(self, payload, context):
        return ToolPreInvokeResult(metadata={"tiny": tiny.__file__})
"""


@dataclass(frozen=True)
class Built:
    """A plugin whose environment has been built by a start of its host."""

    folder: Path
    config: PluginConfig
    failure: str
    """What the first start said, whose requirements could not be installed."""

    @property
    def venv(self) -> Path:
        """Its environment."""
        return self.folder / "mine" / ".venv"

    def record(self) -> dict[str, object]:
        """Its record."""
        found: dict[str, object] = json.loads(record_of(self.folder).read_text())
        return found


def record_of(folder: Path) -> Path:
    return folder / "mine" / ".cpex" / "venv_cache" / RECORD_FILE


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Fails once and is mended: what the tests below look at."""
    top = tmp_path_factory.mktemp("built")
    wheels, folder = top / "wheels", top / "plugins"
    wheels.mkdir()
    wheel_of_this_package(wheels, VERSION)
    # Stands for what this package requires: the packages of the tests.
    make_wheel(wheels, "borrowed", "1", {"borrowed.pth": f"import site; site.addsitedir({str(PACKAGES)!r})\n"})
    make_wheel(wheels, "tiny", "1.2", {"tiny.py": ""})
    make_wheel(wheels, "late", "2.0", {"late.py": ""})
    (folder / "mine").mkdir(parents=True)
    (folder / "mine" / "__init__.py").write_text(PLUGIN)
    requirements = folder / "mine" / "requirements.txt"
    head = "--no-index\n--find-links ../../wheels\n"
    requirements.write_text(head + "absent-of-all==9\n")
    settings = {"class_name": "mine.Mine", "requirements_file": "requirements.txt", "script_path": "ignored/path"}
    config = PluginConfig(name="mine", kind="isolated_venv", hooks=["tool_pre_invoke"], version="1", config=settings)
    with pytest.MonkeyPatch.context() as patch:
        # Compiling this whole package takes longer than everything else.
        patch.setenv("PIP_NO_COMPILE", "1")
        failure = asyncio.run(start(config, folder))
        assert not record_of(folder).exists()
        requirements.write_text(f"{head}cpex=={VERSION}\nborrowed\ntiny\n")
        assert asyncio.run(start(config, folder)) == ""
    return Built(folder, config, failure)


async def start(config: PluginConfig, folder: Path) -> str:
    """Start and stop a host; why it did not start, if it did not."""
    try:
        async with host(config, folder):
            return ""
    except PluginLoadError as error:
        return str(error)


@pytest.mark.conformance("V3")
def test_a_failed_installation_stops_the_start_with_the_last_lines_of_pip(built: Built) -> None:
    file = built.folder / "mine" / "requirements.txt"
    first, *others = built.failure.splitlines()
    assert first == (
        f"Plugin initialization failed: mine - Failed to install requirements from {file} for plugin `mine`: "
        "pip exited with status 1"
    )
    assert "  ERROR: No matching distribution found for absent-of-all==9" in others
    assert others[-1] == (
        f"  help: run `{python_of(built.venv)} -m pip install -r {file}` to see all of it; the next start builds the "
        "environment anew"
    )


@pytest.mark.conformance("V1", "V14")
async def test_a_plugin_runs_from_its_own_environment_with_the_worker_that_lies_there(built: Built) -> None:
    async with host(built.config, built.folder) as manager:
        result = await invoke(manager)
        assert result.metadata is not None
        assert Path(result.metadata["tiny"]).is_relative_to(built.venv)
        pid = pid_of(manager)
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        assert Path(command[1].decode()).relative_to(built.venv).parts[-4:] == (
            "cpex",
            "framework",
            "isolated",
            "worker.py",
        )
        # Nothing of the host's own environment but what every worker gets.
        variables = {each.partition(b"=")[0] for each in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") if each}
        assert variables == {b"PLUGINS_CONFIG_FILE", b"PYTHONUTF8", b"PYTHONPATH"}


def test_the_record_is_that_of_release_0_1_and_a_little_more(built: Built) -> None:
    record = built.record()
    assert set(record) == {
        *("venv_path", "requirements_file", "requirements_hash", "manifest_version", "manifest_hash"),
        *("python_version", "installed", "classes"),
    }
    assert (record["venv_path"], record["manifest_version"]) == (str(built.venv), "1")
    assert record["manifest_hash"] == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


async def test_a_second_start_builds_nothing_and_calls_no_pip(built: Built, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (record_of(built.folder).stat(), (built.venv / "pyvenv.cfg").stat())
    # Were pip called, it would fail.
    monkeypatch.setenv("PIP_CONFIG_FILE", "/absent/of/all")
    monkeypatch.setenv("PIP_REQUIRE_VIRTUALENV", "no such truth value")
    assert await start(built.config, built.folder) == ""
    assert (record_of(built.folder).stat().st_mtime_ns, (built.venv / "pyvenv.cfg").stat().st_mtime_ns) == (
        before[0].st_mtime_ns,
        before[1].st_mtime_ns,
    )


@pytest.mark.conformance("V22")
async def test_another_class_of_the_package_shares_the_environment(built: Built) -> None:
    settings = {"class_name": "mine.Other"}
    other = IsolatedVenvPlugin(
        PluginConfig(name="other", kind="isolated_venv", version="7", config=settings), [str(built.folder)]
    )
    before = (built.venv / "pyvenv.cfg").stat().st_mtime_ns
    await other._prepare_environment(defer=False)
    assert (built.venv / "pyvenv.cfg").stat().st_mtime_ns == before
    classes = built.record()["classes"]
    assert isinstance(classes, dict)
    assert set(classes) == {"mine.Mine", "mine.Other"}
    for plugin in (other, IsolatedVenvPlugin(built.config, [str(built.folder)])):
        environment = plugin._environment()
        assert (environment.why_build(), environment.lacks_class()) == (None, False)


@pytest.mark.conformance("V3")
async def test_pip_that_takes_too_long_is_ended(built: Built) -> None:
    plugin = IsolatedVenvPlugin(built.config, [str(built.folder)])
    environment = replace(plugin._environment(), install_timeout_s=0.05)
    with pytest.raises(EnvironmentFailed, match=r"pip took longer than 0\.05s and was stopped"):
        await environment.install()
    assert not await lines_of_processes_with(str(python_of(built.venv)))


async def test_an_installation_that_is_cancelled_leaves_no_process(built: Built) -> None:
    plugin = IsolatedVenvPlugin(built.config, [str(built.folder)])
    running = asyncio.create_task(plugin._environment().install())
    async with asyncio.timeout(60):
        while not await lines_of_processes_with(str(python_of(built.venv))):
            pass
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not await lines_of_processes_with(str(python_of(built.venv)))
    assert other_tasks() == set()


async def lines_of_processes_with(word: str) -> list[str]:
    """Command lines of running processes that hold a word."""
    await asyncio.sleep(0)
    lines = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            lines.append(entry.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return [line for line in lines if word in line]


def test_the_blocking_names_of_release_0_1_still_work(built: Built) -> None:
    communicator = VenvProcessCommunicator(str(built.venv))
    assert (communicator.python_executable, communicator.is_alive()) == (str(python_of(built.venv)), False)
    try:
        with pytest.raises(
            RuntimeError, match=r"Failed to install requirements from absent\.txt: pip exited with status 1"
        ):
            communicator.install_requirements("absent.txt")
        script = "cpex/framework/isolated/worker.py"
        answer = communicator.send_task(script, {"task_type": "info"})
        assert answer["environment"]["python_executable"] == str(python_of(built.venv))
        assert (communicator.is_alive(), communicator.running, dict(communicator.response_queues)) == (True, True, {})
        with pytest.raises(RuntimeError, match="Worker process error: task type not supported"):
            communicator.send_task(script, {"task_type": "no such thing"})
        with pytest.raises(RuntimeError, match=r"task_data exceeds max_content_size"):
            communicator.send_task(script, {"task_type": "info", "x": "y" * 100}, max_content_size=50)
    finally:
        communicator.stop_worker()
    assert communicator.is_alive() is False
    communicator.stop_worker()


def run(*command: object) -> int:
    """Run a command; its status."""
    return subprocess.run([str(word) for word in command], capture_output=True, check=False, timeout=100).returncode


# The installer's way, last: it changes the environment.


@pytest.mark.conformance("V13")
async def test_a_rebuild_brings_back_what_an_installer_had_put_there(
    built: Built, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_COMPILE", "1")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(built.folder.parent / "wheels"))
    folder = built.folder.parent / "installed"
    settings = {"class_name": "pkg.thing.Thing"}
    config = PluginConfig(name="pkg", kind="isolated_venv", version="1", hooks=["tool_pre_invoke"], config=settings)
    plugin = IsolatedVenvPlugin(config=config, plugin_dirs=[str(folder)])
    manifest = plugin.plugin_path / "pkg-thing-Thing.plugin-manifest.yaml"
    manifest.write_text("name: pkg\n")
    await plugin.initialize(defer_cache_metadata=True)
    record = plugin.cache_dir / RECORD_FILE
    assert not record.exists()
    venv = plugin.plugin_path / ".venv"
    # The installer's step, with pip of the environment.
    code = "class Thing: pass\n"
    make_wheel(built.folder.parent / "wheels", "pkg", "3.1", {"pkg/__init__.py": "", "pkg/thing.py": code})
    assert run(python_of(venv), "-m", "pip", "install", "-q", "pkg", "late") == 0
    plugin.commit_cache_metadata()
    plugin.commit_cache_metadata()
    assert json.loads(record.read_text())["manifest_version"] == "1"
    (plugin.cache_dir / "owners.json").write_text("{}")

    newer = IsolatedVenvPlugin(config.model_copy(update={"version": "2"}), [str(folder)])
    assert newer._environment().why_build() == "the plugin's version has changed"
    await newer._prepare_environment(defer=False)
    assert run(python_of(venv), "-c", "import late, pkg.thing") == 0
    assert json.loads(record.read_text())["installed"] == ["late==2.0", "pkg==3.1"]
    # There is no cpex among them, so there is no worker.
    with pytest.raises(PluginError, match=r"holds no `cpex`, which the worker is part of; add `cpex` to the plugin's"):
        await newer.initialize()
    with pytest.raises(EnvironmentFailed, match=r"is claimed by another host in .*owners\.json"):
        newer.remove_venv()
    (plugin.cache_dir / "owners.json").unlink()
    newer.remove_venv()
    assert sorted(path.name for path in newer.plugin_path.iterdir()) == [manifest.name]
    with pytest.raises(FileNotFoundError):
        newer.remove_venv()


# The lock.

HOLDER = """
import asyncio, sys
from pathlib import Path
from cpex.framework.isolated.locking import locked

async def main():
    async with locked(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()

asyncio.run(main())
"""


def holding(lock: Path) -> subprocess.Popen[bytes]:
    """A process that holds a lock until it ends; says so on its output."""
    return subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


async def test_an_environment_that_another_process_builds_is_waited_for(tmp_path: Path) -> None:
    config, folder = isolated(tmp_path, "class Mine(Plugin): ...", hooks=[])
    plugin = IsolatedVenvPlugin(config, [str(folder)])
    lock = plugin.cache_dir / ".lock"
    with holding(lock) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        waiting = asyncio.create_task(plugin.create_venv())
        done, _ = await asyncio.wait({waiting}, timeout=0.3)
        assert done == set()
        # However a holder ends, the lock ends with it.
        holder.kill()
        assert await asyncio.wait_for(waiting, 60) is False


async def test_who_waits_for_the_lock_can_be_cancelled(tmp_path: Path) -> None:
    async def take() -> None:
        async with locked(tmp_path / "lock"):
            pass

    async with locked(tmp_path / "lock"):
        waiting = asyncio.create_task(take())
        await asyncio.wait({waiting}, timeout=0.1)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    await asyncio.wait_for(take(), 60)
    assert os.path.exists(tmp_path / "lock")


async def test_an_environment_without_a_record_was_not_finished(tmp_path: Path) -> None:
    config, folder = isolated(tmp_path, "class Mine(Plugin): ...", hooks=[])
    plugin = IsolatedVenvPlugin(config, [str(folder)])
    assert plugin._environment().why_build() is None
    record_of(folder).unlink()
    assert plugin._environment().why_build() == "there is no record of a finished build"
    record_of(folder).write_text("{ no JSON")
    assert plugin._environment().why_build() == "there is no record of a finished build"
    (folder / "mine" / ".venv").unlink()
    assert plugin._environment().why_build() == "there is none yet"
    borrowed = folder / "mine" / ".venv"
    assert run(sys.executable, "-m", "venv", "--without-pip", borrowed) == 0
    borrow_packages(borrowed)
    python_of(borrowed).unlink()
    assert plugin._environment().why_build() == "its interpreter is gone"
