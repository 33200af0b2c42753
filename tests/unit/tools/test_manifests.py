"""Manifests and packages: kinds, older spellings, archives that would do harm."""

from __future__ import annotations

import io
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from cpex.framework.settings import get_catalog_settings
from cpex.tools import catalog, manifests, settings
from cpex.tools.manifests import (
    classify_plugin_kind,
    convert_fqn_kind_in_place,
    manifest_in,
    manifest_of,
    supported_kinds_message,
    unpack,
)

BARE = {
    "kind": "pkg.plugin.Guard",
    "description": "d",
    "author": "a",
    "version": "1.0",
    "available_hooks": ["tool_pre_invoke"],
    "default_config": {},
}


def text(**changes: Any) -> str:
    return yaml.safe_dump({**BARE, **changes})


def test_functions_and_settings_are_where_release_0_1_has_them() -> None:
    for name in ("classify_plugin_kind", "convert_fqn_kind_in_place", "supported_kinds_message"):
        assert getattr(catalog, name) is getattr(manifests, name)
    assert settings.get_catalog_settings is get_catalog_settings


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        *((word, "known") for word in ("builtin", "native", "wasm", "external", "isolated_venv", "PDP", " PDP ")),
        *((path, "fqn") for path in ("a.B", "pkg.mod.Class", "_x.Y1")),
        *((other, "reject") for other in ("pdp", "Class", "a.b", "a..B", "a.B()", "1a.B", "", "a.B.c", "../x.B")),
    ],
)
def test_a_kind_is_a_known_word_a_class_or_refused(kind: str, found: str) -> None:
    assert classify_plugin_kind(kind) == found


def test_a_class_path_becomes_an_environment_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    data = convert_fqn_kind_in_place({"kind": "a.B", "default_config": None})
    assert data == {"kind": "isolated_venv", "default_config": {"class_name": "a.B"}}
    data = convert_fqn_kind_in_place({"kind": "a.B", "default_config": {"class_name": "c.D"}})
    assert data["default_config"] == {"class_name": "c.D"}
    assert "'c.D' differs from its kind 'a.B' and wins" in caplog.text
    assert convert_fqn_kind_in_place({"kind": "a.B"}, convert=False) == {"kind": "a.B"}


def test_a_refused_kind_is_an_error_or_without_conversion_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ValueError, match=r"^unsupported plugin kind 'nope'; supported kinds: builtin, native"):
        convert_fqn_kind_in_place({"kind": "nope"})
    convert_fqn_kind_in_place({"kind": "nope"}, convert=False)
    assert supported_kinds_message() in caplog.text


def test_a_manifest_gets_what_installers_fill_in() -> None:
    manifest = manifest_of(text(), "my-guard")
    assert (manifest.name, manifest.tags, manifest.kind) == ("my-guard", [], "isolated_venv")
    older = {key: value for key, value in BARE.items() if key != "default_config"}
    assert manifest_of(yaml.safe_dump({**older, "default_configs": None}), "x", convert=False).default_config == {}
    assert manifest_of(text(default_config=None), "x", convert=False).default_config == {}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a: [", "Failed to parse manifest YAML of x: "),
        ("- a", "Invalid manifest format of x: it must be a mapping"),
        ("kind: a.B", "Failed to validate manifest of x: PluginManifest: description: Field required"),
        (text(kind="nope"), "Failed to validate manifest of x: unsupported plugin kind 'nope'"),
        (text(kind="wasm"), "Failed to validate manifest of x: kind `wasm` names no class, so nothing could be loaded"),
        (text(name="../x"), "Failed to validate manifest of x: `name: '../x'` cannot be a folder's name"),
        (text(name=""), "Failed to validate manifest of x: `name: ''` cannot be a folder's name"),
    ],
)
def test_what_is_no_manifest_is_told(content: str, message: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        manifest_of(content, "x")
    assert str(caught.value).startswith(message)


def test_the_manifest_nearest_to_the_top_counts(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for folder in ("a/b", "z"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "plugin-manifest.yaml").write_text("")
    assert manifest_in(tmp_path) == tmp_path / "z" / "plugin-manifest.yaml"
    with pytest.raises(FileNotFoundError, match=r"^plugin-manifest.yaml not found in b$"):
        manifest_in(tmp_path / "b")


@pytest.mark.parametrize("name", ["../out.txt", "/tmp/cpex-out.txt", "a/../../out.txt"])
def test_an_archive_that_would_write_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    with zipfile.ZipFile(tmp_path / "p.whl", "w") as archive:
        archive.writestr(name, "x")
    with tarfile.open(tmp_path / "p.tar.gz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo(name), io.BytesIO())
    for file in ("p.whl", "p.tar.gz"):
        folder = tmp_path / file.replace(".", "_")
        folder.mkdir()
        if file == "p.tar.gz" and name.startswith("/"):
            # The safe filter takes such a name for one below the folder.
            unpack(tmp_path / file, folder)
            assert (folder / "tmp" / "cpex-out.txt").exists()
            continue
        with pytest.raises(RuntimeError, match=rf"^Unsafe path in {file}"):
            unpack(tmp_path / file, folder)
    assert not (tmp_path / "out.txt").exists()


def test_other_forms_and_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "p.rar").write_text("")
    with pytest.raises(RuntimeError, match=r"^Unsupported package format: p.rar$"):
        unpack(tmp_path / "p.rar", tmp_path)
    with zipfile.ZipFile(tmp_path / "p.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("big", "x" * 1000)
    # The bound is no setting, and an archive of that size would take minutes.
    monkeypatch.setattr("cpex.tools.manifests.MAX_UNPACKED_BYTES", 999)
    with pytest.raises(RuntimeError, match=r"^p.zip would unpack to more than 999 bytes$"):
        unpack(tmp_path / "p.zip", tmp_path)


@pytest.mark.conformance("P27")
def test_hooks_that_are_none_are_told_when_a_plugin_is_to_be_installed(caplog: pytest.LogCaptureFixture) -> None:
    hooks = ["tool_pre_invoke", "prompt_pre_hook", "banking_before_transfer"]
    read = manifest_of(text(available_hooks=hooks), "guard")
    assert read.available_hooks == hooks
    assert caplog.messages == [
        "The manifest of guard lists hook `prompt_pre_hook`, which is not known here; did you mean `prompt_pre_fetch`?",
        "The manifest of guard lists hook `banking_before_transfer`, which is not known here; if the plugin does not "
        "define it, it is never called",
    ]
    caplog.clear()
    manifest_of(text(available_hooks=hooks), "guard", require_runnable=False)
    assert not caplog.messages, "looking through a catalogue installs nothing"
