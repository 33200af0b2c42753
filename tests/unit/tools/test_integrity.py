"""Hashes of downloaded packages: asked for, found, compared."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from handmade_wheels import make_wheel
from package_index import PackageIndex, running_index
from ports import free_port

from cpex.tools.integrity import (
    IntegrityVerificationError,
    compute_file_hash,
    fetch_pypi_package_hashes,
    find_matching_hash,
    index_url,
    verify_package_integrity,
)

SHA = hashlib.sha256(b"content").hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "Pkg-1.0-py3-none-any.whl"
    path.write_bytes(b"content")
    return path


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PackageIndex]:
    # A name that ends in letters of the word `json`, which a careless address would lose.
    for version in ("1.0", "1.1"):
        make_wheel(tmp_path / "wheels", "my-json", version, {"my_json.py": ""})
    with running_index(tmp_path / "wheels") as index:
        monkeypatch.setenv("PIP_INDEX_URL", index.url)
        yield index


def test_a_file_is_hashed_and_what_cannot_be_is_told(file: Path, tmp_path: Path) -> None:
    assert compute_file_hash(file) == SHA
    assert compute_file_hash(str(file), "md5") == hashlib.md5(b"content").hexdigest()
    with pytest.raises(FileNotFoundError, match=r"^File not found"):
        compute_file_hash(tmp_path / "none")
    with pytest.raises(ValueError, match=r"^Unsupported hash algorithm: sha0$"):
        compute_file_hash(file, "sha0")


@pytest.mark.conformance("P19")
def test_the_index_of_pip_is_asked_for_one_version_or_the_latest_page(index: PackageIndex) -> None:
    assert index_url() == index.url
    assert list(fetch_pypi_package_hashes("my-json", "1.0")) == ["my_json-1.0-py3-none-any.whl"]
    assert len(fetch_pypi_package_hashes("my-json")) == 2
    assert index.asked == ["/pypi/my-json/1.0/json", "/pypi/my-json/json"]


def test_an_index_without_that_api_is_asked_by_the_simple_one(index: PackageIndex) -> None:
    index.without_json = True
    assert list(fetch_pypi_package_hashes("my-json", "1.1")) == ["my_json-1.1-py3-none-any.whl"]


def test_files_without_a_hash_are_left_out(index: PackageIndex) -> None:
    index.without_hashes = True
    assert fetch_pypi_package_hashes("my-json") == {}


def test_an_unknown_package_and_a_silent_index_are_told_apart(
    index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RuntimeError, match=r"^Package 'nothing' not found on PyPI$"):
        fetch_pypi_package_hashes("nothing")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://localhost:{free_port()}/simple")
    with pytest.raises(RuntimeError, match=r"^Network error"):
        fetch_pypi_package_hashes("my-json")


def test_a_hash_is_found_by_file_name_in_any_case(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    hashes = {"pkg-1.0-py3-none-any.whl": {"sha256": SHA, "url": ""}}
    assert find_matching_hash(file, hashes) == SHA
    assert find_matching_hash(file, {}, "pkg") is None
    assert "no hash for Pkg-1.0-py3-none-any.whl of package pkg" in caplog.text


def test_a_file_is_compared_in_any_case_and_a_difference_is_an_error_or_told(file: Path, tmp_path: Path) -> None:
    assert verify_package_integrity(file, SHA.upper())
    assert verify_package_integrity(file, "0" * 64, strict=False) is False
    with pytest.raises(IntegrityVerificationError) as caught:
        verify_package_integrity(file, "0" * 64, "pkg")
    error = caught.value
    assert (error.package_name, error.expected_hash, error.actual_hash) == ("pkg", "0" * 64, SHA)
    assert all(part in str(error) for part in ("pkg", "0" * 16, SHA[:16]))
    with pytest.raises(FileNotFoundError, match=r"^Package file not found"):
        verify_package_integrity(tmp_path / "none", SHA)
