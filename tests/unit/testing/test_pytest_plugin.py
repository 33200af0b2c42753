"""The fixtures, in a project of their own: pytest in another process, with cpex installed and nothing else set up."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from cpex.framework import clock
from cpex.framework.clock import FixedClock
from cpex.testing.harness import START

PLUGIN = """\
from cpex.framework import Plugin, PluginResult, PluginViolation


class Guard(Plugin):
    async def tool_pre_invoke(self, payload, context):
        violation = PluginViolation(reason="no", description="no", code="NO")
        return PluginResult(continue_processing=payload.name != "shell", violation=violation)
"""


def run_pytest(folder: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "guard.py").write_text(PLUGIN)
    (folder / "test_it.py").write_text(tests)
    # The other plugins of this environment are none of the project's.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:asyncio",
        *options,
        "test_it.py",
    ]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)


def test_the_clock_of_the_framework_is_that_of_the_fixture(cpex_clock: FixedClock) -> None:
    cpex_clock.advance(60)
    assert (clock.now() - START).total_seconds() == 60


async def test_the_clock_holds_in_async_tests_too(cpex_clock: FixedClock) -> None:
    assert clock.now() == START == cpex_clock.now()


def test_the_fixtures_are_there_without_any_set_up(tmp_path: Path) -> None:
    tests = """\
import asyncio

from cpex.framework import PluginManager
from cpex.testing import assert_denied
from guard import Guard


def test_guard(plugin_harness, cpex_clock, fresh_cpex):
    async def run():
        async with plugin_harness(Guard) as harness:
            assert harness.clock is cpex_clock
            assert_denied(await harness.call("tool_pre_invoke", name="shell"), "NO")

    asyncio.run(run())
    assert PluginManager("").plugin_count == 0
"""
    done = run_pytest(tmp_path, tests, "-W", "error")
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_a_harness_that_is_never_left_fails_its_test(tmp_path: Path) -> None:
    tests = """\
import asyncio

from guard import Guard


def test_guard(plugin_harness):
    asyncio.run(plugin_harness(Guard).__aenter__())
"""
    done = run_pytest(tmp_path, tests)
    assert "a harness was entered and never left; use `async with plugin_harness(...)`" in done.stdout


def test_projects_that_use_no_fixture_do_not_load_the_framework(tmp_path: Path) -> None:
    tests = "import sys\n\ndef test_nothing():\n    assert 'cpex.framework' not in sys.modules\n"
    done = run_pytest(tmp_path, tests)
    assert "1 passed" in done.stdout, done.stdout + done.stderr
