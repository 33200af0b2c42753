"""Which environments are taken for the one that a plugin asks for."""

from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cpex.framework.isolated.record import Wanted, read_record, write_record


@pytest.fixture
def wanted(tmp_path: Path) -> Wanted:
    """A plugin with a requirements file and a manifest."""
    (tmp_path / "requirements.txt").write_text("a==1\n")
    (tmp_path / "manifest").write_text("name: a\n")
    return Wanted("pkg.A", tmp_path / ".venv", tmp_path / "requirements.txt", tmp_path / "manifest", "1")


def of_release_0_1(wanted: Wanted) -> dict[str, Any]:
    """The record as that release writes it."""
    return {name: value for name, value in wanted.record().items() if name not in ("classes", "installed")}


def test_a_record_of_the_same_things_fits(wanted: Wanted) -> None:
    assert wanted.mismatch(wanted.record()) is None
    assert wanted.mismatch(of_release_0_1(wanted)) is None


@pytest.mark.parametrize("form", ["ours", "of release 0.1"])
def test_what_has_changed_is_told(wanted: Wanted, form: str) -> None:
    record = wanted.record() if form == "ours" else of_release_0_1(wanted)
    assert replace(wanted, version="2").mismatch(record) == "the plugin's version has changed"
    wanted.manifest.write_text("name: b\n")
    assert wanted.mismatch(record) == "the plugin's manifest has changed"
    assert wanted.requirements is not None
    wanted.requirements.write_text("a==2\n")
    assert wanted.mismatch(record) == "its requirements file has changed"
    wanted.requirements.unlink()
    assert wanted.mismatch(record) == "its requirements file has changed"
    assert wanted.mismatch(None) == "there is no record of a finished build"


@pytest.mark.conformance("V4")
def test_an_environment_of_another_python_does_not_fit(wanted: Wanted) -> None:
    assert wanted.mismatch({**wanted.record(), "python_version": "3.2.7"}) == "it was made by Python 3.2.7"
    # Repairs of the same Python do no harm.
    same = platform.python_version().rpartition(".")[0] + ".99"
    assert wanted.mismatch({**wanted.record(), "python_version": same}) is None


def test_a_key_that_an_older_host_did_not_write_is_no_mismatch(wanted: Wanted) -> None:
    record = of_release_0_1(wanted)
    for name in ("manifest_version", "manifest_hash", "python_version"):
        del record[name]
    assert wanted.mismatch(record) is None


@pytest.mark.conformance("V22")
def test_classes_of_one_package_do_not_take_each_others_record_for_outdated(wanted: Wanted) -> None:
    other = replace(wanted, class_name="pkg.B", version="7")
    record = wanted.record()
    assert (other.mismatch(record), other.missing_in(record)) == (None, True)
    both = other.record(former=record)
    for each in (wanted, other):
        assert (each.mismatch(both), each.missing_in(both)) == (None, False)
    assert replace(wanted, version="2").mismatch(both) == "the plugin's version has changed"


def test_without_files_the_hashes_are_those_of_nothing(tmp_path: Path) -> None:
    record = Wanted("pkg.A", tmp_path, None, tmp_path / "absent", None).record()
    nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert (record["requirements_file"], record["requirements_hash"], record["manifest_hash"]) == (
        None,
        nothing,
        nothing,
    )


def test_a_record_is_written_whole_or_not_at_all(tmp_path: Path, wanted: Wanted) -> None:
    write_record(tmp_path, wanted.record())
    assert read_record(tmp_path) == wanted.record()
    with pytest.raises(TypeError):
        write_record(tmp_path, {"cannot": object()})
    assert read_record(tmp_path) == wanted.record()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".record")] == []
    (tmp_path / ".venv_metadata.json").write_text("[1]")
    assert read_record(tmp_path) is None
