"""What happens to callers when a plugin harms its worker. Every worker is a real process."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
from integration.isolated.specimens import PLUGIN, failure, started
from isolated_environments import host, invoke, isolated, pid_of, until_gone

from cpex.framework import PluginError


@pytest.mark.conformance("V17")
async def test_what_a_plugin_prints_is_no_answer_and_harms_none(tmp_path: Path) -> None:
    async with host(*isolated(tmp_path, PLUGIN)) as manager:
        result = await invoke(manager, "prints")
        assert result.violation is not None
        assert result.violation.code == "PRINTED"
        assert (await invoke(manager, "deny")).continue_processing is False


@pytest.mark.conformance("V17")
async def test_a_plugin_that_reads_its_standard_input_takes_no_task_away(tmp_path: Path) -> None:
    async with host(*isolated(tmp_path, PLUGIN)) as manager:
        assert (await invoke(manager, "reads")).continue_processing
        assert (await invoke(manager, "deny")).continue_processing is False


@pytest.mark.conformance("V11")
async def test_a_worker_that_is_killed_ends_its_callers_at_once_and_the_next_call_finds_another(tmp_path: Path) -> None:
    async with host(*isolated(tmp_path, PLUGIN)) as manager:
        calls = [asyncio.create_task(invoke(manager, "hang", file=str(tmp_path / str(n)))) for n in range(3)]
        for number in range(3):
            await started(tmp_path / str(number))
        first = pid_of(manager)
        assert first is not None
        os.kill(first, signal.SIGKILL)
        ended = await asyncio.gather(*calls, return_exceptions=True)
        texts = [(error.error.code, error.error.message) for error in ended if isinstance(error, PluginError)]
        assert texts == [("worker_gone", "the worker of plugin `mine` was ended by signal SIGKILL")] * 3
        assert (await invoke(manager, "deny")).continue_processing is False
        assert pid_of(manager) != first


@pytest.mark.conformance("V11")
async def test_the_last_words_of_a_worker_are_in_the_message(tmp_path: Path) -> None:
    async with host(*isolated(tmp_path, PLUGIN)) as manager:
        with pytest.raises(PluginError) as raised:
            await invoke(manager, "dies")
        assert failure(raised) == (
            "worker_gone",
            "the worker of plugin `mine` was ended by signal SIGKILL; its last lines on standard error:\n"
            "  first words\n  last words",
        )
        with pytest.raises(PluginError) as raised:
            await invoke(manager, "exits")
        assert failure(raised) == ("worker_gone", "the worker of plugin `mine` ended with status 3")
        assert (await invoke(manager, "deny")).continue_processing is False


@pytest.mark.conformance("V7")
async def test_what_a_worker_has_started_ends_with_it(tmp_path: Path) -> None:
    async with host(*isolated(tmp_path, PLUGIN)) as manager:
        with pytest.raises(PluginError, match="ended with status 4"):
            await invoke(manager, "leaves_a_child", file=str(tmp_path / "child"))
        await until_gone(int((tmp_path / "child").read_text()))


async def test_an_ignored_death_is_on_record_and_lets_the_call_go_on(tmp_path: Path) -> None:
    async with host(*isolated(tmp_path, PLUGIN, on_error="ignore")) as manager:
        result = await invoke(manager, "dies")
        assert result.continue_processing
        assert [record.status for record in result.executions] == ["error"]


@pytest.mark.parametrize("limited_by", ["the plugin", "the host"])
@pytest.mark.conformance("V10")
async def test_a_stopped_worker_costs_a_call_its_deadline_and_is_replaced(tmp_path: Path, limited_by: str) -> None:
    fields = {"timeout_s": 0.3} if limited_by == "the plugin" else {}
    config, folder = isolated(tmp_path, PLUGIN, **fields)
    async with host(config, folder, timeout=0.3 if limited_by == "the host" else 30) as manager:
        first = pid_of(manager)
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(PluginError) as raised:
            await invoke(manager, "deny")
        assert failure(raised) == ("plugin_timeout", "Plugin mine exceeded 0.3s timeout")
        await until_gone(first)


@pytest.mark.conformance("V10")
async def test_the_call_after_a_stuck_one_waits_for_the_other_worker(tmp_path: Path) -> None:
    config, folder = isolated(tmp_path, PLUGIN)
    async with host(config, folder) as manager:
        first = pid_of(manager)
        stuck = asyncio.create_task(invoke(manager, "compute", file=str(tmp_path / "file")))
        await started(tmp_path / "file")
        stuck.cancel()
        with pytest.raises(asyncio.CancelledError):
            await stuck
        assert (await invoke(manager, "deny")).continue_processing is False
        assert pid_of(manager) != first


async def test_a_call_that_waits_can_be_given_up_without_harm_to_the_worker(tmp_path: Path) -> None:
    async with host(*isolated(tmp_path, PLUGIN)) as manager:
        first = pid_of(manager)
        for number in range(3):
            waiting = asyncio.create_task(invoke(manager, "hang", file=str(tmp_path / str(number))))
            await started(tmp_path / str(number))
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            assert (await invoke(manager, "deny")).continue_processing is False
        assert pid_of(manager) == first


async def test_a_worker_that_is_restarted_between_calls_is_not_noticed(tmp_path: Path) -> None:
    async with host(*isolated(tmp_path, PLUGIN)) as manager:
        first = pid_of(manager)
        assert first is not None
        os.kill(first, signal.SIGTERM)
        await until_gone(first)
        results = await asyncio.gather(*(invoke(manager, "deny") for _ in range(20)), return_exceptions=True)
        # One of them may have been sent before the end of the worker was known here.
        assert all(isinstance(each, PluginError) or not each.continue_processing for each in results)
        assert (await invoke(manager, "deny")).continue_processing is False
        assert pid_of(manager) != first


@pytest.mark.conformance("V12")
async def test_calls_that_find_no_worker_share_one_start(tmp_path: Path) -> None:
    async with host(*isolated(tmp_path, PLUGIN)) as manager:
        with pytest.raises(PluginError):
            await invoke(manager, "exits")
        results = await asyncio.gather(*(invoke(manager, "pid") for _ in range(20)))
        assert [result.metadata for result in results] == [{"pid": pid_of(manager)}] * 20


async def test_a_thousand_calls_at_once_are_served_by_one_worker(tmp_path: Path) -> None:
    async with host(*isolated(tmp_path, PLUGIN)) as manager:
        names = ["deny", "t"] * 500
        results = await asyncio.gather(*(invoke(manager, name) for name in names))
        assert [result.continue_processing for result in results] == [False, True] * 500


@pytest.mark.conformance("V9")
async def test_an_answer_over_the_limit_fails_its_own_call(tmp_path: Path) -> None:
    async with host(*isolated(tmp_path, PLUGIN, max_content_size=5000)) as manager:
        with pytest.raises(PluginError, match=r"Serialized response exceeds max content size: \d+ bytes, at most 5000"):
            await invoke(manager, "large", size=6000)
        assert (await invoke(manager, "large", size=1000)).continue_processing


async def test_a_question_over_the_limit_is_not_sent(tmp_path: Path) -> None:
    async with host(*isolated(tmp_path, PLUGIN, max_content_size=5000)) as manager:
        first = pid_of(manager)
        # Escaped, it is six times as long; the budget for contents has let it pass.
        with pytest.raises(
            PluginError, match=r"task_data exceeds max_content_size of plugin `mine`: .* nothing was sent"
        ):
            await invoke(manager, "t", text="ü" * 1500)
        assert (await invoke(manager, "deny")).continue_processing is False
        assert pid_of(manager) == first
