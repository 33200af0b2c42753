"""Shutting plugins down: each has its time, and none keeps the host or the others."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar
from typing import Any

import pytest
from support import FunctionPlugin, allow, manager_of, other_tasks, plugin

from cpex.framework.manager import TenantPluginManager
from cpex.framework.pipeline import stepping

SHORT_S = 0.02
LONG_S = 60
"""A bound for what ends by itself, also on a busy machine."""


class Ends(FunctionPlugin):
    """Tells its name when it is stopped."""

    def __init__(self, name: str, told: list[str], **config: Any) -> None:
        super().__init__(plugin(allow, name, **config).config, allow)
        self.told = told

    async def shutdown(self) -> None:
        self.told.append(self.name)


class Hangs(Ends):
    """Waits for what never comes."""

    def __init__(self, name: str, told: list[str], **config: Any) -> None:
        super().__init__(name, told, **config)
        self.waiting = asyncio.Event()

    async def shutdown(self) -> None:
        self.waiting.set()
        await asyncio.Event().wait()


async def stopped(manager: TenantPluginManager) -> None:
    """Shut down, and see that it has ended."""
    async with asyncio.timeout(LONG_S):
        await manager.shutdown()
    assert (manager.initialized, manager.plugin_count) == (False, 0)
    assert other_tasks() == set()


async def test_a_plugin_that_hangs_is_given_up_by_name_and_the_others_are_stopped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    told: list[str] = []
    manager = manager_of(Ends("a", told), Hangs("b", told, shutdown_timeout_s=SHORT_S), Ends("c", told))
    await stopped(manager)
    assert told == ["c", "a"]
    (line,) = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert line == (
        "Plugin b did not finish shutdown() within 0.02s and was given up; see what it waits for, or raise its "
        "`shutdown_timeout_s`"
    )


async def test_a_plugin_that_swallows_its_cancellation_is_given_up_after_the_grace(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # The grace is not a setting, and waiting for all of it would make the test slow.
    monkeypatch.setattr(stepping, "CLEANUP_GRACE_S", SHORT_S)
    told: list[str] = []

    class Stubborn(Ends):
        async def shutdown(self) -> None:
            while True:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    self.told.append("swallowed")

    await stopped(manager_of(Ends("a", told), Stubborn("b", told, shutdown_timeout_s=SHORT_S)))
    assert told == ["swallowed", "a"]
    assert "Plugin b did not finish shutdown() within 0.02s" in caplog.text


def test_the_time_of_a_plugin_is_half_a_minute_unless_it_says_otherwise() -> None:
    assert plugin(allow).config.shutdown_timeout_s == 30


async def test_cancelling_the_host_s_shutdown_ends_it_at_once_and_it_may_be_repeated() -> None:
    told: list[str] = []
    hanging = Hangs("b", told)
    manager = manager_of(Ends("a", told), hanging, Ends("c", told))
    stopping = asyncio.create_task(manager.shutdown())
    await hanging.waiting.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(stopping, LONG_S)
    assert (manager.initialized, manager.plugin_count) == (True, 3)
    object.__setattr__(hanging.config, "shutdown_timeout_s", SHORT_S)
    await stopped(manager)
    assert told == ["c", "c", "a"]


async def test_a_plugin_that_swallows_the_host_s_cancellation_does_not_keep_it() -> None:
    class Swallows(Hangs):
        async def shutdown(self) -> None:
            try:
                await super().shutdown()
            except asyncio.CancelledError:
                self.told.append("swallowed")

    told: list[str] = []
    swallowing = Swallows("a", told)
    manager = manager_of(swallowing)
    stopping = asyncio.create_task(manager.shutdown())
    await swallowing.waiting.wait()
    stopping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(stopping, LONG_S)
    assert told == ["swallowed"]


async def test_a_cancellation_of_the_plugin_s_own_and_an_exit_are_failures_like_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class AwaitsWhatItCancels(Ends):
        async def shutdown(self) -> None:
            task = asyncio.create_task(asyncio.Event().wait())
            task.cancel()
            await task

    class Exits(Ends):
        async def shutdown(self) -> None:
            sys.exit(0)

    told: list[str] = []
    await stopped(manager_of(Ends("a", told), AwaitsWhatItCancels("b", told), Exits("c", told), Ends("d", told)))
    assert told == ["d", "a"]
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "Plugin c failed to shut down",
        "Plugin b failed to shut down",
    ]


async def test_what_was_entered_at_the_start_is_left_in_the_same_task_and_context() -> None:
    variable: ContextVar[str] = ContextVar("variable")

    @asynccontextmanager
    async def entered() -> AsyncIterator[None]:
        task, token = asyncio.current_task(), variable.set("set")
        yield
        await asyncio.sleep(0)  # one turn of the loop, so that the rest runs after a suspension
        assert asyncio.current_task() is task
        variable.reset(token)

    class Enters(Ends):
        async def initialize(self) -> None:
            self.inside = entered()
            await self.inside.__aenter__()

        async def shutdown(self) -> None:
            await self.inside.__aexit__(None, None, None)
            self.told.append("left")

    told: list[str] = []
    entering = Enters("a", told)
    await entering.initialize()
    await stopped(manager_of(entering))
    assert told == ["left"]
