"""Initialising plugins: each has its time, and none that does not stop when it is told to keeps the host."""

from __future__ import annotations

import asyncio
import gc
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from support import other_tasks

from cpex.framework.base import Plugin
from cpex.framework.errors import PluginLoadError, PluginTimeoutError
from cpex.framework.manager import TenantPluginManager
from cpex.framework.models.config import Config, PluginConfig
from cpex.framework.pipeline import stepping
from cpex.framework.settings import settings

SHORT_S = 0.02
LONG_S = 60
"""A bound for what ends by itself, also on a busy machine."""
TOLD = (
    "Plugin p did not finish initialize() within 0.02s, did not stop when it was told to, and was given up; let it "
    "pass `asyncio.CancelledError` on, see what it waits for, or raise its `initialize_timeout_s`"
)


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No setting of the environment; and a grace that is short, since it is no setting."""
    monkeypatch.delenv("PLUGINS_FAIL_ON_PLUGIN_ERROR", raising=False)
    monkeypatch.setattr(stepping, "CLEANUP_GRACE_S", SHORT_S)
    settings.cache_clear()
    yield
    settings.cache_clear()


class Lives(Plugin):
    """Tells of its life."""

    told: list[str] = []

    async def initialize(self) -> None:
        self.told.append(f"start {self.name}")

    async def shutdown(self) -> None:
        self.told.append(f"stop {self.name}")


class Stubborn(Lives):
    """Goes on waiting, however often it is told to stop."""

    async def initialize(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.told.append("swallowed")


class Immortal(Lives):
    """Does not even let itself be closed."""

    async def initialize(self) -> None:
        # Bounded, so that the interpreter gets rid of it in the end.
        for _ in range(3):
            try:
                await asyncio.Event().wait()
            # The closing, too.
            except BaseException:
                continue


class CleansUpForEver(Lives):
    """Waits in its clean-up for what never comes."""

    async def initialize(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.Event().wait()


class ReadyTooLate(Lives):
    """Takes the order to stop for a reason to be ready."""

    async def initialize(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.told.append("swallowed")


class CleansUp(Lives):
    """Needs some turns of the loop to clean up, and then fails."""

    async def initialize(self) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            for _ in range(3):
                await asyncio.sleep(0)
            self.told.append("cleaned up")
            raise ValueError("while cleaning up") from None


def cancel_soon() -> None:
    """Cancel this task when it next waits, before any time can be over."""
    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().call_soon(task.cancel)


class StubbornAgainstTheHost(Stubborn):
    """The same, where the host is what tells it to stop."""

    async def initialize(self) -> None:
        cancel_soon()
        await super().initialize()


class ReadyInSpiteOfTheHost(ReadyTooLate):
    """As above."""

    async def initialize(self) -> None:
        cancel_soon()
        await super().initialize()


@pytest.fixture
def told() -> Iterator[list[str]]:
    """What the plugins of a test tell."""
    Lives.told.clear()
    yield Lives.told
    Lives.told.clear()


def manager_of(*plugins: tuple[str, type[Plugin], dict[str, Any]]) -> TenantPluginManager:
    """A manager, not started, of plugins in this module."""
    entries = [
        PluginConfig.model_validate(
            {"name": name, "kind": f"starting.{cls.__name__}", "initialize_timeout_s": LONG_S}
        ).model_copy(update=fields)
        for name, cls, fields in plugins
    ]
    manager = TenantPluginManager(Config(plugins=entries))
    # Test modules have no dotted name that a configuration could say.
    manager._loader._plugin_types = {f"starting.{cls.__name__}": cls for _, cls, _ in plugins}
    return manager


async def refused(manager: TenantPluginManager) -> PluginLoadError:
    """Start, and see that it has failed and left nothing."""
    with pytest.raises(PluginLoadError) as caught:
        await asyncio.wait_for(manager.initialize(), LONG_S)
    assert (manager.initialized, manager.plugin_count) == (False, 0)
    assert other_tasks() == set()
    return caught.value


SOON = {"initialize_timeout_s": SHORT_S}


@pytest.mark.parametrize("cls", [Stubborn, Immortal, CleansUpForEver])
async def test_a_plugin_that_does_not_stop_when_it_is_told_to_fails_the_start_by_name(
    cls: type[Plugin], told: list[str]
) -> None:
    error = await refused(manager_of(("a", Lives, {}), ("p", cls, SOON)))
    assert str(error) == f"Plugin initialization failed: p - {TOLD}"
    assert isinstance(error.failures[0].cause, PluginTimeoutError)
    assert [line for line in told if line != "swallowed"] == ["start a", "stop p", "stop a"]
    del error
    gc.collect()


async def test_one_that_may_be_missing_is_left_out_and_the_start_goes_on(
    told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    manager = manager_of(("p", Stubborn, {**SOON, "on_error": "ignore"}), ("b", Lives, {}))
    await asyncio.wait_for(manager.initialize(), LONG_S)
    assert (manager.initialized, list(manager.failed_plugins), manager.plugin_count) == (True, ["p"], 1)
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == [
        f"Starting without plugin p (on_error: ignore), which failed to start: {TOLD}"
    ]
    await manager.shutdown()
    assert told == ["swallowed", "stop p", "start b", "stop b"]
    assert other_tasks() == set()


async def test_a_plugin_that_is_ready_after_its_time_has_failed_to_start(told: list[str]) -> None:
    error = await refused(manager_of(("p", ReadyTooLate, SOON)))
    assert "Plugin p did not finish initialize() within 0.02s; see what it waits for" in str(error)
    assert told == ["swallowed", "stop p"]


async def test_a_plugin_may_clean_up_after_its_time_and_fail_as_it_likes(
    told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stepping, "CLEANUP_GRACE_S", LONG_S)
    error = await refused(manager_of(("p", CleansUp, SOON)))
    assert "Plugin p did not finish initialize() within 0.02s; see what it waits for" in str(error)
    assert told == ["cleaned up", "stop p"]


async def cancelled(manager: TenantPluginManager) -> None:
    """Start, and see that it was cancelled and left nothing."""
    starting = asyncio.create_task(manager.initialize())
    await asyncio.wait({starting}, timeout=LONG_S)
    assert starting.cancelled()
    assert (manager.initialized, manager.plugin_count) == (False, 0)
    assert other_tasks() == set()


async def test_a_plugin_that_goes_on_after_the_host_cancelled_the_start_is_given_up_when_its_time_is_over(
    told: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    await cancelled(manager_of(("a", Lives, {}), ("p", StubbornAgainstTheHost, {**SOON, "on_error": "ignore"})))
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "Plugin p went on with initialize() after the start was cancelled, and was given up after 0.02s; let it pass "
        "`asyncio.CancelledError` on"
    ]
    assert [line for line in told if line != "swallowed"] == ["start a", "stop p", "stop a"]


async def test_a_plugin_that_swallows_the_host_s_cancellation_does_not_let_the_start_go_on(told: list[str]) -> None:
    await cancelled(manager_of(("p", ReadyInSpiteOfTheHost, {"on_error": "ignore"}), ("b", Lives, {})))
    assert told == ["swallowed", "stop p"]


async def test_a_plugin_is_initialised_in_the_task_and_the_context_of_the_host(told: list[str]) -> None:
    variable: ContextVar[str] = ContextVar("variable")

    class Enters(Lives):
        async def initialize(self) -> None:
            self.task = asyncio.current_task()
            await asyncio.sleep(0)  # one turn of the loop, so that the rest runs after a suspension
            assert self.task is asyncio.current_task()
            variable.set("set")

    manager = manager_of(("p", Enters, {}))
    await manager.initialize()
    plugin = manager.get_plugin("p")
    assert isinstance(plugin, Enters)
    assert (plugin.task, variable.get()) == (asyncio.current_task(), "set")
    await manager.shutdown()


INTERRUPTED = """\
import asyncio, logging, os, signal
from cpex.framework import Plugin, PluginManager
from cpex.framework.pipeline import stepping

class Stubborn(Plugin):
    async def initialize(self):
        # As the terminal does, once the plugin waits.
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGINT)
        while True:
            try:
                await asyncio.Event().wait()
            except BaseException as error:
                print(type(error).__name__, flush=True)
                if isinstance(error, GeneratorExit):
                    raise

if __name__ == "__main__":
    # What a shell starts in the background, this test perhaps, ignores interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    logging.basicConfig(format="%(levelname)s %(message)s")
    stepping.CLEANUP_GRACE_S = 0.02
    asyncio.run(PluginManager("plugins.yaml").initialize())
"""


def test_a_start_that_is_interrupted_ends_the_program_whatever_the_plugin_makes_of_it(tmp_path: Path) -> None:
    (tmp_path / "stubborn.py").write_text(INTERRUPTED)
    (tmp_path / "plugins.yaml").write_text(
        "plugins: [{name: p, kind: stubborn.Stubborn, initialize_timeout_s: 0.2, on_error: ignore}]\nplugin_dirs: [.]\n"
    )
    ended = subprocess.run(
        [sys.executable, "stubborn.py"], cwd=tmp_path, capture_output=True, text=True, timeout=LONG_S, check=False
    )
    *swallowed, closing = ended.stdout.split()
    # Where the machine pauses, interrupt and deadline may be told as one.
    assert (set(swallowed), closing) == ({"CancelledError"}, "GeneratorExit"), ended.stderr
    assert "ERROR Plugin p went on with initialize() after the start was cancelled" in ended.stderr
    assert ended.stderr.rstrip().endswith("KeyboardInterrupt")
    assert ended.returncode != 0
