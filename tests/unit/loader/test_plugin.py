from __future__ import annotations

import asyncio
import logging
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from cpex.framework.base import Plugin
from cpex.framework.errors import PluginError, PluginTimeoutError
from cpex.framework.loader import kinds
from cpex.framework.loader.kinds import PluginKindError, registered_kinds
from cpex.framework.loader.plugin import ALLOWED_PLUGIN_DIRS, PluginLoader
from cpex.framework.models.config import PluginConfig

PLUGIN = """\
from cpex.framework.base import Plugin

class Mine(Plugin):
    WHERE = {where!r}
    events = []

    async def initialize(self):
        self.events.append("initialize")

    async def shutdown(self):
        self.events.append("shutdown")
"""


EXITS = """
class Exits(Mine):
    async def initialize(self):
        raise SystemExit(0)
"""


def write_plugin(folder: Path, module: str, extra: str = "") -> None:
    file = folder.joinpath(*module.split(".")).with_suffix(".py")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(PLUGIN.format(where=str(folder)) + extra)


def config(kind: str, **fields: object) -> PluginConfig:
    return PluginConfig.model_validate({"name": "p", "kind": kind, **fields})


def loader_for(*folders: Path) -> PluginLoader:
    loader = PluginLoader()
    loader.append_to_search_path([str(folder) for folder in folders])
    return loader


def register(monkeypatch: pytest.MonkeyPatch, **names: str) -> None:
    """Register kinds as installed packages would."""
    entries = {
        name.replace("__", "."): (EntryPoint(name=name, value=value, group=kinds.GROUP),)
        for name, value in names.items()
    }
    # No package can be installed in a test run, so the list of what is registered is replaced.
    monkeypatch.setattr(kinds, "registered_kinds", lambda: entries)


async def test_a_dotted_path_becomes_an_initialised_plugin(tmp_path: Path) -> None:
    write_plugin(tmp_path, "e_one.inner")
    loader = loader_for(tmp_path)
    plugin = await loader.load_and_instantiate_plugin(config("e_one.inner.Mine"))
    assert isinstance(plugin, Plugin)
    assert plugin.events == ["initialize"]  # type: ignore[attr-defined]  # a field of the class in the file
    assert list(loader._plugin_types) == ["e_one.inner.Mine"]
    await loader.shutdown()
    assert loader._plugin_types == {}


@pytest.mark.conformance("D10")
def test_the_plugin_gets_a_configuration_of_its_own(tmp_path: Path) -> None:
    write_plugin(tmp_path, "e_own")
    trusted = config("e_own.Mine", config={"deep": {"list": [1]}})
    plugin = loader_for(tmp_path).construct(trusted)
    assert plugin.config.config is not None
    plugin.config.config["deep"]["list"].append(2)
    assert trusted.config == {"deep": {"list": [1]}}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("e_none.Foo", "kind `e_none.Foo`: there is no module `e_none`; add the folder of the module to `plugin_dirs`"),
        ("json.Foo", "kind `json.Foo`: module `json` has no class `Foo`"),
        (
            "json.JSONDecodr",
            "kind `json.JSONDecodr`: module `json` has no class `JSONDecodr`; did you mean `JSONDecoder`?",
        ),
        ("json.loads", "kind `json.loads` names a function, which is not derived from `cpex.framework.Plugin`"),
        ("collections.OrderedDict", "kind `collections.OrderedDict` names class OrderedDict, which is not derived"),
        ("os.path", "kind `os.path`: importing `os` failed: ImportError: plugin module 'os' is blocked for security"),
        ("a/b.C", "invalid characters"),
        ("external_plugin", "unknown kind `external_plugin`: it is neither a dotted path nor a registered name"),
        ("externl", "did you mean `external`?"),
        ("native", "plugins of kind `native` have no loader; write the dotted path of the plugin's class as its kind"),
        ("", "unknown kind"),
    ],
)
def test_a_kind_that_leads_nowhere_says_why(kind: str, message: str) -> None:
    with pytest.raises(PluginKindError) as caught:
        PluginLoader().resolve(config(kind))
    assert message in str(caught.value)
    assert isinstance(caught.value, PluginError)
    assert isinstance(caught.value, ImportError)
    assert caught.value.error.plugin_name == "p"


def test_a_missing_dependency_is_named_and_the_cause_is_kept(tmp_path: Path) -> None:
    write_plugin(tmp_path, "e_needs", "\nimport e_redis.client\n")
    with pytest.raises(PluginKindError) as caught:
        loader_for(tmp_path).resolve_kind("e_needs.Mine")
    assert str(caught.value) == (
        "kind `e_needs.Mine`: module `e_needs` needs `e_redis`, which is missing; install what provides it"
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_module_that_fails_to_import_keeps_its_cause(tmp_path: Path) -> None:
    write_plugin(tmp_path, "e_breaks", "\n1 / 0\n")
    with pytest.raises(PluginKindError, match="importing `e_breaks` failed: ZeroDivisionError") as caught:
        loader_for(tmp_path).resolve_kind("e_breaks.Mine")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_what_a_constructor_raises_reaches_the_caller(tmp_path: Path) -> None:
    write_plugin(tmp_path, "e_raises", "\n    def __init__(self, config):\n        raise KeyError('x')\n")
    with pytest.raises(KeyError):
        await loader_for(tmp_path).load_and_instantiate_plugin(config("e_raises.Mine"))


async def test_a_plugin_that_exits_while_it_starts_has_failed_and_the_process_goes_on(tmp_path: Path) -> None:
    write_plugin(tmp_path, "e_exits", EXITS)
    loader = loader_for(tmp_path)
    with pytest.raises(PluginError, match=r"initialize\(\) of plugin p called sys\.exit\(\)"):
        await loader.load_and_instantiate_plugin(config("e_exits.Exits"))
    assert loader.resolve_kind("e_exits.Mine").events == ["shutdown"]
    write_plugin(tmp_path, "e_exits_at_once", "\nraise SystemExit(0)\n")
    with pytest.raises(PluginKindError, match=r"importing `e_exits_at_once` called sys\.exit\(\); put what is run"):
        loader.construct(config("e_exits_at_once.Mine"))


async def test_a_plugin_whose_start_fails_is_shut_down(tmp_path: Path) -> None:
    write_plugin(tmp_path, "e_fails", "\n    async def initialize(self):\n        raise TimeoutError('mine')\n")
    loader = loader_for(tmp_path)
    with pytest.raises(TimeoutError, match="mine"):
        await loader.load_and_instantiate_plugin(config("e_fails.Mine"))
    assert loader.resolve_kind("e_fails.Mine").events == ["shutdown"]  # type: ignore[attr-defined]  # as above


@pytest.mark.conformance("D18")
async def test_a_start_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    write_plugin(
        tmp_path,
        "e_hangs",
        "\n    async def initialize(self):\n        import asyncio\n        await asyncio.Event().wait()\n",
    )
    loader = loader_for(tmp_path)
    with pytest.raises(PluginTimeoutError) as caught:
        await loader.load_and_instantiate_plugin(config("e_hangs.Mine", initialize_timeout_s=0.01))
    assert str(caught.value) == (
        "Plugin p did not finish initialize() within 0.01s; see what it waits for, or raise its `initialize_timeout_s`"
    )
    assert loader.resolve_kind("e_hangs.Mine").events == ["shutdown"]  # type: ignore[attr-defined]  # as above


async def test_a_cancelled_start_is_cleaned_up_and_stays_cancelled(tmp_path: Path) -> None:
    write_plugin(
        tmp_path,
        "e_waits",
        "\n    async def initialize(self):\n        import asyncio\n        self.events.append('waits')\n"
        "        await asyncio.Event().wait()\n",
    )
    loader = loader_for(tmp_path)
    events = loader.resolve_kind("e_waits.Mine").events  # type: ignore[attr-defined]  # as above
    task = asyncio.create_task(loader.load_and_instantiate_plugin(config("e_waits.Mine")))
    # One turn of the loop takes the task to where it waits.
    await asyncio.sleep(0)
    assert events == ["waits"]
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert events == ["waits", "shutdown"]


@pytest.mark.conformance("D28")
def test_a_registered_name_becomes_its_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plugin(tmp_path, "e_package.plugin")
    monkeypatch.syspath_prepend(str(tmp_path))
    register(monkeypatch, pii_filter="e_package.plugin:Mine", short__Name="e_package.plugin:Mine")
    loader = PluginLoader()
    assert loader.resolve_kind("pii_filter").__name__ == "Mine"
    assert loader.resolve_kind("short.Name") is loader.resolve_kind("pii_filter")


@pytest.mark.conformance("D28")
def test_a_module_of_plugin_dirs_wins_over_a_registered_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plugin(tmp_path, "e_short")
    write_plugin(tmp_path / "package", "e_registered")
    monkeypatch.syspath_prepend(str(tmp_path / "package"))
    register(monkeypatch, e_short__Mine="e_registered:Mine", e_short__Other="e_registered:Mine")
    loader = loader_for(tmp_path)
    assert loader.resolve_kind("e_short.Mine").__module__ == "e_short"
    assert loader.resolve_kind("e_short.Other").__module__ == "e_registered", "the module has no class of that name"


@pytest.mark.conformance("D28")
def test_a_registered_name_that_is_importable_too_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plugin(tmp_path, "e_elsewhere")
    write_plugin(tmp_path, "e_target")
    monkeypatch.syspath_prepend(str(tmp_path))
    register(monkeypatch, e_elsewhere__Mine="e_target:Mine")
    with pytest.raises(PluginKindError) as caught:
        PluginLoader().resolve_kind("e_elsewhere.Mine")
    assert str(caught.value) == (
        "kind `e_elsewhere.Mine` is ambiguous: registered for `e_target:Mine` (an unnamed package), and importable "
        f"from {tmp_path}/e_elsewhere.py; for the first write `e_target.Mine`, for the other name its folder in "
        "`plugin_dirs`"
    )


def test_a_name_registered_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = tuple(EntryPoint(name="twice", value=value, group=kinds.GROUP) for value in ("a:A", "b:B"))
    # As in `register`.
    monkeypatch.setattr(kinds, "registered_kinds", lambda: {"twice": entries})
    with pytest.raises(PluginKindError, match=r"registered more than once, by `a:A` .* and `b:B` "):
        PluginLoader().resolve_kind("twice")


@pytest.mark.conformance("D28")
def test_the_short_names_of_the_built_in_plugins_are_registered() -> None:
    assert "security.TokenBudgetPlugin" in registered_kinds()
    assert registered_kinds() is registered_kinds(), "read once per process"


@pytest.mark.parametrize("package", [False, True])
def test_two_configurations_may_have_modules_of_one_name(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, package: bool
) -> None:
    module = "e_same.sub.mod" if package else "e_same"
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        write_plugin(folder, module, "\nfrom . import helper\n" if package else "")
        if package:
            (folder / "e_same" / "__init__.py").touch()
            (folder / "e_same" / "sub" / "helper.py").touch()
    with caplog.at_level(logging.WARNING):
        classes = [loader_for(folder).resolve_kind(f"{module}.Mine") for folder in folders]
    assert [cls.WHERE for cls in classes] == [str(folder) for folder in folders]  # type: ignore[attr-defined]  # as above
    (record,) = caplog.records
    assert str(folders[1]) in record.getMessage()
    assert sys.modules["e_same"] is not sys.modules[classes[1].__module__.partition(".")[0]]


def test_a_module_of_plugin_dirs_is_not_hidden_by_another_on_the_search_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plugin(tmp_path / "library", "e_hidden")
    write_plugin(tmp_path / "plugins", "e_hidden")
    monkeypatch.syspath_prepend(str(tmp_path / "library"))
    cls = loader_for(tmp_path / "plugins").resolve_kind("e_hidden.Mine")
    assert str(tmp_path / "plugins") == cls.WHERE  # type: ignore[attr-defined]  # as above


def test_a_module_named_like_one_of_the_standard_library_is_not_taken_from_plugin_dirs(tmp_path: Path) -> None:
    write_plugin(tmp_path, "os")
    with pytest.raises(PluginKindError, match="blocked for security"):
        loader_for(tmp_path).resolve_kind("os.Mine")


def test_a_folder_without_init_can_hold_plugins(tmp_path: Path) -> None:
    write_plugin(tmp_path, "e_namespace.mod")
    assert loader_for(tmp_path).resolve_kind("e_namespace.mod.Mine").__module__ == "e_namespace.mod"


@pytest.mark.parametrize(
    ("fields", "transport"),
    [
        ({"kind": "external", "unix_socket": {"path": "/s"}}, "external over unix_socket"),
        ({"kind": "external", "grpc": {"target": "h:1"}}, "external over grpc"),
        ({"kind": "external", "mcp": {"proto": "STREAMABLEHTTP", "url": "http://h.example"}}, "external over mcp"),
        ({"kind": "isolated_venv"}, "isolated_venv"),
        ({"kind": "a.B"}, None),
    ],
)
def test_plugins_that_run_elsewhere_are_reached_by_their_transport(
    fields: dict[str, object], transport: str | None
) -> None:
    assert kinds.transport_of(PluginConfig.model_validate({"name": "p", **fields})) == transport


def test_a_transport_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    # Every transport is installed here.
    monkeypatch.setitem(kinds.TRANSPORTS, "isolated_venv", "cpex.framework.e_absent.client:Client")
    with pytest.raises(PluginKindError) as caught:
        PluginLoader().construct(config("isolated_venv"))
    assert str(caught.value) == (
        "plugins of kind `isolated_venv` need module `cpex.framework.e_absent`, which is missing; install a release of "
        "cpex that has it"
    )


def test_an_isolated_plugin_is_told_the_plugin_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_plugin(
        tmp_path, "e_isolated", "\n    def __init__(self, config, plugin_dirs):\n        self.dirs = plugin_dirs\n"
    )
    loader = loader_for(tmp_path)
    # The real one would keep the folders to itself.
    monkeypatch.setitem(kinds.TRANSPORTS, "isolated_venv", "e_isolated:Mine")
    assert loader.construct(config("isolated_venv")).dirs == [str(tmp_path)]  # type: ignore[attr-defined]  # as above


def test_a_prepared_class_is_used_for_its_kind() -> None:
    loader = PluginLoader()
    loader._plugin_types["nowhere.Mine"] = Plugin
    assert type(loader.construct(config("nowhere.Mine"))) is Plugin


@pytest.mark.conformance("D26")
def test_relative_folders_are_looked_for_beside_the_configuration_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("conf/both", "cwd/both", "cwd/only"):
        (tmp_path / folder).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "cwd")
    (tmp_path / "conf" / "c.yaml").touch()
    for base in (tmp_path / "conf" / "c.yaml", tmp_path / "conf"):
        loader = PluginLoader()
        loader.append_to_search_path(["both", "only"], base=base)
        assert loader.plugin_dirs == [str(tmp_path / "conf" / "both"), str(tmp_path / "cwd" / "only")]


def test_folders_are_appended_to_the_search_path_once(tmp_path: Path) -> None:
    before = len(sys.path)
    loader = loader_for(tmp_path, tmp_path)
    loader.append_to_search_path([str(tmp_path)])
    assert sys.path[before:] == [str(tmp_path)]
    assert loader.plugin_dirs == [str(tmp_path)]


@pytest.mark.conformance("D26")
def test_missing_and_world_writable_folders_are_named_in_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    open_folder = tmp_path / "open"
    open_folder.mkdir()
    open_folder.chmod(0o777)
    loader = PluginLoader()
    loader.append_to_search_path(["none", str(open_folder)], base=tmp_path / "c.yaml")
    assert loader.plugin_dirs == [str(open_folder)]
    assert [record.getMessage() for record in caplog.records] == [
        f"Plugin folder none does not exist; looked in {tmp_path}/none, {Path.cwd()}/none",
        f"Plugin folder {open_folder} is world-writable: anyone on this machine can change plugins",
    ]


def test_the_usual_folders_are_listed() -> None:
    assert "/var/lib/cpex/plugins" in ALLOWED_PLUGIN_DIRS


def loader_beside(folder: Path) -> PluginLoader:
    """The loader of a configuration in a folder, which names no folders itself."""
    loader = PluginLoader()
    loader.append_to_search_path([], base=folder / "plugins.yaml")
    return loader


def where(cls: type[Plugin]) -> str:
    """The folder that a class of `PLUGIN` was written to."""
    return str(vars(cls)["WHERE"])


@pytest.mark.parametrize("module", ["e_beside", "e_package.inner"])
def test_a_module_that_is_nowhere_else_is_found_beside_the_configuration(tmp_path: Path, module: str) -> None:
    write_plugin(tmp_path, module)
    path = list(sys.path)
    assert where(loader_beside(tmp_path).resolve_kind(f"{module}.Mine")) == str(tmp_path)
    # Nothing else of that folder becomes importable.
    assert sys.path == path
    assert module not in sys.modules
    with pytest.raises(PluginKindError, match="there is no module"):
        PluginLoader().resolve_kind(f"{module}.Mine")


def test_two_configurations_have_each_its_own_module_beside_them(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_plugin(tmp_path / name, "e_same")
    found = [where(loader_beside(tmp_path / name).resolve_kind("e_same.Mine")) for name in ("a", "b", "a")]
    assert found == [str(tmp_path / "a"), str(tmp_path / "b"), str(tmp_path / "a")]


def test_what_is_installed_or_registered_goes_before_what_lies_beside_the_configuration(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed, beside = tmp_path / "installed", tmp_path / "beside"
    for folder in (installed, beside):
        write_plugin(folder, "e_installed")
    write_plugin(beside, "security")
    monkeypatch.syspath_prepend(str(installed))
    loader = loader_beside(beside)
    assert where(loader.resolve_kind("e_installed.Mine")) == str(installed)
    assert loader.resolve_kind("security.TokenBudgetPlugin").__module__.startswith("cpex.")


def test_a_module_beside_the_configuration_that_cannot_be_imported_says_why(tmp_path: Path) -> None:
    write_plugin(tmp_path, "e_needs", "import e_not_there\n")
    write_plugin(tmp_path, "e_breaks", "1 / 0\n")
    loader = loader_beside(tmp_path)
    with pytest.raises(PluginKindError, match="module `e_needs` needs `e_not_there`, which is missing"):
        loader.resolve_kind("e_needs.Mine")
    with pytest.raises(PluginKindError, match="importing `e_breaks` failed: ZeroDivisionError"):
        loader.resolve_kind("e_breaks.Mine")


def test_a_world_writable_folder_of_the_configuration_is_named_when_a_plugin_comes_from_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_plugin(tmp_path, "e_anyone")
    tmp_path.chmod(0o777)
    loader = loader_beside(tmp_path)
    assert caplog.messages == []
    loader.resolve_kind("e_anyone.Mine")
    assert caplog.messages == [f"Plugin folder {tmp_path} is world-writable: anyone on this machine can change plugins"]
