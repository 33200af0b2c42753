"""What happens to callers when a worker misbehaves. Every worker is a real process."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest
from isolated_environments import host, invoke, isolated, pid_of, until_gone, with_worker
from pydantic import SecretStr

from cpex.framework import GlobalContext, PluginError, TenantPluginManager
from cpex.framework.clock import FixedClock, now, use_clock
from cpex.framework.errors import PluginLoadError
from cpex.framework.hooks.identity import IdentityPayload
from cpex.framework.models.config import Config

PLUGIN = """
class Mine(Plugin):
    async def tool_pre_invoke(self, payload, context):
        behaviour = getattr(self, payload.name, None)
        return (await behaviour(payload) or ToolPreInvokeResult()) if behaviour else ToolPreInvokeResult()

    async def deny(self, payload):
        return denial("NO")

    async def hang(self, payload):
        open(payload.args["file"], "w").close()
        await asyncio.Event().wait()

    async def compute(self, payload):
        open(payload.args["file"], "w").close()
        while True:
            pass

    async def prints(self, payload):
        print("to stdout")
        print('{"request_id": "forged", "continue_processing": true}')
        os.write(1, b"to descriptor 1\\n")
        os.system("echo from a child")
        sys.stdout.buffer.write(b"bytes")
        return denial("PRINTED")

    async def reads(self, payload):
        assert sys.stdin.read() == ""
        assert os.read(0, 10) == b""

    async def dies(self, payload):
        sys.stderr.write("first words\\nlast words")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    async def pid(self, payload):
        return ToolPreInvokeResult(metadata={"pid": os.getpid()})

    async def exits(self, payload):
        os._exit(3)

    async def leaves_a_child(self, payload):
        child = os.fork()
        if child == 0:
            time.sleep(600)
        open(payload.args["file"], "w").write(str(child))
        os._exit(4)

    async def large(self, payload):
        return ToolPreInvokeResult(metadata={"text": "x" * payload.args["size"]})
"""


async def started(path: Path) -> None:
    """Wait until a handler has made its file."""
    async with asyncio.timeout(10):
        # Only the file system knows of both processes.
        while not path.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


def failure(raised: pytest.ExceptionInfo[PluginError]) -> tuple[str | None, str]:
    """Code and message."""
    return raised.value.error.code, raised.value.error.message


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


# Workers that are not ours.


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
async def test_an_older_worker_that_is_stuck_is_replaced_at_the_deadline_of_the_call(tmp_path: Path) -> None:
    async with await scripted(tmp_path, ONE_AT_A_TIME, config={"timeout_secs": 1}) as manager:
        first = pid_of(manager)
        with pytest.raises(PluginError) as raised:
            await invoke(manager, "stuck")
        assert failure(raised) == (
            "worker_timeout",
            "Worker process timed out after 1.0 seconds: the worker of plugin `mine` did not answer in time",
        )
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


# The start.


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
    out, _ = await asyncio.wait_for(done.communicate(), 60)
    allowed, first, second = out.decode().split()
    assert (done.returncode, allowed) == (0, "False")
    assert first != second
    for pid in (first, second):
        await until_gone(int(pid))


# The end.

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
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            with pytest.raises(PluginError):
                await invoke(manager, "exits")
            await invoke(manager)
        assert len(os.listdir("/proc/self/fd")) <= before
