"""Plugin servers that the host starts: what they are given, what they say, how they end."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from integration.transports.hosts import call, host, manager_for
from integration.transports.leftovers import children, open_descriptors
from integration.transports.servers import MCP_RUNTIME, NAME, PLUGINS, Entry, mcp_stdio
from support import other_tasks

from cpex.framework import PluginError
from cpex.framework.errors import PluginLoadError

pytestmark = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="children are found in /proc")


@pytest.fixture
def others() -> set[int]:
    """Children that this process has already, of earlier tests' libraries for example."""
    return children()


BAD = PLUGINS / "misbehaving_server.py"


def odd(folder: Path, kind: str, **mcp: Any) -> Entry:
    """The host's entry for a server with one of the odd plugins."""
    path = folder / "odd.yaml"
    plugin = {"name": NAME, "kind": f"odd_plugins.{kind}", "hooks": ["tool_pre_invoke"]}
    path.write_text(yaml.safe_dump({"plugin_dirs": [str(PLUGINS)], "plugins": [plugin]}), encoding="utf-8")
    env = {"PLUGINS_CONFIG_PATH": str(path), **mcp.pop("env", {})}
    return {"kind": "external", "mcp": {"proto": "STDIO", "cmd": MCP_RUNTIME, "env": env, **mcp}}


def misbehaving(fault: str) -> Entry:
    """The host's entry for the program that goes wrong."""
    return {"kind": "external", "mcp": {"proto": "STDIO", "cmd": [sys.executable, str(BAD), fault]}}


async def refusal(folder: Path, entry: Entry, **local: Any) -> str:
    """Why a plugin did not start."""
    manager = manager_for(folder, entry, **local)
    before = children()
    with pytest.raises(PluginLoadError) as raised:
        await manager.initialize()
    assert children() == before
    return str(raised.value)


async def test_what_plugins_print_does_not_disturb_the_protocol(tmp_path: Path) -> None:
    async with host(tmp_path, odd(tmp_path, "Printer")) as manager:
        for _ in range(3):
            assert (await call(manager, "x")).metadata["stdin"] == ""


@pytest.mark.conformance("E15")
async def test_a_child_is_given_what_programs_need_and_no_secret_of_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "DATABASE_URL", "PLUGINS_CLIENT_MTLS_KEYFILE_PASSWORD"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("PLUGINS_TRANSPORT", "http")
    monkeypatch.setenv("PLUGINS_LOG_LEVEL", "WARNING")
    async with host(tmp_path, odd(tmp_path, "Environment", env={"API_KEY": "given"})) as manager:
        variables = (await call(manager, "x")).metadata["variables"]
    assert "hunter2" not in variables.values()
    assert (variables["API_KEY"], variables["PATH"]) == ("given", os.environ["PATH"])
    assert (variables["PLUGINS_TRANSPORT"], variables["PLUGINS_LOG_LEVEL"]) == ("stdio", "WARNING")


@pytest.mark.conformance("E15")
async def test_an_operator_can_hand_on_the_whole_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "db")
    async with host(tmp_path, odd(tmp_path, "Environment", inherit_env=True)) as manager:
        assert (await call(manager, "x")).metadata["variables"]["DATABASE_URL"] == "db"


async def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    entry = {"kind": "external", "mcp": {"proto": "STDIO", "cmd": ["no-such-server"]}}
    text = await refusal(tmp_path, entry)
    assert "cannot start `no-such-server`: No such file or directory; is it installed and on the PATH" in text


async def test_a_script_that_is_not_there_is_named(tmp_path: Path) -> None:
    entry = {"kind": "external", "mcp": {"proto": "STDIO", "script": "server.py", "cwd": str(tmp_path)}}
    assert f"Server script {tmp_path.resolve() / 'server.py'} does not exist" in await refusal(tmp_path, entry)


async def test_scripts_run_by_their_suffix(tmp_path: Path) -> None:
    entry = mcp_stdio(tmp_path, {})
    (tmp_path / "start.sh").write_text(f'exec "{sys.executable}" -m {MCP_RUNTIME[2]}\n', encoding="utf-8")
    program = tmp_path / "program"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m {MCP_RUNTIME[2]}\n', encoding="utf-8")
    program.chmod(0o755)
    runtime = Path(__file__).parents[3] / "cpex/framework/external/mcp/server/runtime.py"
    for script in (str(tmp_path / "start.sh"), str(program), str(runtime)):
        mcp = {"proto": "STDIO", "script": script, "env": entry["mcp"]["env"]}
        async with host(tmp_path, {"kind": "external", "mcp": mcp}) as manager:
            assert (await call(manager, "deny")).violation.code == "NO"


async def test_a_child_that_ends_before_its_handshake_is_quoted(tmp_path: Path) -> None:
    text = await refusal(tmp_path, misbehaving("exits"))
    assert "the server process exited with status 1" in text
    assert "last lines on its standard error: ModuleNotFoundError: No module named 'redis'" in text


async def test_a_server_of_another_protocol_version_is_refused_by_name(tmp_path: Path) -> None:
    text = await refusal(tmp_path, misbehaving("version"))
    assert "the server speaks MCP version '1999-01-01', and this end one of 2024-11-05, " in text


async def test_a_server_that_says_nothing_costs_the_time_to_initialise(tmp_path: Path) -> None:
    assert "initialize" in await refusal(tmp_path, misbehaving("silent"), initialize_timeout_s=1)


async def test_a_configuration_that_is_none_is_refused(tmp_path: Path) -> None:
    text = await refusal(tmp_path, misbehaving("config"))
    assert "Error trying to decode json: the server's answer is no JSON object; is it a plugin server?" in text


@pytest.mark.parametrize(
    ("fault", "code", "text"),
    [
        ("truncated", "external_lost", "the server process exited with status 3"),
        ("oversize", "external_too_large", "the server sent a line of more than 16,777,216 bytes"),
        ("closes", "external_lost", "the server process closed its standard output"),
        ("garbage", "JSON_DECODE_ERROR", "Error trying to decode json"),
        ("empty", "JSON_DECODE_ERROR", "Received invalid response"),
        ("refuses", "JSON_DECODE_ERROR", "the server refused the request: out of order (JSON-RPC error -32603)"),
    ],
)
async def test_an_answer_that_is_none_fails_the_call_at_once(tmp_path: Path, fault: str, code: str, text: str) -> None:
    async with host(tmp_path, misbehaving(fault), timeout_s=60) as manager:
        with pytest.raises(PluginError) as raised:
            await call(manager, "x")
    assert raised.value.error.code == code
    assert text in raised.value.error.message


async def test_how_a_child_ended_is_told_also_when_it_closes_its_output_a_while_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So long that no machine is too busy for the child to end.
    monkeypatch.setattr("cpex.framework.external.mcp.process._SILENT_S", 60)
    async with host(tmp_path, misbehaving("closes and exits"), timeout_s=90) as manager:
        with pytest.raises(PluginError, match="the server process exited with status 3"):
            await call(manager, "x")


@pytest.mark.conformance("E1")
async def test_an_answer_to_another_request_is_nobodys(tmp_path: Path) -> None:
    async with host(tmp_path, misbehaving("other-id")) as manager:
        assert (await call(manager, "x")).continue_processing is False


async def test_lines_that_are_no_messages_are_left_out_and_warned_about_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with host(tmp_path, misbehaving("chatty")):
        pass
    warned = [each.getMessage() for each in caplog.records if "standard output" in each.getMessage()]
    assert len(warned) == 1
    assert "line 0" not in caplog.text


async def test_a_server_that_asks_whether_we_are_there_is_answered(tmp_path: Path) -> None:
    async with host(tmp_path, misbehaving("asks")) as manager:
        reply = (await call(manager, "x")).metadata["reply"]
    assert reply == {"jsonrpc": "2.0", "id": "s1", "result": {}}


@pytest.mark.conformance("E2")
async def test_a_child_killed_during_calls_ends_them_at_once_and_is_started_anew(
    tmp_path: Path, others: set[int]
) -> None:
    async with host(tmp_path, mcp_stdio(tmp_path, {}), timeout_s=60) as manager:
        await call(manager, "nothing")
        (child,) = children() - others
        waiting = [asyncio.create_task(call(manager, "hang")) for _ in range(20)]
        await asyncio.gather(*(call(manager, "echo", number=n, turns=1) for n in range(20)))
        os.kill(child, signal.SIGKILL)
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert {each.error.code for each in outcomes if isinstance(each, PluginError)} == {"external_lost"}
        assert "the server process was killed by SIGKILL" in str(outcomes[0])
        assert (await call(manager, "deny")).violation.code == "NO"
        assert children().isdisjoint({child})


async def test_a_plugin_that_takes_its_process_down_is_quoted(tmp_path: Path) -> None:
    async with host(tmp_path, odd(tmp_path, "Last")) as manager:
        with pytest.raises(PluginError) as raised:
            await call(manager, "x")
    text = raised.value.error.message
    assert "the server process exited with status 7" in text
    assert "RuntimeError: the model file is damaged" in text


@pytest.mark.conformance("E23")
async def test_a_message_that_speaks_of_a_terminated_session_is_a_message(tmp_path: Path) -> None:
    async with host(tmp_path, misbehaving("words")) as manager:
        before = children()
        with pytest.raises(PluginError, match="session terminated, says the plugin"):
            await call(manager, "x")
        assert children() == before


@pytest.mark.conformance("E18")
async def test_a_frozen_child_costs_the_deadline_and_its_late_answers_are_nobodys(
    tmp_path: Path, others: set[int]
) -> None:
    async with host(tmp_path, mcp_stdio(tmp_path, {})) as manager:
        await call(manager, "nothing")
        (child,) = children() - others
        os.kill(child, signal.SIGSTOP)
        manager.executor.timeout = 1
        with pytest.raises(PluginError, match="timeout"):
            await call(manager, "echo", number=1, turns=0)
        os.kill(child, signal.SIGCONT)
        manager.executor.timeout = 60
        assert (await call(manager, "echo", number=2, turns=0)).metadata["number"] == 2


async def test_a_frozen_child_does_not_survive_the_shutdown(tmp_path: Path, others: set[int]) -> None:
    async with host(tmp_path, mcp_stdio(tmp_path, {})) as manager:
        await call(manager, "nothing")
        (child,) = children() - others
        os.kill(child, signal.SIGSTOP)
    assert children() <= others


async def test_a_cancelled_call_cancels_the_handler_on_the_server(tmp_path: Path) -> None:
    async with host(tmp_path, odd(tmp_path, "Cancelled")) as manager:
        task = asyncio.create_task(call(manager, str(tmp_path)))
        await _appears(tmp_path / "started")
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await _appears(tmp_path / "cancelled")


async def _appears(path: Path) -> None:
    async with asyncio.timeout(60):
        while not path.exists():  # noqa: ASYNC110 - another process makes it
            await asyncio.sleep(0.01)


async def test_nothing_is_left_after_the_shutdown(tmp_path: Path, others: set[int]) -> None:
    async with host(tmp_path, mcp_stdio(tmp_path, {})) as manager:
        await call(manager, "nothing")
    files, tasks = open_descriptors(), other_tasks()
    for _ in range(2):
        async with host(tmp_path, mcp_stdio(tmp_path, {})) as manager:
            await call(manager, "nothing")
            manager.executor.timeout = 0.5
            with pytest.raises(PluginError):
                await call(manager, "hang")
    assert (children() - others, other_tasks()) == (set(), tasks)
    assert len(open_descriptors()) <= len(files)
