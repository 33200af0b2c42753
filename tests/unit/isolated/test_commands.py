"""Tools that build environments: ended in time, with all that they started, and quoted without secrets."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from isolated_environments import until_gone

from cpex.framework.isolated.commands import CommandFailed, build_environment_variables, run_command


async def test_a_tool_that_succeeds_says_nothing() -> None:
    await run_command([sys.executable, "-c", "print('fine')"], 60)


async def test_a_failure_tells_status_and_the_last_lines_without_passwords() -> None:
    code = "for n in range(20): print('line', n)\nprint('index https://me:hunter2@pypi.example/simple'); exit(4)"
    with pytest.raises(CommandFailed) as raised:
        await run_command([sys.executable, "-c", code], 60)
    assert raised.value.reason == "exited with status 4"
    assert raised.value.last_lines == [*(f"line {n}" for n in range(11, 20)), "index https://pypi.example/simple"]
    assert raised.value.told().startswith("\n  line 11\n  line 12")


async def test_a_tool_that_dies_is_told_by_its_signal() -> None:
    with pytest.raises(CommandFailed, match="was ended by signal 9"):
        await run_command([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"], 60)


CHILD = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open(sys.argv[1], "w").write(str(child.pid))
print("waiting", flush=True)
time.sleep(600)
"""


async def test_a_tool_that_takes_too_long_is_ended_with_what_it_started(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    for limit_s in (2, 10, 60):
        with pytest.raises(CommandFailed, match=rf"took longer than {limit_s}s and was stopped") as raised:
            await run_command([sys.executable, "-c", CHILD, str(file)], limit_s)
        # A busy machine may not have come to that line.
        if raised.value.last_lines:
            break
    assert raised.value.last_lines == ["waiting"]
    await until_gone(int(file.read_text()))


async def test_a_tool_of_a_caller_that_is_cancelled_is_ended(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    running = asyncio.create_task(run_command([sys.executable, "-c", CHILD, str(file)], 60))
    async with asyncio.timeout(60):
        # Only the file system knows of both processes.
        while not (file.exists() and file.read_text()):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    await until_gone(int(file.read_text()))


async def test_a_tool_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        await run_command([str(tmp_path / "absent")], 5)


def test_pip_finds_proxies_and_indexes_and_not_the_frameworks_passwords() -> None:
    variables = build_environment_variables(
        {
            "HTTPS_PROXY": "p",
            "PIP_INDEX_URL": "i",
            "PATH": "/bin",
            "PYTHONPATH": "/x",
            "PLUGINS_SERVER_SSL_KEYFILE_PASSWORD": "hunter2",
            "VIRTUAL_ENV": "/v",
        }
    )
    assert {"HTTPS_PROXY", "PIP_INDEX_URL", "PATH"} <= set(variables)
    assert "hunter2" not in variables.values()
    assert not {"PYTHONPATH", "VIRTUAL_ENV"} & set(variables)
