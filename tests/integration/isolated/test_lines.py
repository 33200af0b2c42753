"""The lines of the protocol, written to our worker by hand as another host would write them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from isolated_environments import PRELUDE

import cpex.framework.isolated
from cpex.framework import PluginConfig

WORKER = Path(cpex.framework.isolated.__file__).with_name("worker.py")
TOKEN = "eyJhbGciOi.eyJzdWIiOiJhIn0.c2lnbmF0dXJl"
PLUGIN = """
import base64, logging, json
from cpex.framework.extensions import Extensions
from cpex.framework.hooks.identity import IdentityResult, DelegationResult

class Mine(Plugin):
    async def initialize(self):
        self.calls = 0

    async def tool_pre_invoke(self, payload, context, extensions):
        self.calls += 1
        behaviour = getattr(self, payload.name, None) if payload is not None else None
        if behaviour is not None:
            return await behaviour(payload, context, extensions)
        return ToolPreInvokeResult(metadata={"calls": self.calls, "none": payload is None})

    async def deny(self, payload, context, extensions):
        return denial("NO")

    async def fails(self, payload, context, extensions):
        raise ValueError("broken")

    async def nothing(self, payload, context, extensions):
        return None

    async def echo(self, payload, context, extensions):
        return ToolPreInvokeResult(modified_payload=payload)

    async def remember(self, payload, context, extensions):
        context.state["n"] = 1
        context.global_context.state["shared"] = 2
        return ToolPreInvokeResult()

    async def slots(self, payload, context, extensions):
        seen = None if extensions is None else extensions.model_dump(mode="json", exclude_none=True)
        return ToolPreInvokeResult(metadata={"seen": seen})

    async def writes(self, payload, context, extensions):
        http = extensions.http.model_copy(update={"headers": {**extensions.http.headers, "X-New": "1", "Cookie": "c"}})
        return ToolPreInvokeResult(modified_extensions=extensions.model_copy(update={"http": http}))

    async def slow(self, payload, context, extensions):
        await asyncio.sleep(600)

    async def identity_resolve(self, payload, context):
        token = payload.raw_token.get_secret_value()
        told = {"token": len(token), "stars": set(token) == {"*"}, "source": payload.source, "headers": payload.headers}
        mode = payload.headers.get("mode")
        if mode == "leak":
            print("printed", token)
            print("error", token, file=sys.stderr)
            logging.getLogger("x").warning("logged %s", token)
            logging.getLogger("x").warning("coded %s", base64.b64encode(token.encode()).decode())
        if mode == "raise":
            raise ValueError(f"cannot use {token}")
        if mode == "answer":
            told["it"] = token
        return PluginResult(metadata=told)

    async def token_delegate(self, payload, context):
        return PluginResult(metadata={"token": len(payload.bearer_token.get_secret_value())})

    async def shutdown(self):
        print("was shut down")
"""
RESULT_IMPORT = "from cpex.framework.models.result import PluginResult\n"


class Worker:
    """A worker process and its three streams."""

    def __init__(self, process: subprocess.Popen[str], folder: Path) -> None:
        self.process = process
        self.folder = folder

    def write(self, line: str) -> None:
        """Send a line."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def read(self) -> dict[str, Any]:
        """Receive a line."""
        assert self.process.stdout is not None
        answer: dict[str, Any] = json.loads(self.process.stdout.readline())
        return answer

    def ask(self, **task: Any) -> dict[str, Any]:
        """Send a task and receive a line."""
        self.write(json.dumps({"request_id": "id", **task}))
        return self.read()

    def run(self, name: str = "t", hook: str = "tool_pre_invoke", **task: Any) -> dict[str, Any]:
        """Run a hook, the payload being that of the tool hook unless another is given."""
        fields = {"payload": {"name": name, "args": {}}, "context": CONTEXT, **task}
        return self.ask(task_type="load_and_run_hook", hook_type=hook, **{**self.plugin(), **fields})

    def plugin(self, **config: Any) -> dict[str, Any]:
        """The fields that say which plugin it is about, with the few that hosts in Rust send of a configuration."""
        settings = {"name": "mine", "kind": "isolated_venv", "hooks": ["tool_pre_invoke"], "capabilities": [], **config}
        return {"plugin_dirs": [str(self.folder)], "class_name": "mine.Mine", "config": json.dumps(settings)}

    def end(self) -> tuple[int, str, str]:
        """Close the input; status, and what is left in the outputs."""
        out, err = self.process.communicate(timeout=90)
        return self.process.returncode, out, err


CONTEXT = {"state": {}, "global_context": {"request_id": "r", "state": {}}, "metadata": {}}


@contextmanager
def started(folder: Path, code: str = PLUGIN) -> Iterator[Worker]:
    """A worker in an environment without variables; no host of ours is near."""
    (folder / "mine").mkdir(exist_ok=True)
    (folder / "mine" / "__init__.py").write_text(PRELUDE + RESULT_IMPORT + code)
    process = subprocess.Popen(
        [sys.executable, str(WORKER)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env={},
        cwd=folder,
    )
    with process:
        try:
            yield Worker(process, folder)
        finally:
            if process.poll() is None:
                process.kill()


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    """A worker."""
    with started(tmp_path) as running:
        yield running


def test_the_handshake_is_answered_before_anything_but_the_standard_library_is_loaded(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", str(WORKER)],
        input='{"task_type":"capabilities","request_id":"a"}\n',
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
        cwd=tmp_path,
    )
    answer = json.loads(done.stdout)
    assert {**answer, "cpex_version": "", "features": ""} == {
        "request_id": "a",
        "status": "success",
        "protocol_version": 1,
        "features": "",
        "cpex_version": "",
    }
    assert answer["features"][:3] == ["credential", "extensions", "modified_extensions"]
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "pydantic" not in loaded
    assert "asyncio" in loaded


def test_tasks_are_answered_in_their_order_each_under_its_id(worker: Worker) -> None:
    for number, kind in enumerate(("capabilities", "info", "no such thing", "capabilities")):
        worker.write(json.dumps({"task_type": kind, "request_id": str(number), "unknown_key": 1}))
    answers = [worker.read() for _ in range(4)]
    assert [answer["request_id"] for answer in answers] == ["0", "1", "2", "3"]
    assert [answer["status"] for answer in answers] == ["success", "success", "error", "success"]
    assert answers[2]["message"] == "task type not supported."
    assert set(answers[1]["environment"]) == {"python_version", "python_executable", "platform", "installed_packages"}


def test_what_is_no_task_is_answered_under_the_id_unknown(worker: Worker) -> None:
    lines = {
        "no JSON": "Invalid JSON input: ",
        "": "Invalid JSON input: ",
        "[1]": "a task must be a JSON object",
        '{"task_type": "load_and_run_hook"}': "Unexpected error: ",
        "{}": "task type not supported.",
    }
    for line, message in lines.items():
        worker.write('{"task_type": "capabilities", "request_id": "earlier"}')
        worker.read()
        worker.write(line)
        answer = worker.read()
        assert (answer["status"], answer["request_id"]) == ("error", "unknown")
        assert answer["message"].startswith(message)


@pytest.mark.conformance("V5")
def test_a_hook_runs_in_an_instance_that_is_kept_as_long_as_its_configuration(worker: Worker) -> None:
    assert [worker.run()["metadata"]["calls"] for _ in range(2)] == [1, 2]
    other = worker.plugin(priority=7)
    assert worker.run(**other)["metadata"]["calls"] == 1
    assert worker.run(class_name="mine.Mine")["metadata"]["calls"] == 1
    status, _, errors = worker.end()
    # Two were replaced, one was left at the end.
    assert (status, errors.count("was shut down")) == (0, 3)


def test_a_plugin_of_another_class_is_another_plugin(worker: Worker) -> None:
    assert worker.run()["metadata"]["calls"] == 1
    answer = worker.run(class_name="mine.Other")
    assert answer["message"] == "Unexpected error: ImportError('module `mine` has no plugin class `Other`')"


def test_a_hook_that_succeeds_is_answered_with_its_result_and_without_a_status(worker: Worker) -> None:
    answer = worker.run("deny")
    assert "status" not in answer
    assert next(iter(answer)) == "request_id"
    expected = (
        "continue_processing modified_payload modified_extensions violation metadata denial_metadata http_headers"
    )
    assert set(expected.split()) | {"retry_delay_ms", "executions"} <= set(answer)
    assert (answer["continue_processing"], answer["violation"]["code"]) == (False, "NO")


@pytest.mark.conformance("V16")
def test_denials_and_failures_are_told_whatever_the_mode(worker: Worker) -> None:
    for mode, on_error in (("audit", "ignore"), ("transform", "disable"), ("fire_and_forget", "fail")):
        fields = worker.plugin(mode=mode, on_error=on_error)
        assert worker.run("deny", **fields)["continue_processing"] is False
        failed = worker.run("fails", **fields)
        assert failed["message"] == "Unexpected error: ValueError('broken')"
        assert failed["error"]["message"] == "ValueError('broken')"


def test_an_answer_of_nothing_is_a_failure(worker: Worker) -> None:
    answer = worker.run("nothing")
    assert answer["status"] == "error"
    assert "returned NoneType" in answer["message"]


def test_a_payload_of_null_reaches_the_plugin_as_none(worker: Worker) -> None:
    assert worker.run(payload=None)["metadata"]["none"] is True


def test_an_untouched_payload_that_comes_back_is_no_change(worker: Worker) -> None:
    assert worker.run("echo")["modified_payload"] is None


@pytest.mark.conformance("V15")
def test_a_context_is_mandatory_and_its_changes_come_back(worker: Worker) -> None:
    assert worker.run(context=None)["message"] == "Unexpected error: ValueError('the task has no context')"
    assert "context" not in worker.run()
    answer = worker.run("remember")
    assert answer["context"] == {"state": {"n": 1}, "global_context": {"state": {"shared": 2}}}


def test_messages_of_the_common_format_are_known_without_the_plugins_help(worker: Worker) -> None:
    answer = worker.run(hook="cmf.tool_pre_invoke", payload={"message": {"role": "user", "content": []}})
    assert "has no hook 'cmf.tool_pre_invoke'" in answer["message"]


def test_a_class_name_that_is_none_is_refused(worker: Worker) -> None:
    for name in ("os.system", "subprocess.Popen", "../x.Y", "Mine"):
        assert "ImportError" in worker.run(class_name=name)["message"]


def test_a_folder_that_does_not_exist_is_named(worker: Worker) -> None:
    assert "does not exist." in worker.run(plugin_dirs=[str(worker.folder / "absent")])["message"]


def test_an_unreadable_configuration_is_an_error_that_names_no_values(worker: Worker) -> None:
    answer = worker.run(config='{"name": "mine", "kind": "isolated_venv", "capabilities": ["fly"]}')
    assert answer["status"] == "error"


# Limits.


def padded(worker: Worker, size: int, limit: int) -> str:
    task = {"request_id": "id", "task_type": "load_and_run_hook", "hook_type": "tool_pre_invoke", "context": CONTEXT}
    task |= {**worker.plugin(max_content_size=limit), "payload": {"name": "t", "args": {}}, "pad": ""}
    return json.dumps({**task, "pad": "x" * (size - len(json.dumps(task)))})


@pytest.mark.conformance("V9")
def test_a_line_of_exactly_the_limit_passes_and_a_longer_one_is_answered_under_its_id(worker: Worker) -> None:
    worker.write(padded(worker, 3000, 3000))
    assert worker.read()["continue_processing"] is True
    worker.write(padded(worker, 3000, 3000))
    assert worker.read()["continue_processing"] is True
    worker.write(padded(worker, 3001, 3000))
    refused = worker.read()
    assert (refused["message"], refused["request_id"]) == ("Task line exceeds max content size", "id")
    worker.write(padded(worker, 2_000_000, 3000))
    assert worker.read()["message"] == "Task line exceeds max content size"
    worker.write(padded(worker, 2000, 3000))
    assert worker.read()["continue_processing"] is True


# Extensions.


def seen(worker: Worker, extensions: Any, *capabilities: str) -> Any:
    fields = worker.plugin(capabilities=list(capabilities))
    return worker.run("slots", extensions=extensions, **fields)["metadata"]["seen"]


def test_extensions_are_filtered_by_the_capabilities_of_the_configuration(worker: Worker) -> None:
    sent = {"http": {"headers": {"A": "1"}}, "custom": {"k": 1}}
    assert seen(worker, sent) == {"custom": {"k": 1}}
    assert seen(worker, sent, "read_headers") == {"http": {"headers": {"A": "1"}}, "custom": {"k": 1}}
    assert seen(worker, None) is None


def test_a_slot_that_is_unknown_or_invalid_is_left_out_and_the_others_stay(worker: Worker) -> None:
    sent = {"raw_credentials": {"token": "x"}, "security": {"labels": 7}, "custom": {"k": 1}}
    assert seen(worker, sent) == {"custom": {"k": 1}}
    assert seen(worker, "no object") is None


@pytest.mark.conformance("V8", "V18")
def test_the_header_map_of_another_build_is_read_and_written(worker: Worker) -> None:
    http = {"request_headers": {"A": "1", "Authorization": "Bearer x"}, "response_headers": {"B": "2"}, "path": "/p"}
    assert seen(worker, {"http": http}, "read_headers")["http"]["headers"]["A"] == "1"
    fields = worker.plugin(capabilities=["read_headers", "write_headers"])
    returned = worker.run("writes", extensions={"http": http}, **fields)["modified_extensions"]["http"]
    # What may not cross does not cross, neither what the host sent nor what the plugin made.
    headers = {"A": "1", "X-New": "1"}
    assert returned == {"headers": headers, "request_headers": headers, "response_headers": {"B": "2"}, "path": "/p"}


# Credentials.


def identity(worker: Worker, credential: Any, **payload: Any) -> dict[str, Any]:
    fields = {"raw_token": "**********", **payload}
    return worker.run(hook="identity_resolve", payload=fields, credential=credential)


def inbound(**fields: Any) -> dict[str, Any]:
    return {"inbound": {"token": TOKEN, "source_header": "authorization", "kind": "jwt", **fields}}


def test_a_credential_takes_the_place_of_its_mask(worker: Worker) -> None:
    told = identity(worker, inbound())["metadata"]
    headers = {"authorization": "**********"}
    assert told == {"token": len(TOKEN), "stars": False, "source": "bearer", "headers": headers}
    told = identity(worker, inbound(kind="txn_token", headers={"a": f"Bearer {TOKEN}", "b": {TOKEN: 1}}))["metadata"]
    assert told["source"] == "custom"
    assert told["headers"] == {"a": "Bearer **********", "b": '{"**********": 1}'}
    assert identity(worker, inbound(), source="mtls")["metadata"]["source"] == "mtls"
    assert identity(worker, None)["metadata"]["stars"] is True


def test_a_delegated_credential_reaches_the_hook_about_it(worker: Worker) -> None:
    sent = {"delegated": {"token": TOKEN, "scopes": ["a"]}}
    answer = worker.run(hook="token_delegate", payload={"target_name": "t"}, credential=sent)
    assert answer["metadata"] == {"token": len(TOKEN)}


def test_other_hooks_ignore_a_credential(worker: Worker) -> None:
    assert worker.run("deny", credential="nonsense")["violation"]["code"] == "NO"


def test_a_credential_of_another_form_fails_the_call(worker: Worker) -> None:
    wrong: list[tuple[Any, str]] = [
        ("text", "not an object"),
        ({}, "missing or not an object"),
        ({"inbound": 7}, "missing or not an object"),
        ({"inbound": {}}, "missing or empty"),
        ({"inbound": {"token": " "}}, "missing or empty"),
        ({"inbound": {"token": 7}}, "missing or empty"),
    ]
    for credential, phrase in wrong:
        answer = identity(worker, credential)
        assert answer["message"].startswith("Credential reconstruction failed: ")
        assert phrase in answer["message"]


def test_a_token_stays_out_of_what_the_plugin_prints_logs_and_raises(worker: Worker) -> None:
    assert identity(worker, inbound(), headers={"mode": "leak"})["metadata"]["token"] == len(TOKEN)
    failed = identity(worker, inbound(), headers={"mode": "raise"})
    assert failed["message"] == "Unexpected error: RuntimeError(\"ValueError('cannot use **********')\")"
    echoed = identity(worker, inbound(), headers={"mode": "answer"})
    assert echoed["message"] == "Credential reconstruction failed: the plugin result echoed the inbound credential"
    # Nothing is kept between two calls.
    assert identity(worker, None, headers={"mode": "leak"})["metadata"]["stars"] is True
    _, out, err = worker.end()
    assert TOKEN not in json.dumps(failed) + json.dumps(echoed) + out + err
    assert "[printed by the plugin] printed **********" in err
    for text in ("error **********", "logged **********", "coded **********"):
        assert text in err


def test_a_short_token_is_delivered_and_never_looked_for(worker: Worker) -> None:
    answer = identity(worker, inbound(token="short"), headers={"mode": "answer"})
    assert answer["metadata"]["it"] == "short"


# Ends.


def test_a_worker_ends_when_it_is_told_to(worker: Worker) -> None:
    worker.run()
    answer = worker.ask(task_type="shutdown", request_id="shutdown")
    assert (answer["status"], answer["request_id"]) == ("success", "shutdown")
    status, out, err = worker.end()
    assert (status, out) == (0, "")
    assert "was shut down" in err


def test_a_worker_ends_with_its_host(worker: Worker) -> None:
    worker.run()
    assert worker.end()[:2] == (0, "")


def test_a_worker_ends_with_its_host_even_if_plugin_code_never_returns(tmp_path: Path) -> None:
    code = PLUGIN + "\n    async def spin(self, payload, context, extensions):\n        while True: pass\n"
    with started(tmp_path, code) as worker:
        worker.write(
            json.dumps(
                {
                    "request_id": "a",
                    "task_type": "load_and_run_hook",
                    "hook_type": "tool_pre_invoke",
                    "payload": {"name": "spin", "args": {}},
                    "context": CONTEXT,
                    **worker.plugin(),
                }
            )
        )
        # As the end of a process closes everything that it held.
        for stream in (worker.process.stdin, worker.process.stdout):
            assert stream is not None
            stream.close()
        assert worker.process.wait(timeout=90) == 0


def test_what_was_asked_before_the_input_ended_is_answered(tmp_path: Path) -> None:
    with started(tmp_path) as worker:
        for number in range(3):
            fields = {**worker.plugin(), "payload": {"name": "deny"}, "context": CONTEXT, "request_id": str(number)}
            worker.write(json.dumps({"task_type": "load_and_run_hook", "hook_type": "tool_pre_invoke", **fields}))
        status, out, _ = worker.end()
        assert status == 0
        assert [json.loads(line)["request_id"] for line in out.splitlines()] == ["0", "1", "2"]


def test_tasks_may_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "tasks").write_text('{"task_type": "capabilities", "request_id": "a"}\n{"task_type": "x"}\n')
    with open(tmp_path / "tasks") as tasks, open(tmp_path / "answers", "w") as answers:
        subprocess.run([sys.executable, str(WORKER)], stdin=tasks, stdout=answers, timeout=90, check=True, cwd=tmp_path)
    lines = (tmp_path / "answers").read_text().splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["success", "error"]


def test_calls_of_a_host_that_asks_for_it_run_side_by_side_and_can_be_ended(worker: Worker) -> None:
    assert worker.ask(task_type="load_plugin", **worker.plugin())["hooks"] == {"tool_pre_invoke": True}
    task = {"task_type": "load_and_run_hook", "hook_type": "tool_pre_invoke", "context": CONTEXT, "side_by_side": True}
    worker.write(json.dumps({**task, "request_id": "slow", "payload": {"name": "slow"}}))
    worker.write(json.dumps({**task, "request_id": "fast", "payload": {"name": "deny"}}))
    assert worker.read()["request_id"] == "fast"
    answer = worker.ask(task_type="cancel", target="slow", request_id="sign")
    assert (answer["request_id"], answer["status"]) == ("sign", "success")
    assert worker.end()[:2] == (0, "")


def test_the_configuration_of_a_host_of_ours_is_understood(worker: Worker) -> None:
    full = PluginConfig(name="mine", kind="isolated_venv", hooks=["tool_pre_invoke"], timeout_s=3).model_dump_json()
    assert worker.run(config=full)["continue_processing"] is True
