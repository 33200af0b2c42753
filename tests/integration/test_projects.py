"""Projects that the program writes do what they say, in environments of their own."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from wheels import LIMIT_S, environment

from cpex.framework.models.manifest import PluginManifest
from cpex.tools.templates import template_types

CPEX = [sys.executable, "-m", "cpex.tools.cli"]


def run(folder: Path, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )


def bootstrap(folder: Path, *options: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return run(folder, *CPEX, "bootstrap", *options, **variables)


@pytest.mark.timeout(4 * LIMIT_S)
def test_the_starter_passes_its_own_checks_in_a_fresh_environment(tmp_path: Path) -> None:
    done = run(tmp_path, *CPEX, "init", "guards")
    assert (done.returncode, done.stderr) == (0, "")
    for target, expected in (("test", "2 passed"), ("run", "1 denied")):
        made = subprocess.run(
            ["make", "--no-print-directory", target, f"PYTHON={sys.executable}"],
            cwd=tmp_path / "guards",
            # As on a new user's machine, whose index does not have this cpex.
            env={**environment(), "PIP_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "")},
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        assert made.returncode == 0, made.stdout + made.stderr
        assert expected in made.stdout
    assert "plugins/config.yaml: ok, 2 plugins" in run(tmp_path, "make", "-C", "guards", "check").stdout


@pytest.mark.parametrize("kind", template_types())
@pytest.mark.conformance("P22")
def test_a_bootstrapped_project_passes_its_own_test_and_check(tmp_path: Path, kind: str) -> None:
    done = bootstrap(tmp_path, "-d", "my_filter", "-t", kind, "--no_input")
    assert (done.returncode, done.stdout, done.stderr) == (0, "wrote my_filter\n", "")
    project = tmp_path / "my_filter"
    ways: list[list[str]] = [[], ["-c", "tests/pytest.ini", "tests"]] if kind == "external" else [[]]
    for way in ways:
        tested = run(project, sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", *way)
        assert "4 passed" in tested.stdout, tested.stdout + tested.stderr
    config = "resources/plugins/config.yaml" if kind == "external" else "config.yaml"
    checked = run(project, *CPEX, "check", config)
    assert checked.stdout == f"{config}: ok, 1 plugin\n", checked.stderr
    (manifest,) = project.rglob("plugin-manifest.yaml")
    assert PluginManifest.model_validate(yaml.safe_load(manifest.read_text())).name == "my_filter"
    head = (project / config).read_text().partition("\n")[0]
    schema = (project / config).parent / head.removeprefix("# yaml-language-server: $schema=")
    assert schema.is_file()


def test_a_folder_that_can_be_imported_keeps_its_name(tmp_path: Path) -> None:
    done = bootstrap(tmp_path, "-d", "CardGuard", "--no_input")
    assert (done.returncode, done.stdout) == (0, "wrote CardGuard\n"), done.stderr
    manifest = PluginManifest.model_validate(yaml.safe_load((tmp_path / "CardGuard/plugin-manifest.yaml").read_text()))
    assert (manifest.name, manifest.kind) == ("CardGuard", "CardGuard.plugin.CardGuard")
    tested = run(tmp_path / "CardGuard", sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider")
    assert "4 passed" in tested.stdout, tested.stdout + tested.stderr
    assert bootstrap(tmp_path, "-d", "a-guard", "--no_input").stdout == "wrote a_guard\n"


def test_names_with_quotes_and_colons_break_no_file(tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text('[user]\n\tname = "Ada \\"A: B\\" # Löve"\n\temail = ada@example.com\n')
    variables = {"HOME": str(home), "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"), "GIT_CONFIG_NOSYSTEM": "1"}
    for kind in template_types():
        assert bootstrap(tmp_path, "-d", kind, "-t", kind, "--no_input", **variables).returncode == 0
        (manifest,) = (tmp_path / kind).rglob("plugin-manifest.yaml")
        assert yaml.safe_load(manifest.read_text())["author"] == 'Ada "A: B" # Löve'
        project = tomllib.loads((tmp_path / kind / "pyproject.toml").read_text())["project"]
        assert project["authors"] == [{"name": 'Ada "A: B" # Löve'}]


@pytest.mark.conformance("P10")
def test_an_author_that_git_does_not_know_is_to_be_changed(tmp_path: Path) -> None:
    nobody = {"GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1", "HOME": str(tmp_path)}
    assert bootstrap(tmp_path, "--no_input", **nobody).returncode == 0
    assert "By <changeme>, <changeme>." in (tmp_path / "my_filter" / "README.md").read_text()


@pytest.mark.parametrize(
    ("options", "code", "text"),
    [
        ((), 2, "there is no terminal to ask on; add --no_input"),
        (("-t", "wasm", "--no_input"), 2, "unknown type `wasm`; known: external, isolated, native"),
        (("-d", "class", "--no_input"), 4, "Failed to create plugin project: `class` is no name for a package"),
        (("-d", "1st", "--no_input"), 4, "`1st` is no name for a package"),
        (("-d", "there", "--no_input"), 4, "`there` is there already"),
        (("-d", "file/x", "--no_input"), 4, "`file/x` cannot be written"),
        (("-u", "file:///nowhere/at/all", "-d", "x", "--no_input"), 4, "Failed to create plugin project: "),
    ],
)
@pytest.mark.conformance("P23", "P25")
def test_what_cannot_be_made_is_told_and_leaves_nothing(
    tmp_path: Path, options: tuple[str, ...], code: int, text: str
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "file").write_text("")
    done = bootstrap(tmp_path, *options, HOME=str(tmp_path / "there"))
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "there"]


def test_a_dry_run_makes_nothing(tmp_path: Path) -> None:
    done = bootstrap(tmp_path, "-d", "x", "--dry_run")
    assert (done.returncode, done.stdout) == (0, "would write x: template native of the packaged templates\n")
    assert list(tmp_path.iterdir()) == []


def test_on_a_terminal_it_asks(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    try:
        os.write(ours, b"Card Guard\n\n2.0.0\nAda\nada@example.com\nGuards cards.\n")
        done = subprocess.run(
            [*CPEX, "bootstrap"],
            cwd=tmp_path,
            stdin=theirs,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
    finally:
        os.close(ours)
        os.close(theirs)
    assert done.returncode == 0, done.stderr
    manifest = yaml.safe_load((tmp_path / "card_guard" / "plugin-manifest.yaml").read_text())
    assert manifest["kind"] == "card_guard.plugin.CardGuard"
    assert (manifest["version"], manifest["author"], manifest["description"]) == ("2.0.0", "Ada", "Guards cards.")


def test_templates_may_come_from_a_repository_at_a_revision(tmp_path: Path) -> None:
    repository = tmp_path / "templates"
    template = repository / "cpex" / "templates" / "native"
    (template / "{{cookiecutter.plugin_slug}}").mkdir(parents=True)
    (template / "cookiecutter.json").write_text('{"plugin_slug": "x", "author": "nobody", "email": ""}')
    (template / "{{cookiecutter.plugin_slug}}" / "about.txt").write_text("by {{cookiecutter.author}}\n")
    identity = ("-c", "user.name=Ada", "-c", "user.email=a@example.com")
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "first"], ["tag", "v1"]):
        subprocess.run(["git", *identity, *command], cwd=repository, check=True, capture_output=True, timeout=60)
    name = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "user.name", "GIT_CONFIG_VALUE_0": "Ada"}
    home = {"HOME": str(tmp_path), **name}
    options = ("-u", f"file://{repository}", "-r", "v1", "-d", "mine", "--no_input")
    done = bootstrap(tmp_path, *options, **home)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "mine" / "about.txt").read_text() == "by Ada\n"
    again = bootstrap(tmp_path, *options, **home)
    assert again.returncode == 4
    assert "Failed to create plugin project: " in again.stderr


def test_the_script_that_serves_refuses_a_transport_that_it_does_not_know(tmp_path: Path) -> None:
    bootstrap(tmp_path, "-d", "served", "-t", "external", "--no_input")
    done = run(tmp_path / "served", "./run-server.sh", PLUGINS_TRANSPORT="pigeon", PYTHON=sys.executable)
    assert done.returncode == 1
    assert done.stderr == "error: unknown PLUGINS_TRANSPORT 'pigeon'; known: http, stdio, grpc, unix\n"


def test_init_touches_no_file_that_is_there(tmp_path: Path) -> None:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "plugins" / "config.yaml").write_text("plugins: []\n")
    done = run(tmp_path, *CPEX, "init", ".")
    assert done.returncode == 4
    assert "`.` is there already, with plugins/config.yaml [init-failed]" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["plugins"]
    (tmp_path / "plugins" / "config.yaml").rename(tmp_path / "other.yaml")
    assert run(tmp_path, *CPEX, "init", ".").returncode == 0
    assert (tmp_path / "plugins" / "tool_guard.py").is_file()


@pytest.mark.parametrize(
    ("told", "requirement"),
    [
        (None, "cpex>=9.9"),
        ({"url": "file:///src/cpex", "dir_info": {"editable": True}}, "cpex @ file:///src/cpex"),
        (
            {"url": "https://h/cpex.git", "vcs_info": {"vcs": "git", "commit_id": "abc"}},
            "cpex @ git+https://h/cpex.git@abc",
        ),
    ],
)
def test_projects_ask_for_the_cpex_that_wrote_them(told: Any, requirement: str, tmp_path: Path) -> None:
    about = tmp_path / "cpex-9.9.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: cpex\nVersion: 9.9\n")
    if told is not None:
        (about / "direct_url.json").write_text(json.dumps(told))
    program = "from cpex.tools.templates import cpex_requirement; print(cpex_requirement())"
    done = run(tmp_path, sys.executable, "-c", program, PYTHONPATH=str(tmp_path))
    assert done.stdout == f"{requirement}\n", done.stderr


@pytest.mark.timeout(2 * LIMIT_S)
def test_a_new_plugin_can_be_installed_where_no_index_has_this_cpex(tmp_path: Path) -> None:
    assert bootstrap(tmp_path, "-d", "mine", "-t", "native", "--no_input").returncode == 0
    done = subprocess.run(
        [*CPEX, "plugin", "install", "./mine", "--type", "local"],
        cwd=tmp_path,
        env={**environment(), "PIP_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.stdout == "✅ mine installation complete.\n", done.stderr
    python = tmp_path / "plugins" / "mine" / ".venv" / "bin" / "python"
    program = "import cpex.framework, mine.plugin; print(mine.plugin.Mine.__name__)"
    assert run(tmp_path, str(python), "-c", program).stdout == "Mine\n"
    assert "config.yaml: ok, 1 plugin" in run(tmp_path, *CPEX, "check", "plugins/config.yaml").stdout
