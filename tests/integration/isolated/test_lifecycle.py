"""How a worker starts and ends with its host. Every worker is a real process."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from pathlib import Path

import pytest
from integration.isolated.specimens import PLUGIN, started
from isolated_environments import host, invoke, isolated, until_gone
from pydantic import SecretStr

from cpex.framework import GlobalContext, PluginError, TenantPluginManager
from cpex.framework.errors import PluginLoadError
from cpex.framework.hooks.identity import IdentityPayload
from cpex.framework.models.config import Config


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise ValueError('no such thing')", "ValueError('no such thing')"),
        ("import absent_of_all", "No module named 'absent_of_all'"),
        ("class Other(Plugin): ...", "module `mine` has no plugin class `Mine`"),
        ("class Mine(Plugin): ...", "Plugin 'mine' has no hook 'tool_pre_invoke'"),
        (
            "class Mine(Plugin):\n    async def initialize(self): raise RuntimeError('no connection')",
            "RuntimeError('no connection')",
        ),
    ],
)
@pytest.mark.conformance("V21")
async def test_a_plugin_that_cannot_be_loaded_stops_the_start(tmp_path: Path, code: str, reason: str) -> None:
    with pytest.raises(PluginLoadError) as raised:
        async with host(*isolated(tmp_path, code)):
            raise AssertionError("it cannot start")
    text = str(raised.value)
    assert text.startswith("Plugin initialization failed: mine - plugin `mine` could not be loaded by its worker: ")
    assert reason in text


async def test_a_plugin_that_may_be_missing_leaves_nothing_behind_when_it_cannot_be_loaded(tmp_path: Path) -> None:
    config, folder = isolated(tmp_path, "import absent_of_all", on_error="ignore")
    manager = TenantPluginManager(Config(plugins=[config], plugin_dirs=[str(folder)]))
    await manager.initialize()
    assert list(manager.failed_plugins) == ["mine"]
    await manager.shutdown()


async def test_a_host_that_gives_up_while_it_starts_leaves_no_worker(tmp_path: Path) -> None:
    code = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\ntime.sleep(600)"
    config, folder = isolated(tmp_path, code)
    start = asyncio.create_task(host(config, folder).__aenter__())
    await started(tmp_path / "pid")
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    await until_gone(int((tmp_path / "pid").read_text() or "0"))


LEAKS = """
import logging

class Mine(Plugin):
    async def identity_resolve(self, payload, context):
        token = payload.raw_token.get_secret_value()
        print("printed", token)
        logging.getLogger("x").error("logged %s", token)
        raise ValueError(f"cannot use {token}")
"""


async def test_a_token_reaches_no_log_of_the_host(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    token = "opaque-but-long-enough"
    fields = {"hooks": ["identity_resolve"], "capabilities": ["read_inbound_credentials"], "on_error": "ignore"}
    async with host(*isolated(tmp_path, LEAKS, **fields)) as manager:
        payload = IdentityPayload(raw_token=SecretStr(token), headers={"Authorization": f"Bearer {token}"})
        await manager.invoke_hook("identity_resolve", payload, GlobalContext(request_id="r"))
    assert "[printed by the plugin] printed **********" in caplog.text
    assert "cannot use **********" in caplog.text
    assert token not in caplog.text


TWO_LOOPS = """
import asyncio, sys
from pathlib import Path
from isolated_environments import invoke, isolated, pid_of
from cpex.framework.manager import TenantPluginManager
from cpex.framework.models.config import Config

config, folder = isolated(Path(sys.argv[1]), open(sys.argv[2]).read())
manager = TenantPluginManager(Config(plugins=[config], plugin_dirs=[str(folder)]))
asyncio.run(manager.initialize())
first = pid_of(manager)
allowed = asyncio.run(invoke(manager, "deny")).continue_processing
print(allowed, first, pid_of(manager))
asyncio.run(manager.shutdown())
"""


async def test_a_plugin_can_be_called_from_another_event_loop_than_the_one_that_started_it(tmp_path: Path) -> None:
    # In a process of its own: asyncio rightly complains of loops that were closed over a running process.
    (tmp_path / "code").write_text(PLUGIN)
    done = await asyncio.create_subprocess_exec(
        *[sys.executable, "-c", TWO_LOOPS, str(tmp_path), str(tmp_path / "code")],
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    out, _ = await asyncio.wait_for(done.communicate(), 180)
    allowed, first, second = out.decode().split()
    assert (done.returncode, allowed) == (0, "False")
    assert first != second
    for pid in (first, second):
        await until_gone(int(pid))


SHUTDOWN = """
class Mine(Plugin):
    async def tool_pre_invoke(self, payload, context):
        return ToolPreInvokeResult()

    async def shutdown(self):
        open(self.config.config["file"], "a").write("shut down\\n")
"""


@pytest.mark.conformance("V5", "V7")
async def test_the_plugin_is_shut_down_in_its_worker(tmp_path: Path) -> None:
    async with host(*isolated(tmp_path, SHUTDOWN, config={"file": str(tmp_path / "told")})) as manager:
        await invoke(manager)
    assert (tmp_path / "told").read_text() == "shut down\n"


async def test_a_host_that_is_shut_down_can_be_started_again(tmp_path: Path) -> None:
    config, folder = isolated(tmp_path, PLUGIN)
    async with host(config, folder) as manager:
        assert (await invoke(manager, "deny")).continue_processing is False
        await manager.shutdown()
        await manager.initialize()
        assert (await invoke(manager, "deny")).continue_processing is False


async def test_descriptors_do_not_pile_up(tmp_path: Path) -> None:
    async with host(*isolated(tmp_path, PLUGIN)) as manager:
        await invoke(manager)
        before = open_files()
        for _ in range(3):
            with pytest.raises(PluginError):
                await invoke(manager, "exits")
            await invoke(manager)
        async with asyncio.timeout(60):
            # The pipes of a worker that has ended are closed when all that was in them is read.
            while open_files() > before:  # noqa: ASYNC110 - there is nobody to tell us
                await asyncio.sleep(0.02)


def open_files() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))
