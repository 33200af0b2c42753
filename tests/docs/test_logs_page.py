"""The page about logs: its program prints what it shows, and every entry point follows the one setting."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import ROOT, blocks, noted

PAGE = (ROOT / "docs" / "operating" / "logs.md").read_text(encoding="utf-8")
ALLOW = {
    "name": "allow",
    "kind": "security.ToolAllowListPlugin",
    "hooks": ["tool_pre_invoke"],
    "config": {"allowed_tools": ["search"]},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # Written as JSON, which is YAML.
    (tmp_path / "plugins.yaml").write_text(json.dumps({"plugins": [ALLOW]}))
    return tmp_path


def run(folder: Path, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, **variables}
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=60, check=False, env=environment
    )


def test_the_program_of_the_page_prints_what_it_shows(folder: Path) -> None:
    (folder / "host.py").write_text(blocks("operating/logs.md")["host.py"])
    done = run(folder, "host.py")
    _, shown = noted("docs/operating/logs.md")
    assert done.stderr == ""
    # The moment is the system's.
    assert re.sub(r'"ts":"[^"]*"', '"ts":"2030-01-01T12:00:00.000Z"', done.stdout) == shown


def test_the_command_line_logs_in_the_form_that_the_variable_says(folder: Path) -> None:
    config = {"path": "audit.jsonl", "include_payload": "full"}
    audit = ALLOW | {"name": "audit", "kind": "observability.AuditLogPlugin", "config": config}
    (folder / "plugins.yaml").write_text(json.dumps({"plugins": [ALLOW, audit]}))
    (folder / "events.jsonl").write_text('{"hook": "tool_pre_invoke", "payload": {"name": "search"}}\n')
    command = ("-m", "cpex.tools.cli", "run", "events.jsonl", "--config", "plugins.yaml", "--out", "d.jsonl")
    people, machines = (run(folder, *command, PLUGINS_LOG_FORMAT=form) for form in ("text", "json"))
    assert (people.returncode, machines.returncode) == (0, 0)
    (told,) = people.stderr.splitlines()
    (line,) = map(json.loads, machines.stderr.splitlines())
    assert told.startswith("warning: Plugin 'audit' writes payload values and runs in mode sequential")
    assert (line["level"], line["message"]) == ("WARNING", told.removeprefix("warning: "))


def test_a_form_that_is_none_is_a_usage_error(folder: Path) -> None:
    done = run(folder, "-m", "cpex.tools.cli", "check", "plugins.yaml", PLUGINS_LOG_FORMAT="xml")
    assert done.returncode == 2
    assert "PLUGINS_LOG_FORMAT" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("variables", [{"PLUGINS_LOG_FORMAT": "json"}, {"PLUGINS_LOG_FORMAT": "text"}])
def test_plugin_servers_log_in_the_form_that_the_variable_says(folder: Path, variables: dict[str, str]) -> None:
    program = (
        "import logging\n"
        "from cpex.framework.external.running import run_until_stopped\n"
        "async def serve():\n"
        "    logging.getLogger('t_server').info('serving with password=%s', 'hunter2')\n"
        "    raise OSError('port 1 is taken')\n"
        "run_until_stopped(serve)\n"
    )
    done = run(folder, "-c", program, **variables)
    assert done.returncode == 1
    first, last = [line for line in done.stderr.splitlines() if "t_server" in line or "port 1" in line]
    assert "hunter2" not in done.stderr
    if variables["PLUGINS_LOG_FORMAT"] == "json":
        assert json.loads(first)["message"] == "serving with password=**********"
        assert json.loads(last)["message"] == "port 1 is taken"
    else:
        assert first.endswith(" INFO t_server: serving with password=**********")
        assert last == "error: port 1 is taken"


def test_a_plugin_server_with_settings_that_are_none_says_so(folder: Path) -> None:
    program = "from cpex.framework.external.running import run_until_stopped\nrun_until_stopped(None)\n"
    for variables in ({"PLUGINS_LOG_FORMAT": "xml"}, {"PLUGINS_LOG_LEVEL": "loud"}):
        done = run(folder, "-c", program, **variables)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert done.stderr.startswith("error: ")


def test_every_link_of_the_page_leads_somewhere() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", PAGE)
    assert [link for link in links if not (ROOT / "docs" / "operating" / link).exists()] == []
