from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cpex.tools.check import document, examine, text

CONFIG = """\
plugin_dirs: [.]
plugins:
  - {name: mode, kind: t_plugins.Nothing, mode: sequental, hooks: [tool_pre_invoke]}
  - {name: kind, kind: t_plugins.Gard, hooks: [tool_pre_invoke]}
  - {name: hook, kind: t_plugins.Guard, hooks: [tool_pre_invok]}
  - {name: setting, kind: t_plugins.Strict, hooks: [tool_pre_invoke], config: {limit: many}}
  - {name: fine, kind: t_plugins.Strict, hooks: [tool_pre_invoke]}
  - {name: idle, kind: t_plugins.Gone, mode: disabled}
"""


def write(folder: Path, content: str) -> str:
    (folder / "c.yaml").write_text(content)
    return "c.yaml"


def test_faults_of_the_file_and_of_its_plugins_are_told_at_once_in_order(plugins: Path) -> None:
    report = examine(write(plugins, CONFIG))
    assert [(fault.code, fault.location) for fault in report.faults] == [
        ("config-kind", "c.yaml:3:24"),
        ("config-unknown-value", "c.yaml:3:49"),
        ("config-kind", "c.yaml:4:24"),
        ("config-unknown-hook", "c.yaml:5:49"),
        ("config-type", "c.yaml:6:87"),
    ]


ONE_PLUGIN = """\
plugin_timeout: 5
plugin_dirs: [.]
plugins:
  - name: many
    kind: t_plugins.Guard
    mode: sequental
    hooks: [tool_pre_invoke, tool_pre_invok]
    conditions: [{tool: [x]}]
  - kind: t_plugins.Gard
    priority: high
    hooks: [tool_pre_invoke]
"""


def test_one_fault_of_a_plugin_does_not_hide_its_others(plugins: Path) -> None:
    report = examine(write(plugins, ONE_PLUGIN))
    assert [(fault.code, fault.path) for fault in report.faults] == [
        ("config-unknown-key", "plugin_timeout"),
        ("config-unknown-value", "plugins[0].mode"),
        ("config-unknown-hook", "plugins[0].hooks[1]"),
        ("config-unknown-key", "plugins[0].conditions[0].tool"),
        ("config-missing-key", "plugins[1].name"),
        ("config-kind", "plugins[1].kind"),
        ("config-type", "plugins[1].priority"),
    ]


@pytest.mark.parametrize(
    "plugin",
    [
        "{name: a, kind: t_plugins.Strict, confg: {limit: 1}, hooks: [tool_pre_invoke], config: {limit: many}}",
        "{name: a, kind: t_plugins.Gone, mode: disabeld}",
        "{name: a, kind: [t_plugins.Gone]}",
        "5",
    ],
    ids=["settings_that_may_stand_under_the_faulty_key", "one_that_was_to_be_off", "no_kind", "no_plugin"],
)
def test_what_a_faulty_part_leaves_in_doubt_is_not_told(plugins: Path, plugin: str) -> None:
    report = examine(write(plugins, f"plugin_dirs: [.]\nplugins:\n  - {plugin}\n"))
    assert len(report.faults) == 1


def test_without_imports_only_the_file_is_looked_at(plugins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = examine(write(plugins, CONFIG), imports=False)
    assert [fault.code for fault in report.faults] == ["config-unknown-value"]
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("top", ["plugin_dir: [.]", "plugin_dirs: 5", "plugins: 5\nother: 1", "- list", "a: [", ""])
def test_plugins_are_not_tried_where_the_file_leaves_doubt_where_they_are(plugins: Path, top: str) -> None:
    rest = (
        "" if "plugins:" in top or top in ("- list", "a: [", "") else "\nplugins:\n  - {name: a, kind: t_nowhere.A}\n"
    )
    report = examine(write(plugins, top + rest))
    assert not any(fault.code == "config-kind" for fault in report.faults)
    assert bool(report.faults) == bool(top)


def test_a_sound_configuration_says_how_many_plugins_it_starts(plugins: Path) -> None:
    sound = "\n".join(line for line in CONFIG.splitlines() if "fine" in line or "idle" in line or "plugin" in line[:8])
    report = examine(write(plugins, sound))
    assert (report.faults, report.plugins) == ((), 1)
    assert text([report]) == "c.yaml: ok, 1 plugin\n"


def test_a_missing_file_is_a_fault_like_any_other(plugins: Path) -> None:
    report = examine("nowhere.yaml")
    assert text([report]) == (
        "error: configuration file `nowhere.yaml` cannot be read: there is no such file [config-file-not-found]\n"
        "  at nowhere.yaml\n"
        "  help: give the path of a YAML file\n"
        "nowhere.yaml: 1 fault\n"
    )


def test_the_document_has_the_parts_of_every_message(plugins: Path) -> None:
    content = "plugins:\n  - {name: a, kind: t_plugins.Guard, mode: audit, on_error: fail, hooks: [tool_pre_invoke]}\n"
    report = document([examine(write(plugins, content + "plugin_dirs: [.]\n")), examine("nowhere.yaml")])
    assert json.loads(json.dumps(report)) == report
    assert report["ok"] is False
    first, second = report["files"]
    assert (first["file"], first["ok"], first["plugins"], first["faults"]) == ("c.yaml", True, 1, [])
    assert first["warnings"][0] == {
        "code": "config-audit-never-fails",
        "message": "`on_error: fail` has no effect on plugin `a`: an audit plugin never stops a call",
        "path": "plugins[0].on_error",
        "file": "c.yaml",
        "line": 2,
        "column": 51,
        "help": "remove it, or use `mode: sequential`; failures of audit plugins are recorded and logged",
    }
    assert second["faults"][0]["code"] == "config-file-not-found"


@pytest.mark.parametrize("command", ["check", "plan"])
def test_what_only_looks_writes_nothing(tmp_path: Path, command: str) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "mine.py").write_text("from cpex.framework import Plugin\n\n\nclass Mine(Plugin): ...\n")
    isolated = "{name: i, kind: isolated_venv, hooks: [tool_pre_invoke], config: {class_name: apart.mod.Cls}}"
    (tmp_path / "c.yaml").write_text(
        f"plugin_dirs: [plugins]\nplugins:\n  - {{name: m, kind: mine.Mine}}\n  - {isolated}\n"
    )
    before = sorted(tmp_path.rglob("*"))
    variables = {name: text for name, text in os.environ.items() if not name.startswith(("PYTHON", "PLUGINS_"))}
    done = subprocess.run(
        [sys.executable, "-m", "cpex.tools.cli", command, str(tmp_path / "c.yaml")],
        env=variables,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(tmp_path.rglob("*")) == before
