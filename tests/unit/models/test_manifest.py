"""Manifests, version registries and the record of installed plugins."""

import json
import logging

import pytest
from pydantic import ValidationError

from cpex.framework.models import (
    GitRepo,
    InstalledPluginInfo,
    InstalledPluginRegistry,
    PluginManifest,
    PluginMode,
    PluginPackageInfo,
    PluginVersionRegistry,
    PyPiRepo,
)
from cpex.framework.settings import settings

MANIFEST = PluginManifest(
    name="My Filter",
    kind="pkg.Filter",
    description="d",
    author="a",
    version="1.0",
    tags=["t"],
    available_hooks=["tool_pre_invoke"],
    default_config={"limit": 1, "nested": {"x": 1}},
)


def installed(name, version="1.0"):
    return InstalledPluginInfo(
        name=name,
        kind="pkg.Filter",
        version=version,
        installation_type="pypi",
        installation_path="/opt/x",
        installed_at="2030-01-01T00:00:00+00:00",
        installed_by="me",
    )


def registry_of(*versions):
    return PluginVersionRegistry(
        versions=[
            {"version": version, "released": "2030", "manifest_file": "m", "min_max_framework_version": span}
            for version, span in versions
        ]
    )


def test_an_instance_takes_over_what_the_manifest_says():
    config = MANIFEST.create_instance_config(
        "mine", PluginMode.AUDIT, priority=5, config={"nested": {"y": 2}, "new": 3}
    )

    assert MANIFEST.suggest_instance_name() == "my-filter"
    assert (config.name, config.kind, config.mode, config.priority) == ("mine", "pkg.Filter", PluginMode.AUDIT, 5)
    assert (config.hooks, config.tags, config.version) == (["tool_pre_invoke"], ["t"], "1.0")
    assert config.config == {"limit": 1, "nested": {"y": 2}, "new": 3}


def test_an_instance_does_not_share_lists_with_the_manifest():
    MANIFEST.create_instance_config("mine", PluginMode.AUDIT).hooks.append("other")

    assert MANIFEST.available_hooks == ["tool_pre_invoke"]


@pytest.mark.parametrize("name", ["a", "A9", "a-b_c.d", "x" * 214])
def test_package_names_are_accepted(name):
    assert PyPiRepo(pypi_package=name).pypi_package == name


@pytest.mark.parametrize("name", [" ", "-a", "a-", "a b", "é", "x" * 215, "a\n", "a;rm"])
def test_package_names_that_the_index_would_not_have_are_refused(name):
    with pytest.raises(ValidationError):
        PyPiRepo(pypi_package=name)


@pytest.mark.parametrize("constraint", [">=1.0", ">=1,<2", ">=1, <2", "~=1.0.post1", "===1.0", ">= 1.0", "!=1.0-rc1"])
def test_version_constraints_are_accepted(constraint):
    assert PyPiRepo(pypi_package="a", version_constraint=constraint).version_constraint == constraint


@pytest.mark.parametrize(
    "constraint", [" ", "1.0", "==1.*", ">=1,,<2", "<2,", "==1.0+local", ">=1" + "0" * 260, ">=1 --x"]
)
def test_version_constraints_that_pip_could_misread_are_refused(constraint):
    with pytest.raises(ValidationError):
        PyPiRepo(pypi_package="a", version_constraint=constraint)


@pytest.mark.parametrize(
    "url", ["https://github.com/a/b", "https://h:8/a.git", "git://h/a", "git@h:a/b", "git@h/a", "http://localhost/a"]
)
def test_git_urls_are_accepted(url):
    assert GitRepo(git_repository=url, git_branch_tag_commit=None).git_repository == url


@pytest.mark.parametrize(
    "url",
    [
        " ",
        "ssh://h/a",
        "https://user@h/a",
        "https://127.0.0.1/a",
        "https://h/a b",
        "https://h/a;b",
        "http://h",
        "file:///a",
        "https://h/a\n",
        "--upload-pack=x",
    ],
)
def test_git_urls_that_could_do_more_than_fetch_are_refused(url):
    with pytest.raises(ValidationError):
        GitRepo(git_repository=url, git_branch_tag_commit=None)


@pytest.mark.parametrize("ref", ["main", "v1.0", "feature/x-1", "0123abc"])
def test_git_refs_are_accepted(ref):
    assert GitRepo(git_repository="https://h/a", git_branch_tag_commit=ref).git_branch_tag_commit == ref


@pytest.mark.parametrize("ref", [" ", "/a", "a/", "a.", ".a", "-a", "a b", "a\n", "x" * 256])
def test_git_refs_that_could_be_options_are_refused(ref):
    with pytest.raises(ValidationError):
        GitRepo(git_repository="https://h/a", git_branch_tag_commit=ref)


def test_empty_texts_become_none_and_the_revision_must_be_said():
    assert PluginPackageInfo(pypi_package="a", version_constraint="", git_repository="").version_constraint is None
    with pytest.raises(ValidationError, match="git_branch_tag_commit"):
        GitRepo(git_repository="https://h/a")


def test_a_package_needs_a_source_and_a_revision_needs_a_repository():
    with pytest.raises(ValidationError, match="either 'pypi_package' or 'git_repository'"):
        PluginPackageInfo(pypi_package="")
    with pytest.raises(ValidationError, match="'git_branch_tag_commit' needs 'git_repository'"):
        PluginPackageInfo(pypi_package="a", git_branch_tag_commit="main")


def test_the_highest_compatible_version_is_found_by_order_of_versions_not_of_text():
    registry = registry_of(("1.9", "0.1.0,0.2.0"), ("1.10", "0.1.0, 0.2.0"), ("2.0", "0.3.0,0.4.0"))

    assert registry.get_latest_compatible("0.1.0").version == "1.10"
    assert registry.get_latest_compatible("0.2.0").version == "1.10"
    assert registry.get_latest_compatible("0.3").version == "2.0"
    assert registry.get_latest_compatible("0.0.1") is None


def test_entries_that_cannot_be_read_are_passed_over():
    registry = registry_of(("9", "nonsense"), ("x.y", "0.1.0,0.2.0"), ("8", None), ("1.0", "0.1.0,0.2.0"))

    assert registry.get_latest_compatible("0.1.5").version == "1.0"


def test_an_unreadable_framework_version_is_compatible_with_nothing(caplog):
    with caplog.at_level(logging.WARNING):
        assert registry_of(("1.0", "0.1.0,0.2.0")).get_latest_compatible("latest") is None

    assert "'latest' is not a version" in caplog.text


def test_the_latest_version_is_the_one_marked_so():
    assert registry_of().get_version() is None


def test_installing_again_replaces_and_removing_tells_whether_it_was_there(tmp_path, monkeypatch):
    monkeypatch.setenv("PLUGIN_REGISTRY_FILE", str(tmp_path / "records"))
    settings.cache_clear()
    registry = InstalledPluginRegistry()

    registry.register_plugin(installed("a"))
    registry.register_plugin(installed("b"))
    registry.register_plugin(installed("a", version="2.0"))

    assert [(each.name, each.version) for each in registry.plugins] == [("b", "1.0"), ("a", "2.0")]
    assert (registry.unregister_plugin("b"), registry.unregister_plugin("b")) == (True, False)
    file = tmp_path / "records" / "installed-plugins.json"
    assert [each["name"] for each in json.loads(file.read_text())["plugins"]] == ["a"]
    assert file.read_text().startswith('{\n  "plugins"')
    assert [each.name for each in file.parent.iterdir()] == ["installed-plugins.json"]
    settings.cache_clear()


def test_a_failed_save_leaves_the_former_record_and_no_litter(tmp_path):
    target = tmp_path / "installed-plugins.json"
    target.mkdir()

    with pytest.raises(OSError):
        InstalledPluginRegistry(plugins=[installed("a")]).save(target)

    assert [each.name for each in tmp_path.iterdir()] == ["installed-plugins.json"]
