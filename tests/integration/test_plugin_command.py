"""`cpex plugin`, as a process in an environment of its own, against a package index and a repository that run here."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from handmade_wheels import make_wheel
from package_index import PackageIndex, running_index

LIMIT_S = 300
# Some run the program, and with it pip, a dozen times.
pytestmark = pytest.mark.timeout(4 * LIMIT_S)
CLASS = """\
from cpex.framework import Plugin, ToolPreInvokeResult


class Guard(Plugin):
    async def tool_pre_invoke(self, payload, context):
        return ToolPreInvokeResult()
"""
MANIFEST = {
    "kind": "my_guard.plugin.Guard",
    "description": "Guards.",
    "author": "Ada",
    "version": "1.0",
    "tags": ["safety"],
    "available_hooks": ["tool_pre_invoke"],
    "default_config": {"limit": 3},
}
CONFIG = "# Mine.\nplugins:\n  - name: other   # stays\n    kind: a.B\n    hooks: [tool_pre_invoke]\n"


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment that sees this one's packages, and has pip of its own to change itself."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, capture_output=True, timeout=LIMIT_S)
    python = folder / "bin" / "python"
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    own = subprocess.run(asked, check=True, capture_output=True, text=True, timeout=60).stdout.strip()
    # Through `site`, so that the editable install of this tree is followed, too.
    (Path(own) / "host.pth").write_text(f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n")
    return python


@pytest.fixture
def shop(tmp_path: Path, python: Path) -> Iterator[Shop]:
    with running_index(tmp_path / "wheels") as index:
        shop = Shop(tmp_path, python, index)
        yield shop
        # Asking pip to remove what is not there takes longer than most of the tests.
        if shop.has("my-guard"):
            subprocess.run([str(python), "-m", "pip", "uninstall", "-qy", "my-guard"], check=True, timeout=LIMIT_S)


class Shop:
    """A folder in which somebody works, and an index."""

    def __init__(self, folder: Path, python: Path, index: PackageIndex) -> None:
        self.folder = folder / "work"
        self.folder.mkdir()
        self.python = python
        self.index = index
        self.variables: dict[str, str] = {}

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PLUGIN", "PYTHON"))}
        return subprocess.run(
            [str(self.python), "-m", "cpex.tools.cli", "plugin", *arguments],
            cwd=self.folder,
            env={**inherited, "PIP_INDEX_URL": self.index.url, "NO_COLOR": "1", "COLUMNS": "200", **self.variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )

    def json(self, *arguments: str) -> Any:
        done = self.run(*arguments, "--json")
        return json.loads(done.stdout)

    def publish(self, version: str = "1.0", files: dict[str, str] | None = None, **changes: Any) -> Path:
        text = yaml.safe_dump({**MANIFEST, "version": version, **changes})
        code = {"my_guard/__init__.py": "", "my_guard/plugin.py": CLASS, "my_guard/plugin-manifest.yaml": text}
        return make_wheel(self.index.folder, "my-guard", version, {**code, **(files or {})})

    def config(self) -> str:
        return (self.folder / "plugins" / "config.yaml").read_text()

    def write_config(self, text: str = CONFIG) -> None:
        (self.folder / "plugins").mkdir(exist_ok=True)
        (self.folder / "plugins" / "config.yaml").write_text(text)

    def has(self, project: str) -> bool:
        """Whether the environment holds a project; pip takes its time to say so."""
        return any(self.python.parents[1].glob(f"lib/python*/site-packages/{project.replace('-', '_')}-*.dist-info"))

    def nothing_changed(self) -> bool:
        registry = self.folder / "data" / "installed-plugins.json"
        installed = json.loads(registry.read_text())["plugins"] if registry.exists() else []
        return not installed and self.config() == CONFIG and not self.has("my-guard")


def failed(done: subprocess.CompletedProcess[str], code: int, text: str) -> None:
    assert done.returncode == code, done.stdout + done.stderr
    assert text in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.conformance("P11", "P14", "P20", "P23")
def test_a_package_of_the_index_is_installed_configured_listed_and_removed(shop: Shop) -> None:
    shop.write_config()
    shop.publish()
    done = shop.run("install", "my-guard", "--type", "pypi", "--no-convert")
    assert (done.returncode, done.stdout) == (0, "✅ my-guard installation complete.\n"), done.stderr
    assert "Package integrity verification: enabled" in done.stderr
    assert "is not confirmed" not in done.stderr
    assert [path for path in shop.index.asked if path.startswith("/files/")] == ["/files/my_guard-1.0-py3-none-any.whl"]
    assert shop.config().startswith(CONFIG.replace("# Mine.\n", "# Mine.\nplugin_dirs: [plugins]\n"))
    entry = yaml.safe_load(shop.config())["plugins"][1]
    assert entry == {
        "name": "my-guard",
        "kind": "my_guard.plugin.Guard",
        "mode": "sequential",
        "priority": 100,
        "description": "Guards.",
        "author": "Ada",
        "version": "1.0",
        "tags": ["safety"],
        "hooks": ["tool_pre_invoke"],
        "config": {"limit": 3},
    }
    assert shop.json("list") == {"plugins": [{"name": "my-guard", "version": "1.0", "installation_type": "pypi"}]}
    assert shop.json("search", "SAFETY")["results"] == shop.json("list")["plugins"]
    (record,) = shop.json("info", "guard")["plugins"]
    assert Path(record["installation_path"]).name == "my_guard"
    assert record["package_source"] == "my-guard"
    assert shop.json("versions", "my-guard")["latest"] == "1.0"
    assert shop.json("versions") == {"plugins": [shop.json("versions", "my-guard")]}
    assert shop.run("versions").stdout.startswith("my-guard 1.0 released ")
    assert shop.json("verify")["ok"] is True
    assert (shop.folder / "plugins" / "config.yaml.bak").read_text() == CONFIG

    again = shop.run("install", "my-guard", "-t", "pypi", "--no-convert")
    assert again.stdout == "my-guard is already installed at version 1.0\n"

    shop.publish("1.2")
    newer = shop.run("install", "my-guard@>=1.1", "-t", "pypi", "--no-convert")
    assert newer.returncode == 0, newer.stderr
    entries = yaml.safe_load(shop.config())["plugins"]
    assert [(each["name"], each.get("version")) for each in entries] == [("other", None), ("my-guard", "1.2")]
    assert [each["version"] for each in shop.json("versions", "my-guard")["versions"]] == ["1.0", "1.2"]

    asked = shop.run("uninstall", "my-guard")
    failed(asked, 2, "there is no terminal to ask on; add -y")
    assert asked.stderr.startswith("plugin:  my-guard\nversion: 1.2 installation type: pypi\npath:    ")
    gone = shop.run("uninstall", "my-guard", "-y")
    assert gone.stdout == "✅ my-guard uninstalled; removed from the configuration: my-guard.\n", gone.stderr
    assert shop.config() == CONFIG.replace("# Mine.\n", "# Mine.\nplugin_dirs: [plugins]\n")
    assert not shop.has("my-guard")
    assert shop.json("list") == {"plugins": []}
    failed(shop.run("uninstall", "my-guard", "-y"), 3, "my-guard is not installed.")


def test_a_class_path_gets_an_environment_of_its_own(shop: Shop) -> None:
    make_wheel(shop.index.folder, "helper", "1.0", {"helper.py": ""})
    shop.publish(default_config={"requirements_file": "needs.txt"}, files={"my_guard/needs.txt": "helper\n"})
    done = shop.run("install", "my-guard", "-t", "pypi")
    assert done.returncode == 0, done.stderr
    (entry,) = yaml.safe_load(shop.config())["plugins"]
    assert (entry["kind"], entry["config"]["class_name"]) == ("isolated_venv", "my_guard.plugin.Guard")
    home = shop.folder / "plugins" / "my_guard"
    (packages,) = (home / ".venv").glob("lib/python*/site-packages")
    assert (packages / "my_guard" / "plugin.py").exists()
    assert (packages / "helper.py").exists(), "what the plugin's requirements file lists"
    record = json.loads((home / ".cpex" / "venv_cache" / ".venv_metadata.json").read_text())
    assert record["installed"] == ["my-guard"]
    assert (home / "my_guard-plugin-Guard.plugin-manifest.yaml").exists()
    assert not shop.has("my-guard")
    second = shop.run("install", "my-guard", "-t", "pypi", "--no-convert")
    told = "my-guard 1.0 is installed in an environment of its own; to have it without one, remove it first: "
    failed(second, 4, told + "cpex plugin uninstall my-guard")
    assert yaml.safe_load(shop.config())["plugins"] == [entry]
    assert not shop.has("my-guard")
    gone = shop.run("uninstall", "my-guard", "-y")
    assert gone.returncode == 0, gone.stderr
    assert not (home / ".venv").exists()


def test_a_plugin_without_an_environment_is_given_none_besides(shop: Shop) -> None:
    shop.publish()
    assert shop.run("install", "my-guard", "-t", "pypi", "--no-convert").returncode == 0
    before = shop.config()
    second = shop.run("install", "my-guard", "-t", "pypi")
    told = "my-guard 1.0 is installed without an environment of its own; to have it in one, remove it first: "
    failed(second, 4, told + "cpex plugin uninstall my-guard")
    assert (shop.config(), shop.has("my-guard")) == (before, True)
    assert not (shop.folder / "plugins" / "my_guard").exists()
    assert shop.json("verify")["ok"] is True


@pytest.mark.conformance("P16")
def test_a_package_that_was_changed_on_its_way_is_not_installed(shop: Shop) -> None:
    shop.write_config()
    wheel = shop.publish()
    shop.index.tampered.add(wheel.name)
    failed(
        shop.run("install", "my-guard", "-t", "pypi", "--no-convert"), 4, "integrity of `my-guard` cannot be confirmed"
    )
    assert shop.nothing_changed()


@pytest.mark.conformance("P7", "P16")
def test_what_cannot_be_compared_is_told_and_in_strict_mode_refused(shop: Shop) -> None:
    shop.write_config()
    shop.publish()
    shop.index.without_hashes = True
    shop.variables = {"PLUGINS_STRICT_INTEGRITY_MODE": "true"}
    failed(
        shop.run("install", "my-guard", "-t", "pypi", "--no-convert"), 4, "and strict mode is on: the index has no hash"
    )
    assert shop.nothing_changed()
    shop.variables = {}
    done = shop.run("install", "my-guard", "-t", "pypi", "--no-convert")
    assert done.returncode == 0
    assert "Integrity of my-guard is not confirmed: the index has no hash of my_guard-1.0" in done.stderr


@pytest.fixture
def test_index(shop: Shop, tmp_path: Path) -> Iterator[PackageIndex]:
    """Another index, which is the test index of the shop."""
    with running_index(tmp_path / "test-wheels") as index:
        shop.variables["PLUGINS_TEST_INDEX_URL"] = index.url
        yield index


def publish_for_testing(shop: Shop, index: PackageIndex, requires: tuple[str, ...]) -> Path:
    text = yaml.safe_dump(MANIFEST)
    files = {"my_guard/__init__.py": "", "my_guard/plugin.py": CLASS, "my_guard/plugin-manifest.yaml": text}
    make_wheel(shop.index.folder, "my-helper", "1.0", {"my_helper.py": ""})
    return make_wheel(index.folder, "my-guard", "1.0", files, requires)


def test_a_package_comes_from_the_test_index_and_what_it_needs_from_the_usual_one(
    shop: Shop, test_index: PackageIndex
) -> None:
    publish_for_testing(shop, test_index, ("my-helper",))
    failed(shop.run("install", "my-guard", "-t", "pypi"), 4, "Failed to download my-guard")
    done = shop.run("install", "my-guard", "-t", "test-pypi")
    assert done.returncode == 0, done.stderr
    assert "Package integrity verification: enabled" in done.stderr
    assert "is not confirmed" not in done.stderr
    assert "/pypi/my-guard/1.0/json" in test_index.asked, "the hashes of the test index are compared"
    (packages,) = (shop.folder / "plugins" / "my_guard" / ".venv").glob("lib/python*/site-packages")
    assert (packages / "my_guard" / "plugin.py").exists()
    assert (packages / "my_helper.py").exists()
    (record,) = shop.json("info")["plugins"]
    assert (record["installation_type"], record["package_source"]) == ("pypi", "my-guard")
    assert shop.run("uninstall", "my-guard", "-y").returncode == 0


def test_a_package_of_the_test_index_that_was_changed_on_its_way_is_not_installed(
    shop: Shop, test_index: PackageIndex
) -> None:
    shop.write_config()
    test_index.tampered.add(publish_for_testing(shop, test_index, ()).name)
    done = shop.run("install", "my-guard", "-t", "test-pypi", "--no-convert")
    failed(done, 4, "integrity of `my-guard` cannot be confirmed")
    assert shop.nothing_changed()


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kind": "nope"}, "unsupported plugin kind 'nope'"),
        ({"kind": "wasm"}, "kind `wasm` names no class"),
        ({"available_hooks": "x"}, "Failed to validate manifest of my-guard"),
    ],
)
@pytest.mark.conformance("P16", "P18")
def test_a_manifest_that_is_none_stops_the_installation(shop: Shop, changes: Any, text: str) -> None:
    shop.write_config()
    shop.publish(**changes)
    failed(shop.run("install", "my-guard", "-t", "pypi"), 4, text)
    assert shop.nothing_changed()


def test_a_configuration_that_cannot_be_edited_stops_it_before_anything_is_installed(shop: Shop) -> None:
    shop.publish()
    shop.write_config("plugins: [\n")
    failed(shop.run("install", "my-guard", "-t", "pypi", "--no-convert"), 4, "is no YAML")
    assert not shop.has("my-guard")
    shop.write_config("plugins: [{name: a, kind: b.C}]\n")
    failed(shop.run("install", "my-guard", "-t", "pypi", "--no-convert"), 4, "is written in one line")
    assert not shop.has("my-guard")
    assert shop.json("list") == {"plugins": []}


@pytest.mark.conformance("P22")
def test_a_folder_is_installed_so_that_its_changes_count(shop: Shop) -> None:
    made = subprocess.run(
        [sys.executable, "-m", "cpex.tools.cli", "bootstrap", "-d", "my_guard", "--no_input"],
        cwd=shop.folder,
        check=True,
        capture_output=True,
        timeout=LIMIT_S,
    )
    assert made.returncode == 0
    # setuptools, which builds it, is on the usual index.
    shop.variables = {"PIP_INDEX_URL": usual_index()}
    done = shop.run("install", "-t", "local", "--no-convert", "./my_guard")
    assert done.returncode == 0, done.stderr
    (record,) = shop.json("info")["plugins"]
    assert (record["editable"], record["package_source"]) == (True, str(shop.folder / "my_guard"))
    check = [str(shop.python), "-m", "cpex.tools.cli", "check", "plugins/config.yaml"]
    checked = subprocess.run(check, cwd=shop.folder, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    assert checked.stdout == "plugins/config.yaml: ok, 1 plugin\n", checked.stderr
    assert shop.run("uninstall", "my_guard", "-y").returncode == 0
    assert (shop.folder / "my_guard" / "plugin.py").exists()


def usual_index() -> str:
    from cpex.tools.integrity import index_url

    return index_url()


@pytest.mark.conformance("P21")
def test_a_source_archive_is_taken_aloud_where_there_is_no_wheel(shop: Shop, repository: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    build = "from setuptools.build_meta import build_sdist; build_sdist('dist')"
    tool = tmp_path / "tool"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--target", str(tool), "setuptools>=77"], check=True)
    variables = {**os.environ, "PYTHONPATH": str(tool)}
    subprocess.run([sys.executable, "-c", build], cwd=source, env=variables, check=True, capture_output=True)
    links = f"{source / 'dist'} {os.environ.get('PIP_FIND_LINKS', '')}".strip()
    shop.variables = {"PIP_INDEX_URL": usual_index(), "PIP_FIND_LINKS": links}
    done = shop.run("install", "my-guard@==1.0", "-t", "pypi", "--no-convert")
    assert done.returncode == 0, done.stderr
    assert "has no wheel for this interpreter; its source archive is taken" in done.stderr
    assert shop.has("my-guard")


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("nowhere", "there is no folder nowhere"),
        ("bare", "pyproject.toml not found in"),
        ("half", "plugin-manifest.yaml not found in"),
    ],
)
def test_a_folder_that_is_no_plugin_is_refused(shop: Shop, source: str, text: str) -> None:
    for name in ("bare", "half"):
        (shop.folder / name).mkdir()
    (shop.folder / "half" / "pyproject.toml").write_text('[project]\nname = "half"\n')
    failed(shop.run("install", "-t", "local", source), 4, text)


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    """The address of a repository with a plugin, served over HTTP."""
    source = tmp_path / "source"
    package = source / "my_guard"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "plugin.py").write_text(CLASS)
    (package / "plugin-manifest.yaml").write_text(yaml.safe_dump(MANIFEST))
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools>=77"]\nbuild-backend = "setuptools.build_meta"\n'
        '[project]\nname = "my-guard"\nversion = "1.0"\n[tool.setuptools]\npackages = ["my_guard"]\n'
        '[tool.setuptools.package-data]\nmy_guard = ["*.yaml"]\n'
    )
    git = partial(subprocess.run, check=True, capture_output=True, text=True, timeout=60)
    identity = ("-c", "user.name=Ada", "-c", "user.email=a@example.com")
    for command in (["init", "-q", "-b", "main"], ["add", "-A"], ["commit", "-qm", "first"], ["tag", "v1"]):
        git(["git", *identity, *command], cwd=source)
    git(["git", "clone", "-q", "--bare", str(source), str(tmp_path / "served" / "guard.git")], cwd=tmp_path)
    git(["git", "update-server-info"], cwd=tmp_path / "served" / "guard.git")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "served")))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://localhost:{server.server_address[1]}/guard.git"
    server.shutdown()
    server.server_close()
    thread.join(30)


def test_a_repository_is_installed_at_the_commit_that_a_reference_stands_for(
    shop: Shop, repository: str, tmp_path: Path
) -> None:
    shop.variables = {"PIP_INDEX_URL": usual_index()}
    done = shop.run("install", f"my-guard @ git+{repository}@v1", "-t", "git", "--no-convert")
    assert done.returncode == 0, done.stderr
    assert "Package integrity verification: enabled (hash will be computed and logged)" in done.stderr
    assert re.search(r"info: SHA-256 of my.guard-1\.0\S*: [0-9a-f]{64}", done.stderr), done.stderr
    head = ["git", "rev-parse", "v1"]
    commit = subprocess.run(
        head, cwd=tmp_path / "source", check=True, capture_output=True, text=True, timeout=60
    ).stdout
    (record,) = shop.json("info")["plugins"]
    assert record["package_source"] == f"my-guard @ {repository}@{commit.strip()}"
    assert record["installation_type"] == "git"
    assert shop.has("my-guard")
    assert shop.run("uninstall", "my-guard", "-y").returncode == 0


def test_a_plugin_of_a_repository_of_many_is_installed_as_the_catalogue_says(shop: Shop, repository: str) -> None:
    folder = shop.folder / "plugin-catalog" / "my-guard"
    folder.mkdir(parents=True)
    monorepo = {"repo_url": repository, "package_source": repository, "package_folder": ""}
    (folder / "plugin-manifest.yaml").write_text(yaml.safe_dump({**MANIFEST, "name": "my-guard", "monorepo": monorepo}))
    shop.variables = {"PIP_INDEX_URL": usual_index()}
    done = shop.run("install", "guard", "-y", "--no-convert")
    assert done.returncode == 0, done.stderr
    (record,) = shop.json("info")["plugins"]
    assert (record["installation_type"], record["package_source"]) == ("monorepo", repository)
    assert shop.has("my-guard")
    assert shop.run("uninstall", "my-guard", "-y").returncode == 0
    assert not shop.has("my-guard")


@pytest.mark.conformance("P16")
def test_an_installation_whose_last_part_fails_is_undone(shop: Shop) -> None:
    shop.write_config()
    shop.publish()
    # The former configuration cannot be kept where a folder has its name.
    (shop.folder / "plugins" / "config.yaml.bak").mkdir()
    done = shop.run("install", "my-guard", "-t", "pypi", "--no-convert")
    failed(done, 4, "`plugins/config.yaml` cannot be written")
    assert shop.nothing_changed()
    isolated = shop.run("install", "my-guard", "-t", "pypi")
    failed(isolated, 4, "`plugins/config.yaml` cannot be written")
    assert shop.nothing_changed()
    assert not (shop.folder / "plugins" / "my_guard" / ".venv").exists()


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("my-guard@git+http://localhost/x.git", "Invalid Git URL format"),
        ("my-guard @ http://localhost/x.git", "Git URL must start with 'git+'"),
        ("my-guard @ git+ssh://localhost/x.git", "Invalid Git repository URL"),
        ("my-guard @ git+http://10.0.0.1/x.git", "Invalid Git repository URL"),
        ("my-guard @ git+http://localhost/x.git@--upload-pack=x", "Invalid Git repository URL"),
        ("my-guard @ git+http://localhost:1/x.git", "Failed to download my-guard: git cannot read"),
    ],
)
def test_an_address_that_is_none_is_refused(shop: Shop, source: str, text: str) -> None:
    failed(shop.run("install", source, "-t", "git"), 4, text)


def catalogue(shop: Shop, **versions: str) -> None:
    for name, version in versions.items():
        folder = shop.folder / "plugin-catalog" / name
        folder.mkdir(parents=True)
        monorepo = {"repo_url": "u", "package_source": f"u#subdirectory={name}", "package_folder": name}
        document = {**MANIFEST, "name": name, "version": version, "monorepo": monorepo}
        (folder / "plugin-manifest.yaml").write_text(yaml.safe_dump(document))


@pytest.mark.conformance("P13", "P24")
def test_the_catalogue_is_searched_without_network_newest_first(shop: Shop) -> None:
    catalogue(shop, guard="1.9", guard_two="1.10")
    (shop.folder / "plugin-catalog" / "guard" / "plugin-manifest-2.yaml").write_text(
        yaml.safe_dump({**MANIFEST, "name": "guard", "version": "1.10"})
    )
    (shop.folder / "plugin-catalog" / "broken").mkdir()
    (shop.folder / "plugin-catalog" / "broken" / "plugin-manifest.yaml").write_text("- no")
    results = shop.json("search", "guard")["results"]
    assert [(each["name"], each["version"]) for each in results] == [
        ("guard", "1.10"),
        ("guard", "1.9"),
        ("guard_two", "1.10"),
    ]
    assert [each["installation_type"] for each in results] == ["local", "monorepo", "monorepo"]
    text = shop.run("search", "two")
    assert text.stdout == "name: guard_two version: 1.10 installation type: monorepo\n"
    assert "broken/plugin-manifest.yaml is left out" in text.stderr
    assert shop.index.asked == []


@pytest.mark.conformance("P13")
def test_of_several_plugins_none_is_taken_at_random(shop: Shop) -> None:
    catalogue(shop, guard_one="1.0", guard_two="1.10")
    failed(shop.run("install", "guard", "-y"), 2, "`guard` means guard_one, guard_two; name one of them")
    failed(shop.run("install", "nothing", "-y"), 3, "No matching plugins found.")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (("instal", "x"), 2, "unknown action `instal`; known: list, info, search"),
        (("install",), 2, "`install` needs a plugin"),
        (("uninstall",), 2, "`uninstall` needs a plugin"),
        (("install", "x", "-t", "conda"), 2, "Unsupported installation type: conda"),
        (("list", "-t", "conda"), 2, "Unsupported installation type: conda; known: monorepo, pypi, test-pypi, git"),
        (("install", "x"), 3, "help: `--refresh` asks the repositories first"),
        (("versions",), 3, "No versions are known."),
        (("search", "x"), 3, "No plugins found."),
        (("info", "x"), 3, "No plugins found"),
        (("versions", "x"), 3, "No versions of x are known."),
        (("install", "x y", "-t", "pypi"), 4, "PyPI package name"),
        (("install", "no-such-thing", "-t", "pypi"), 4, "Failed to download no-such-thing"),
        (("refresh",), 4, "set PLUGINS_GITHUB_TOKEN"),
    ],
)
@pytest.mark.conformance("P9", "P25")
def test_each_way_to_fail_has_its_code_and_a_sentence(
    shop: Shop, arguments: tuple[str, ...], code: int, text: str
) -> None:
    failed(shop.run(*arguments), code, text)


@pytest.mark.conformance("P12")
def test_reading_makes_no_folder_and_json_is_one_document(shop: Shop) -> None:
    done = shop.run("list", "--json")
    assert (json.loads(done.stdout), done.returncode) == ({"plugins": []}, 0)
    empty = shop.run("search", "x", "--format", "json")
    assert (json.loads(empty.stdout), empty.returncode) == ({"results": []}, 3)
    assert list(shop.folder.iterdir()) == []


def test_an_unknown_format_is_text_and_a_warning(shop: Shop) -> None:
    done = shop.run("search", "x", "-f", "yaml")
    assert (done.returncode, done.stdout) == (3, "No plugins found.\n")
    assert done.stderr == "warning: unknown format `yaml`, so it is text; known: text, json\n"


def test_options_may_stand_before_and_after_the_words(shop: Shop) -> None:
    assert shop.run("--format", "json", "list").stdout == shop.run("list", "--format", "json").stdout


def test_a_file_of_variables_in_the_folder_is_read(shop: Shop) -> None:
    shop.publish()
    (shop.folder / ".env").write_text("PLUGIN_REGISTRY_FILE=elsewhere\nPLUGINS_CATALOG_FOLDER=shelf\n")
    assert shop.run("install", "my-guard", "-t", "pypi", "--no-convert").returncode == 0
    assert (shop.folder / "elsewhere" / "installed-plugins.json").is_file()
    assert (shop.folder / "shelf" / "my-guard" / "plugin-manifest.yaml").is_file()


def test_an_update_of_the_catalogue_that_fails_stops_no_other_action(shop: Shop) -> None:
    done = shop.run("list", "--refresh", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"plugins": []})
    assert "Update catalog\n" in done.stderr
    assert "Catalog update failed.\n" in done.stderr
