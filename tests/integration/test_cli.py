"""The program, as a process: what it prints, where, and how it ends."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import ROOT

PAGE = ROOT / "docs" / "reference" / "cli.md"
CPEX = [sys.executable, "-m", "cpex.tools.cli"]
TIMEOUT_S = 180

PLUGINS = """\
import asyncio

from cpex.framework import Plugin, PluginResult, PluginViolation


class Guard(Plugin):
    async def tool_pre_invoke(self, payload, context):
        print("a plugin prints")
        if payload.name == "deny":
            violation = PluginViolation(reason="not this", description="Never.", code="NOT_THIS")
            return PluginResult(continue_processing=False, violation=violation)
        if payload.name == "exit":
            raise SystemExit(0)
        if payload.name == "crash":
            raise RuntimeError("boom")
        if payload.name == "redact":
            return PluginResult(modified_payload=payload.model_copy(update={"args": {"card": "[CARD]"}}))
        return PluginResult()


class Late(Plugin):
    async def tool_pre_invoke(self, payload, context):
        await asyncio.sleep(0.2)
        with open("late.txt", "a") as file:
            file.write("ended\\n")
        return PluginResult()


class Absent(Plugin):
    async def initialize(self):
        raise OSError("no connection")

    async def shutdown(self):
        with open("shutdown.txt", "w") as file:
            file.write("clean")
"""
CONFIG = """\
plugin_dirs: [.]
plugins:
  - {name: guard, kind: e_guard.Guard, hooks: [tool_pre_invoke]}
"""


def call(name: str, **keys: Any) -> str:
    return json.dumps({"hook": "tool_pre_invoke", "payload": {"name": name, "args": {"card": "4111"}}, **keys}) + "\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "e_guard.py").write_text(PLUGINS)
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "", "COLUMNS": "100", "NO_COLOR": "1", **more}


def cpex(folder: Path, *arguments: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*CPEX, *arguments],
        cwd=folder,
        input=stdin,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment(**variables),
        check=False,
    )


def test_the_version_is_told_without_loading_the_engine(folder: Path) -> None:
    done = cpex(folder, "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"cpex \d+\.\d+\.\d+\n", done.stdout)
    code = "import sys, cpex.tools.cli; print(*({'rich.table', 'cpex.framework.manager'} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=TIMEOUT_S)
    assert loaded.stdout == "\n"


@pytest.mark.parametrize(
    ("events", "options", "code"),
    [
        ([call("ok")], [], 0),
        ([call("deny")], [], 0),
        ([call("deny")], ["--fail-on-deny"], 5),
        ([call("ok")], ["--fail-on-deny"], 0),
        ([call("ok"), "{\n"], [], 1),
        ([call("crash")], [], 1),
        ([call("crash"), call("deny"), "{\n"], ["--fail-on-deny"], 5),
        ([], [], 0),
    ],
)
def test_the_exit_code_tells_how_a_run_ended(folder: Path, events: list[str], options: list[str], code: int) -> None:
    assert cpex(folder, "run", "-", "-c", "c.yaml", *options, stdin="".join(events)).returncode == code


def test_decisions_are_all_that_goes_to_standard_output(folder: Path) -> None:
    done = cpex(folder, "run", "-", "-c", "c.yaml", "--out", "-", stdin=call("redact") + "{\n" + call("deny"))
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["event"], first["changes"]) == (1, [{"op": "replace", "path": "/args/card", "value": "[CARD]"}])
    assert (second["event"], second["violation"]["code"]) == (3, "NOT_THIS")
    assert "4111" not in done.stdout + done.stderr
    assert "a plugin prints" in done.stderr
    assert "error: line 2: no valid JSON" in done.stderr
    assert "2 events" in done.stderr


def test_what_was_removed_is_written_only_on_request(folder: Path) -> None:
    done = cpex(folder, "run", "-", "-c", "c.yaml", "--out", "-", "--show-removed", stdin=call("redact"))
    assert json.loads(done.stdout)["changes"][0]["removed"] == "4111"


def test_the_summary_is_one_json_document(folder: Path) -> None:
    (folder / "events.jsonl").write_text(call("ok") + call("deny") + "[]\n")
    done = cpex(folder, "run", "events.jsonl", "-c", "c.yaml", "--json", "--out", "decisions.jsonl")
    summary = json.loads(done.stdout)
    assert (summary["events"], summary["allowed"], summary["denied"], summary["bad_lines"]) == (2, 1, 1, 1)
    decisions = (folder / "decisions.jsonl").read_text().splitlines()
    assert [json.loads(line)["config"] for line in decisions] == [summary["config"]] * 2


def test_background_plugins_are_waited_for(folder: Path) -> None:
    late = "  - {name: late, kind: e_guard.Late, mode: fire_and_forget, hooks: [tool_pre_invoke]}\n"
    (folder / "c.yaml").write_text(CONFIG + late)
    done = cpex(folder, "run", "-", "-c", "c.yaml", "--out", "-", stdin=call("ok") * 3)
    assert (folder / "late.txt").read_text() == "ended\n" * 3
    records = [json.loads(line)["plugins"][1] for line in done.stdout.splitlines()]
    assert all(record["status"] == "completed" and record["duration_us"] >= 200_000 for record in records)


@pytest.mark.parametrize(
    ("config", "arguments", "text"),
    [
        (
            CONFIG,
            ["nowhere.jsonl"],
            "events file `nowhere.jsonl` cannot be read: no such file or directory [events-unreadable]",
        ),
        (CONFIG, ["."], "events file `.` cannot be read: it is a folder [events-unreadable]"),
        (CONFIG, ["-", "--out", "no/where"], "decisions cannot be written to `no/where`: no such file or directory"),
        (CONFIG + "nonsense: 1\n", ["-"], "unknown key `nonsense`"),
        (
            CONFIG + "  - {name: absent, kind: e_guard.Absent, hooks: []}\n",
            ["-"],
            "plugin `absent` did not start: OSError: no connection [plugin-start]\n  at c.yaml:4:5",
        ),
    ],
)
def test_a_run_that_cannot_begin_says_why(folder: Path, config: str, arguments: list[str], text: str) -> None:
    (folder / "c.yaml").write_text(config)
    done = cpex(folder, "run", *arguments, "-c", "c.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert f"error: {text}" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the device that is always full is Linux's")
def test_a_full_disk_breaks_the_run_off_and_says_where_to_make_room(folder: Path) -> None:
    done = cpex(folder, "run", "-", "-c", "c.yaml", "--out", "/dev/full", stdin=call("ok"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "the run broke off after 1 events: no space left on device [run-broken-off]" in done.stderr
    assert "help: make room where `--out` writes; the last line there may be torn" in done.stderr


def test_a_plugin_that_exits_does_not_make_a_run_look_like_a_success(folder: Path) -> None:
    done = cpex(folder, "run", "-", "-c", "c.yaml", stdin=call("ok") + call("exit") + call("deny"))
    assert done.returncode == 1
    assert "error: the run broke off after 1 events: a plugin called sys.exit() [run-broken-off]" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plugin_that_may_be_missing_is_named_and_the_run_goes_on(folder: Path) -> None:
    (folder / "c.yaml").write_text(CONFIG + "  - {name: absent, kind: e_guard.Absent, hooks: [], on_error: ignore}\n")
    done = cpex(folder, "run", "-", "-c", "c.yaml", stdin=call("ok"))
    assert done.returncode == 0
    assert "warning: plugin `absent` did not start: OSError: no connection [plugin-start]" in done.stderr
    assert "note: plugin `absent` did not start, and the run went on without it" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "-", "-c", "c.yaml", "--json", "--out", "-"],
        ["run", "c.yaml", "-c", "c.yaml", "--out", "c.yaml"],
        ["run", "-"],
        ["run", "-", "-c", "c.yaml", "--colour"],
        ["check"],
        ["plan", "c.yaml", "--json", "--mermaid"],
        ["plan", "c.yaml", "--hook", "tool_pre_invok"],
        ["chek"],
    ],
)
def test_a_call_that_means_nothing_is_a_usage_error(folder: Path, arguments: list[str]) -> None:
    done = cpex(folder, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error" in done.stderr
    assert (folder / "c.yaml").read_text() == CONFIG


def _hear_ctrl_c() -> None:
    """What is started in the background inherits that Ctrl-C is ignored, and these tests may be."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture
def running(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A run that has judged one event and waits for the next."""
    command = [*CPEX, "run", "-", "-c", "c.yaml", "--out", "-"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(
        command, cwd=folder, text=True, env=environment(), preexec_fn=_hear_ctrl_c, **pipes
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(call("ok"))
        process.stdin.flush()
        assert json.loads(process.stdout.readline())["event"] == 1
        yield process
        process.kill()


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl_c", "sigterm"])
def test_a_signal_ends_a_run_cleanly_with_its_summary(
    running: subprocess.Popen[str], sent: signal.Signals, code: int
) -> None:
    running.send_signal(sent)
    # Waited for with its input still open: at the end of that it would end by itself.
    running.wait(TIMEOUT_S)
    out, err = running.communicate(timeout=TIMEOUT_S)
    assert (running.returncode, out) == (code, "")
    assert "1 event in" in err
    assert "until it was interrupted" in err
    assert "Traceback" not in err


def test_sigterm_while_plugins_start_ends_the_run_without_a_traceback(folder: Path) -> None:
    (folder / "slow_start.py").write_text(
        "import asyncio\n"
        "from cpex.framework import Plugin\n"
        "class Slow(Plugin):\n"
        "    async def initialize(self):\n"
        "        print('starting', flush=True)\n"
        "        await asyncio.Event().wait()\n"
    )
    (folder / "slow.yaml").write_text(
        "plugin_dirs: [.]\nplugins:\n- {name: slow, kind: slow_start.Slow, hooks: [tool_pre_invoke]}\n"
    )
    command = [*CPEX, "run", "-", "-c", "slow.yaml"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, cwd=folder, text=True, env=environment(), **pipes) as process:
        assert process.stderr is not None
        while (line := process.stderr.readline()) and "starting" not in line:
            pass
        process.send_signal(signal.SIGTERM)
        process.wait(TIMEOUT_S)
        out, err = process.communicate(timeout=TIMEOUT_S)
    assert (process.returncode, out) == (143, "")
    assert "Traceback" not in err


def test_a_reader_that_leaves_is_no_error(running: subprocess.Popen[str]) -> None:
    assert running.stdin is not None
    assert running.stdout is not None
    running.stdout.close()
    running.stdin.write(call("ok"))
    running.stdin.flush()
    assert running.wait(timeout=TIMEOUT_S) == 141
    assert running.stderr is not None
    assert "Traceback" not in running.stderr.read()


def test_check_and_plan_keep_what_plugins_print_out_of_their_documents(folder: Path) -> None:
    (folder / "e_guard.py").write_text("print('imported')\n" + PLUGINS)
    checked = cpex(folder, "check", "c.yaml", "nowhere.yaml", "--json")
    assert checked.returncode == 1
    assert [file["ok"] for file in json.loads(checked.stdout)["files"]] == [True, False]
    assert "imported" in checked.stderr
    planned = cpex(folder, "plan", "c.yaml", "--json")
    assert planned.returncode == 0
    (hook,) = json.loads(planned.stdout)["hooks"]
    assert (hook["hook"], [step["plugin"] for step in hook["steps"]]) == ("tool_pre_invoke", ["guard"])


def test_check_tells_of_a_redactor_whose_mode_lets_nothing_change(folder: Path) -> None:
    entry = "{name: pii, kind: privacy.PIIRedactionPlugin, mode: audit, hooks: [tool_pre_invoke]}"
    (folder / "c.yaml").write_text(f"plugins: [{entry}]\n")
    done = cpex(folder, "check", "c.yaml")
    assert (done.returncode, done.stdout) == (0, "c.yaml: ok, 1 plugin\n")
    assert done.stderr == (
        "warning: Plugin 'pii' has `action: redact` and changes nothing in mode audit; "
        "for it to act, use mode transform or sequential\n"
    )


def test_plan_tells_the_faults_of_a_configuration(folder: Path) -> None:
    (folder / "c.yaml").write_text(CONFIG.replace("e_guard.Guard", "e_guard.Gard"))
    done = cpex(folder, "plan", "c.yaml")
    assert (done.returncode, done.stdout) == (1, "")
    assert "c.yaml:3:25" in done.stderr
    assert cpex(folder, "plan", "c.yaml", "--no-import").returncode == 0


@pytest.mark.parametrize(
    ("variable", "value", "must"),
    [
        ("PLUGINS_CLI_MARKUP_MODE", "colourful", "must be 'markdown', 'rich' or 'disabled'"),
        ("PLUGINS_DEFAULT_HOOK_POLICY", "sesame", "must be 'allow' or 'deny'"),
        ("PLUGINS_LOG_LEVEL", "loud", "must be DEBUG, INFO, WARNING, ERROR or CRITICAL"),
        ("PLUGINS_STRICT_CONFIG", "perhaps", "must be a valid boolean"),
    ],
)
@pytest.mark.conformance("P26")
def test_a_variable_that_is_wrong_is_named_without_its_value(
    folder: Path, variable: str, value: str, must: str
) -> None:
    done = cpex(folder, "run", "-", "-c", "c.yaml", stdin=call("ok"), **{variable: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: `{variable}`: {must} [environment]\n  help: mend or unset it, in the environment or in `.env`\n"
    )


def test_a_server_names_a_variable_that_is_wrong(folder: Path) -> None:
    done = cpex(folder, "serve", "c.yaml", "-t", "mcp-stdio", PLUGINS_LOG_FORMAT="xml")
    assert (done.returncode, done.stderr) == (1, "error: PLUGINS_LOG_FORMAT: Input should be 'text' or 'json'\n")


@pytest.mark.parametrize("words", [(), ("tidy",), ("plugin",), ("check", "c.yaml", "--loud")])
def test_no_command_and_unknown_words_are_usage_errors(folder: Path, words: tuple[str, ...]) -> None:
    assert cpex(folder, *words).returncode == 2


def test_every_option_is_on_the_page() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for command in ("run", "check", "plan", "serve", "schema", "init", "bootstrap", "plugin"):
        section = page.split(f"## cpex {command}\n")[1].split("\n## ")[0]
        options = set(re.findall(r"--[a-z_-]+", cpex(ROOT, command, "--help").stdout)) - {"--help"}
        assert options <= set(re.findall(r"--[a-z_-]+", section))
