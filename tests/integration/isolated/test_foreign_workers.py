"""What happens to callers of workers that are not ours: older, newer, broken, garrulous. Each is a real process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from integration.isolated.specimens import failure
from isolated_environments import host, invoke, isolated, pid_of, with_worker

from cpex.framework import PluginError
from cpex.framework.clock import FixedClock, now, use_clock
from cpex.framework.errors import PluginLoadError


async def scripted(tmp_path: Path, script: str, **fields: Any) -> Any:
    """A plugin whose worker is a script."""
    config, folder = isolated(tmp_path, "", **fields)
    with_worker(config, folder, script)
    return host(config, folder)


GARBAGE = """
for number, task in enumerate(tasks()):
    if number == 0:
        print("not JSON")
        print("[]")
        print('{"request_id": 7}')
        print('{"request_id": "of nobody", "continue_processing": true}')
        sys.stdout.buffer.write(b"\\xff\\xfe\\n")
        sys.stdout.flush()
    tell(task, continue_processing=False, violation={"reason": "r", "description": "d", "code": "MINE"})
"""


async def test_lines_that_are_no_answers_are_skipped(tmp_path: Path) -> None:
    async with await scripted(tmp_path, GARBAGE) as manager:
        for _ in range(2):
            result = await invoke(manager)
            assert result.violation is not None
            assert result.violation.code == "MINE"


TRUNCATED = """
for number, task in enumerate(tasks()):
    if number == 0:
        print('{"request_id": "%s", "continue_proc' % task["request_id"], flush=True)
    else:
        tell(task, **ALLOW)
"""


async def test_an_answer_that_is_cut_off_fails_its_call_at_once(tmp_path: Path) -> None:
    async with await scripted(tmp_path, TRUNCATED) as manager:
        with pytest.raises(PluginError, match="gave an answer that is cut off, or is not JSON"):
            await invoke(manager)
        assert (await invoke(manager)).continue_processing


HALF = """
for task in tasks():
    sys.stdout.write('{"request_id": "%s", "continue_processing": true' % task["request_id"])
    sys.stdout.flush()
    os._exit(0)
"""


async def test_an_answer_that_never_ends_is_none(tmp_path: Path) -> None:
    async with await scripted(tmp_path, HALF) as manager:
        with pytest.raises(PluginError) as raised:
            await invoke(manager)
        assert failure(raised) == ("worker_gone", "the worker of plugin `mine` ended with status 0")


OVERSIZE = """
for number, task in enumerate(tasks()):
    tell(task, **ALLOW, metadata={"text": "x" * (20000 if number == 0 else 1)})
"""


async def test_a_line_over_the_limit_fails_whom_it_was_meant_for(tmp_path: Path) -> None:
    async with await scripted(tmp_path, OVERSIZE, max_content_size=10000) as manager:
        with pytest.raises(PluginError) as raised:
            await invoke(manager)
        assert failure(raised) == (
            "worker_answer",
            "the worker of plugin `mine` answered with 20109 bytes, more than the 10000 that the plugin's "
            "`max_content_size` allows",
        )
        assert (await invoke(manager)).continue_processing


NO_DECISION = """
for task in tasks():
    tell(task, status="success")
"""


@pytest.mark.conformance("V6")
async def test_an_answer_without_a_decision_is_no_allow(tmp_path: Path) -> None:
    async with await scripted(tmp_path, NO_DECISION) as manager:
        with pytest.raises(PluginError, match="answered hook tool_pre_invoke without a decision"):
            await invoke(manager)


FALSE = """
for task in tasks():
    tell(task, continue_processing="false")
"""


@pytest.mark.conformance("V6")
async def test_a_decision_of_false_as_text_is_no_allow(tmp_path: Path) -> None:
    async with await scripted(tmp_path, FALSE) as manager:
        assert (await invoke(manager)).continue_processing is False


ONE_AT_A_TIME = """
for task in tasks():
    if task["payload"]["name"] == "stuck":
        time.sleep(600)
    tell(task, **ALLOW, metadata={"pid": os.getpid()})
"""


@pytest.mark.conformance("V10")
async def test_an_older_worker_that_is_stuck_is_replaced_at_the_deadline_of_the_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await scripted(tmp_path, ONE_AT_A_TIME, config={"timeout_secs": 1}) as manager:
        first = pid_of(manager)
        with pytest.raises(PluginError) as raised:
            await invoke(manager, "stuck")
        assert failure(raised) == (
            "worker_timeout",
            "Worker process timed out after 1.0 seconds: the worker of plugin `mine` did not answer in time",
        )
        # Another interpreter starts within the next call, which may take longer than a second here.
        monkeypatch.setattr(manager.get_plugin("mine"), "_call_limit", lambda: 60.0)
        result = await invoke(manager)
        assert result.metadata is not None
        assert result.metadata["pid"] == pid_of(manager) != first


SILENT = """
print("half a worker", file=sys.stderr, flush=True)
os.close(1)
time.sleep(600)
"""


async def test_a_worker_that_closes_its_output_is_ended(tmp_path: Path) -> None:
    with pytest.raises(PluginLoadError) as raised:
        async with await scripted(tmp_path, SILENT):
            raise AssertionError("it cannot start")
    assert str(raised.value) == (
        "Plugin initialization failed: mine - Failed to start worker process of plugin `mine`: the worker of plugin "
        "`mine` was ended: it closed its standard output; its last lines on standard error:\n  half a worker"
    )


BROKEN = "import redis_of_nobody\n"


async def test_a_worker_that_ends_before_its_handshake_stops_the_start_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(PluginLoadError) as raised:
        async with await scripted(tmp_path, BROKEN):
            raise AssertionError("it cannot start")
    assert "Failed to start worker process of plugin `mine`: the worker of plugin `mine` ended with status 1" in str(
        raised.value
    )
    assert str(raised.value).endswith("ModuleNotFoundError: No module named 'redis_of_nobody'")


ANCIENT = """
for line in sys.stdin:
    task = json.loads(line)
    if task["task_type"] == "capabilities":
        tell(task, status="error", message="task type not supported.")
    else:
        tell(task, **ALLOW)
"""


async def test_a_worker_that_knows_no_handshake_is_used_without_features(tmp_path: Path) -> None:
    async with await scripted(tmp_path, ANCIENT) as manager:
        assert (await invoke(manager)).continue_processing


@pytest.mark.conformance("V20")
async def test_a_plugin_that_needs_what_the_worker_lacks_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(PluginLoadError, match="its `capabilities` need a worker that knows `extensions`"):
        async with await scripted(tmp_path, ANCIENT, capabilities=["read_headers"]):
            raise AssertionError("it cannot start")


NEWER = """
for line in sys.stdin:
    tell(json.loads(line), status="success", protocol_version=2, features=[])
"""


async def test_a_worker_of_another_protocol_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PluginLoadError) as raised:
        async with await scripted(tmp_path, NEWER):
            raise AssertionError("it cannot start")
    assert str(raised.value) == (
        "Plugin initialization failed: mine - Failed to start worker process of plugin `mine`: the worker of plugin "
        "`mine` speaks version 2 of the protocol, and this host version 1; let the plugin's requirements file ask for "
        "a `cpex` of this host's age"
    )


async def test_a_worker_whose_interpreter_is_gone_is_named(tmp_path: Path) -> None:
    async with await scripted(tmp_path, DIES_ALWAYS) as manager:
        python = tmp_path / "plugins" / "mine" / ".venv" / "bin" / "python"
        python.rename(python.with_name("gone"))
        with pytest.raises(PluginError, match="ended with status 7"):
            await invoke(manager)
        with pytest.raises(PluginError) as raised:
            await invoke(manager)
        assert failure(raised) == (
            "worker_gone",
            f"the worker of plugin `mine` cannot be started: `{python}`: No such file or directory; start the host "
            "anew, so that the environment is built again",
        )
        python.with_name("gone").rename(python)
        with pytest.raises(PluginError, match="ended with status 7"):
            await invoke(manager)


DIES_ALWAYS = """
for task in tasks():
    os._exit(7)
"""


async def test_a_worker_that_always_dies_is_started_a_few_times_and_then_left_alone(
    tmp_path: Path,
) -> None:
    clock = FixedClock(now())
    with use_clock(clock):
        async with await scripted(tmp_path, DIES_ALWAYS) as manager:
            for _ in range(4):
                with pytest.raises(PluginError, match="ended with status 7"):
                    await invoke(manager)
            with pytest.raises(PluginError) as raised:
                await invoke(manager)
            assert failure(raised) == (
                "worker_gone",
                "the worker of plugin `mine` was started 4 times without one good answer; the next attempt is due in "
                "60s; the last failure: it ended",
            )
            clock.advance(61)
            with pytest.raises(PluginError, match="ended with status 7"):
                await invoke(manager)
