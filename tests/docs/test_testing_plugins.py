"""The page on testing plugins: its tests pass, and its messages are the ones that are printed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import blocks, noted

from cpex.framework import PluginResult
from cpex.framework.models.mode import PluginMode
from cpex.testing import PluginHarness, allow, assert_denied, plugin_of

PAGE = "testing-plugins.md"


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    for name, code in blocks(PAGE).items():
        (tmp_path / name).write_text(code, encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--asyncio-mode=auto", "-W", "error"]
    done = subprocess.run(
        [*command, "-o", "asyncio_default_fixture_loop_scope=function"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "4 passed" in done.stdout, done.stdout + done.stderr


async def test_the_message_of_the_page_is_the_one_that_is_shown() -> None:
    async with PluginHarness(plugin_of(allow, "AllowList", mode=PluginMode.SEQUENTIAL)) as harness:
        result: PluginResult[object] = await harness.call("tool_pre_invoke")
    with pytest.raises(AssertionError) as caught:
        assert_denied(result, "NOT_ALLOWED")
    assert noted(f"docs/{PAGE}") == [f"{caught.value}\n"]
