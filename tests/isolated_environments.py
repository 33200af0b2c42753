"""Environments for isolated plugins, made in no time and without an index.

Building one for real takes a wheel and pip; `tests/integration/isolated/test_environment.py` does that once. All other
tests want a worker: for them an empty environment is pointed at the packages of the interpreter that runs the tests.
"""

from __future__ import annotations

import asyncio
import atexit
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pydantic
from support import other_tasks

from cpex.framework import GlobalContext, PluginConfig, ToolPreInvokePayload
from cpex.framework.isolated.client import IsolatedVenvPlugin
from cpex.framework.isolated.environment import site_packages_of
from cpex.framework.manager import TenantPluginManager
from cpex.framework.models.config import Config
from cpex.framework.models.result import PluginResult

PACKAGES = Path(pydantic.__file__).parents[1]
"""Where the packages lie that the tests run with."""


@cache
def _shared() -> Path:
    folder = Path(mkdtemp(prefix="cpex-venv-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=60)
    borrow_packages(folder)
    return folder


def borrow_packages(venv: Path) -> None:
    """Let an environment import what the tests can import, an editable install of this package included."""
    (packages,) = site_packages_of(venv)
    (packages / "borrowed.pth").write_text(f"import site; site.addsitedir({str(PACKAGES)!r})\n", encoding="utf-8")


def ready(config: PluginConfig, plugin_dirs: Path) -> None:
    """Put a finished environment where an isolated plugin looks for its own."""
    plugin = IsolatedVenvPlugin(config, [str(plugin_dirs)])
    venv = plugin.plugin_path / ".venv"
    if not venv.exists():
        venv.symlink_to(_shared())
    plugin._environment().commit()


def with_worker(config: PluginConfig, plugin_dirs: Path, script: str) -> None:
    """Put a worker of a test's own into the environment, where one of another release would lie."""
    venv = plugin_dirs / "mine" / ".venv"
    venv.unlink()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True, timeout=60)
    (packages,) = site_packages_of(venv)
    (packages / "cpex" / "framework" / "isolated").mkdir(parents=True)
    (packages / "cpex" / "framework" / "isolated" / "worker.py").write_text(WORKER_PRELUDE + script, encoding="utf-8")


WORKER_PRELUDE = """
import json, os, signal, sys, time

def tell(task, **answer):
    print(json.dumps({"request_id": task["request_id"], **answer}), flush=True)

ALLOW = {"continue_processing": True}

def tasks(*features):
    for line in sys.stdin:
        task = json.loads(line)
        if task["task_type"] == "capabilities":
            tell(task, status="success", protocol_version=1, features=list(features))
        elif task["task_type"] == "load_plugin":
            tell(task, status="success", hooks={})
        elif task["task_type"] == "shutdown":
            sys.exit(0)
        else:
            yield task

"""


@asynccontextmanager
async def host(
    config: PluginConfig, plugin_dirs: Path, timeout: float | None = 30
) -> AsyncIterator[TenantPluginManager]:
    """A started host with that one plugin; it leaves neither processes nor tasks nor descriptors behind."""
    manager = TenantPluginManager(Config(plugins=[config], plugin_dirs=[str(plugin_dirs)]), timeout)
    before = other_tasks()
    await manager.initialize()
    try:
        yield manager
    finally:
        pid = pid_of(manager)
        await manager.shutdown()
        assert pid is None or not running(pid)
        assert other_tasks() <= before


def pid_of(manager: TenantPluginManager) -> int | None:
    """The worker's process id; `None` when there is no worker."""
    plugin = manager.get_plugin("mine")
    assert isinstance(plugin, IsolatedVenvPlugin)
    process = plugin.comm.process if plugin.comm is not None else None
    return process.pid if process is not None else None


async def invoke(manager: TenantPluginManager, name: str = "t", **args: Any) -> PluginResult[Any]:
    """Call the tool hook; no call may take longer than a minute, which is for machines that are busy."""
    payload = ToolPreInvokePayload(name=name, args=args)
    async with asyncio.timeout(60):
        result, _ = await manager.invoke_hook("tool_pre_invoke", payload, GlobalContext(request_id="r"))
    return result


def isolated(folder: Path, code: str, **fields: Any) -> tuple[PluginConfig, Path]:
    """A plugin package `mine` with a class `Mine`, and an environment for it.

    Args:
        folder: Gets `plugins/mine/`.
        code: Of the package; what every plugin needs is imported already.

    Returns:
        Its configuration, and the folder for `plugin_dirs`.
    """
    plugins = folder / "plugins"
    (plugins / "mine").mkdir(parents=True, exist_ok=True)
    (plugins / "mine" / "__init__.py").write_text(PRELUDE + code, encoding="utf-8")
    settings = {"class_name": "mine.Mine", **fields.pop("config", {})}
    values = {"name": "mine", "hooks": ["tool_pre_invoke"], **fields}
    config = PluginConfig(kind="isolated_venv", config=settings, **values)
    ready(config, plugins)
    return config, plugins


PRELUDE = """
import asyncio, os, signal, sys, time
from cpex.framework import Plugin, PluginViolation, PluginViolationError, ToolPreInvokeResult

def denial(code):
    violation = PluginViolation(reason="no", description="no", code=code)
    return ToolPreInvokeResult(continue_processing=False, violation=violation)

"""


def running(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not asked for its status does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    # The latter for one that ends between the opening and the reading.
    except (FileNotFoundError, ProcessLookupError):
        return False


async def until_gone(pid: int) -> None:
    """Wait for a process to end, for a minute at most."""
    async with asyncio.timeout(60):
        # The operating system tells only parents.
        while running(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
