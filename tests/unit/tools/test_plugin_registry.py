"""The record of installed plugins: what goes in, and what is read of old and broken ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cpex.framework.clock import FixedClock
from cpex.framework.models.manifest import PluginManifest
from cpex.framework.settings import get_registry_settings
from cpex.tools.plugin_registry import PluginRegistry

BARE: dict[str, Any] = {
    "name": "guard",
    "kind": "isolated_venv",
    "description": "d",
    "author": "a",
    "version": "1.0",
    "tags": [],
    "available_hooks": [],
    "default_config": {},
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cpex: None) -> Path:
    monkeypatch.setenv("PLUGIN_REGISTRY_FILE", str(tmp_path / "data"))
    get_registry_settings.cache_clear()
    return tmp_path / "data"


def manifest(**origin: Any) -> PluginManifest:
    return PluginManifest.model_validate({**BARE, **origin})


@pytest.mark.parametrize(
    ("kind", "origin", "source", "stored"),
    [
        ("pypi", {"package_info": {"pypi_package": "guard-pkg"}}, "guard-pkg", "pypi"),
        ("test-pypi", {"package_info": {"pypi_package": "guard-pkg"}}, "guard-pkg", "pypi"),
        ("local", {"local": "/src/guard"}, "/src/guard", "local"),
        (
            "git",
            {"git_repo": {"git_repository": "https://host/r.git", "git_branch_tag_commit": "v1"}},
            "guard @ https://host/r.git@v1",
            "git",
        ),
        (
            "git",
            {"git_repo": {"git_repository": "https://host/r.git", "git_branch_tag_commit": None}},
            "guard @ https://host/r.git",
            "git",
        ),
        (
            "monorepo",
            {"monorepo": {"repo_url": "u", "package_source": "u#subdirectory=g", "package_folder": "g"}},
            "u#subdirectory=g",
            "monorepo",
        ),
    ],
)
def test_an_installation_is_noted_with_where_it_came_from(
    folder: Path, cpex_clock: FixedClock, kind: str, origin: Any, source: str, stored: str
) -> None:
    registry = PluginRegistry()
    registry.update(manifest(**origin), kind, None, "Ada", Path("/x/guard"), editable=kind == "local")
    (record,) = json.loads((folder / "installed-plugins.json").read_text())["plugins"]
    assert record == {
        "name": "guard",
        "kind": "isolated_venv",
        "version": "1.0",
        "installation_type": stored,
        "installation_path": "/x/guard",
        "installed_at": "2030-01-01T12:00:00+00:00",
        "installed_by": "Ada",
        "package_source": source,
        "editable": kind == "local",
    }
    again = PluginRegistry()
    assert again.has("guard")
    assert not again.has("Guard")
    again.update(manifest(**origin), kind, None, "Bob")
    assert [each.installed_by for each in PluginRegistry().registry.plugins] == ["Bob"]
    assert again.remove("guard")
    assert not again.remove("guard")
    assert PluginRegistry().registry.plugins == []


def test_a_manifest_without_its_origin_and_an_unknown_type_are_refused(folder: Path) -> None:
    with pytest.raises(RuntimeError, match=r"^PluginManifest.monorepo can not be None\.$"):
        PluginRegistry().update(manifest(), "monorepo", None, "Ada")
    with pytest.raises(ValueError, match=r"^Invalid installation type: bundled$"):
        PluginRegistry().update(manifest(), "bundled", None, "Ada")
    assert not folder.exists()


def test_records_of_the_published_release_are_read(folder: Path) -> None:
    folder.mkdir()
    record = {
        "name": "old",
        "kind": "isolated_venv",
        "version": "0.1",
        "installation_type": "pypi",
        "installation_path": "/x",
        "installed_at": "2025-01-01T00:00:00+00:00Z",
        "installed_by": "x",
        "package_source": "old",
        "editable": False,
    }
    (folder / "installed-plugins.json").write_text(json.dumps({"plugins": [record]}))
    found = PluginRegistry().get("old")
    assert found is not None
    assert found.installed_at.endswith("+00:00Z")


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"plugins": [{}]}'])
def test_a_broken_record_is_set_aside_aloud(folder: Path, caplog: pytest.LogCaptureFixture, content: bytes) -> None:
    folder.mkdir()
    (folder / "installed-plugins.json").write_bytes(content)
    assert PluginRegistry().registry.plugins == []
    assert (folder / "installed-plugins.json.corrupted").read_bytes() == content
    assert "is set aside as" in caplog.text
