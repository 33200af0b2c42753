"""What happens when the other process is absent, dies, hangs or comes back: never a wrong answer, never a long wait."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from integration.transports.hosts import call, host, manager_for
from integration.transports.servers import NAME, SERVERS, ServerProcess
from support import other_tasks

from cpex.framework import PluginError
from cpex.framework.errors import PluginLoadError
from cpex.framework.manager import TenantPluginManager


@pytest.fixture(params=SERVERS)
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ServerProcess]:
    """A server over each transport, not yet started."""
    process = SERVERS[request.param](tmp_path, {})
    yield process
    if process.child is not None and process.child.returncode is None:
        process.signal(signal.SIGCONT)
        await process.kill()


async def sooner_or_later(happens: Callable[[], Awaitable[bool]]) -> None:
    """Ask again and again until it is so: pauses and peers take their time."""
    async with asyncio.timeout(60):
        while not await happens():  # noqa: ASYNC110 - there is nobody to tell us
            await asyncio.sleep(0.02)


async def allows(manager: TenantPluginManager) -> bool:
    """Whether a call succeeds; it may fail only because there is no connection."""
    try:
        return bool((await call(manager, "nothing")).continue_processing)
    except PluginError as error:
        if error.error.code not in ("external_connect", "external_lost"):
            raise
        return False


@pytest.mark.conformance("E7")
async def test_an_absent_server_stops_the_start_and_is_named(server: ServerProcess, tmp_path: Path) -> None:
    manager = manager_for(tmp_path, server.entry, initialize_timeout_s=60)
    with pytest.raises(PluginLoadError) as raised:
        await manager.initialize()
    text = str(raised.value)
    assert "Plugin initialization failed: contract" in text
    assert "is the plugin server running" in text
    assert f"at {tmp_path / 'host.yaml'}:" in text
    assert manager.plugin_count == 0


@pytest.mark.conformance("D1.external")
async def test_a_plugin_that_may_be_missing_connects_when_its_server_is_there(
    server: ServerProcess, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    local = {"on_error": "ignore", "hooks": ["tool_pre_invoke"]}
    async with host(tmp_path, server.entry, **local) as manager:
        assert list(manager.failed_plugins) == [NAME]
        assert "calls of its hooks try to reach it again" in caplog.text
        passed = await call(manager, "deny")
        assert (passed.continue_processing, [each.status for each in passed.executions]) == (True, ["error"])
        await server.start()

        async def denies() -> bool:
            return not (await call(manager, "deny")).continue_processing

        await sooner_or_later(denies)


@pytest.mark.conformance("E2")
async def test_a_server_killed_during_a_call_ends_it_at_once_and_the_next_one_works(
    server: ServerProcess, tmp_path: Path
) -> None:
    await server.start()
    async with host(tmp_path, server.entry) as manager:
        manager.executor.timeout = 60
        await call(manager, "nothing")
        waiting = [asyncio.create_task(call(manager, "hang")) for _ in range(5)]
        await asyncio.gather(*(call(manager, "echo", number=n, turns=1) for n in range(20)))
        await server.kill()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in outcomes] == [PluginError] * 5
        assert {each.error.code for each in outcomes if isinstance(each, PluginError)} == {"external_lost"}
        await server.start()
        await sooner_or_later(lambda: allows(manager))


@pytest.mark.conformance("E1")
@pytest.mark.conformance("E18")
async def test_a_frozen_server_costs_the_deadline_and_its_late_answers_are_nobodys(
    server: ServerProcess, tmp_path: Path
) -> None:
    await server.start()
    async with host(tmp_path, server.entry) as manager:
        await call(manager, "nothing")
        server.signal(signal.SIGSTOP)
        manager.executor.timeout = 1
        for number in range(3):
            with pytest.raises(PluginError, match="timeout"):
                await call(manager, "echo", number=number, turns=0)
        server.signal(signal.SIGCONT)
        # What waits in front of a call uses some of its time up.
        manager.executor.timeout = 60
        numbers = [(await call(manager, "echo", number=100 + n, turns=0)).metadata["number"] for n in range(5)]
    assert numbers == [100, 101, 102, 103, 104]


async def test_a_server_that_was_restarted_between_two_calls_is_not_noticed(
    server: ServerProcess, tmp_path: Path
) -> None:
    await server.start()
    async with host(tmp_path, server.entry) as manager:
        await call(manager, "nothing")
        await server.stop()
        await server.start()
        assert (await call(manager, "deny")).violation.code == "NO"


@pytest.mark.conformance("E6")
async def test_an_absent_server_is_asked_once_per_pause_and_not_once_per_call(
    server: ServerProcess, tmp_path: Path
) -> None:
    await server.start()
    async with host(tmp_path, server.entry) as manager:
        await server.stop()
        messages = []
        for _ in range(20):
            with pytest.raises(PluginError) as raised:
                await call(manager, "nothing")
            messages.append(raised.value.error.message)
        assert any("the next attempt is due in" in message for message in messages)
        await server.start()
        await sooner_or_later(lambda: allows(manager))


def open_files() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc, which is not there")
async def test_nothing_stays_open_after_the_shutdown(server: ServerProcess, tmp_path: Path) -> None:
    await server.start()
    async with host(tmp_path, server.entry) as manager:
        # What a library opens once for the whole process, its poller for one, is there from now on.
        await call(manager, "nothing")
    files, tasks = open_files(), other_tasks()
    for _ in range(2):
        async with host(tmp_path, server.entry) as manager:
            await call(manager, "nothing")
            manager.executor.timeout = 0.5
            with pytest.raises(PluginError):
                await call(manager, "hang")

    async def as_before() -> bool:
        # gRPC closes sockets in a thread of its own, a moment later.
        return open_files() <= files and other_tasks() <= tasks

    await sooner_or_later(as_before)
