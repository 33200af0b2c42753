"""Whether a downloaded package is the one that the index has.

Source: Python Packaging User Guide, "Simple repository API" (PEP 691), and the JSON API of the index, `GET
/pypi/<project>/<version>/json`.
"""

from __future__ import annotations

import hashlib
import logging
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypedDict
from urllib.parse import quote

from cpex.framework.settings import get_catalog_settings

__all__ = [
    "FileHash",
    "IntegrityVerificationError",
    "compute_file_hash",
    "fetch_pypi_package_hashes",
    "find_matching_hash",
    "index_url",
    "verify_package_integrity",
]

logger = logging.getLogger(__name__)

_SHOWN = 16
"""Characters of a hash in messages."""
_CHUNK = 1 << 20
_SIMPLE = "application/vnd.pypi.simple.v1+json"
_PIP = (sys.executable, "-m", "pip")
_PIP_TIMEOUT_S = 60
_CONFIGURED = (":env:", "download", "install", "global")
"""Sections of pip's configuration, the one that counts first."""
# Only pip itself knows its own default and the test index.
_DEFAULT = re.compile(r"\(default\s+(https?://[^\s)]+)\)")
_ASK_TEST = "from pip._internal.models.index import TestPyPI; print(TestPyPI.simple_url)"


class FileHash(TypedDict):
    """What the index says of one file."""

    sha256: str
    url: str


class IntegrityVerificationError(Exception):
    """A package is not the one that was expected."""

    def __init__(self, package_name: str, expected_hash: str, actual_hash: str) -> None:
        super().__init__(
            f"integrity of `{package_name}` cannot be confirmed: expected SHA-256 {expected_hash[:_SHOWN]}…, the file "
            f"has {actual_hash[:_SHOWN]}…; it was changed on its way, so it is not installed"
        )
        self.package_name = package_name
        self.expected_hash = expected_hash
        self.actual_hash = actual_hash


def compute_file_hash(path: str | Path, algorithm: str = "sha256") -> str:
    """The hash of a file, in hexadecimal digits.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The algorithm is not known.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"File not found: {path}")
    try:
        digest = hashlib.new(algorithm)
    except ValueError as error:
        raise ValueError(f"Unsupported hash algorithm: {algorithm}") from error
    with Path(path).open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def index_url(use_test: bool = False) -> str:
    """The index that pip is configured with, or the test index: the one in the settings, else the one that pip knows.

    Returns:
        Its address, without a slash at the end.

    Raises:
        RuntimeError: pip does not say.
    """
    if use_test:
        given = get_catalog_settings().test_index_url
        if given is not None:
            return given.get_secret_value().rstrip("/")
        return _told([sys.executable, "-c", _ASK_TEST]).strip().rstrip("/")
    listed = dict(line.partition("=")[::2] for line in _told([*_PIP, "config", "list"]).splitlines())
    for section in _CONFIGURED:
        if (found := listed.get(f"{section}.index-url")) is not None:
            return found.strip("'\"").rstrip("/")
    default = _DEFAULT.search(" ".join(_told([*_PIP, "download", "--help"]).split()))
    if default is None:
        raise RuntimeError("pip does not say which index it uses; set PIP_INDEX_URL")
    return default[1].rstrip("/")


def _told(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_PIP_TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(f"pip does not say which index it uses: {error}; set PIP_INDEX_URL") from error
    return done.stdout


def fetch_pypi_package_hashes(
    package: str, version: str | None = None, use_test: bool = False, timeout: float = 30.0
) -> dict[str, FileHash]:
    """What the index says of the files of a package, or of one version of it.

    Args:
        timeout: Seconds.

    Returns:
        `{file name: {"sha256": hexadecimal digits, "url": address}}`; files without a hash are left out.

    Raises:
        RuntimeError: The index does not know the package, or cannot be asked.
    """
    base = index_url(use_test)
    name = quote(package, safe="")
    project = f"{base.removesuffix('/simple')}/pypi/{name}"
    document = _get(f"{project}/{quote(version, safe='')}/json" if version else f"{project}/json", timeout)
    if document is not None:
        return _named(document.get("urls"), lambda each: (each.get("digests") or {}).get("sha256"))
    document = _get(f"{base}/{name}/", timeout)
    if document is None:
        raise RuntimeError(f"Package '{package}' not found on {'test.' if use_test else ''}PyPI")
    found = _named(document.get("files"), lambda each: (each.get("hashes") or {}).get("sha256"))
    return {file: known for file, known in found.items() if version is None or f"-{version}" in file}


def _get(url: str, timeout: float) -> dict[str, Any] | None:
    """A JSON document; `None` when the index has no such page, or one that is not JSON."""
    import httpx2

    try:
        response = httpx2.get(url, timeout=timeout, follow_redirects=True, headers={"Accept": _SIMPLE})
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
        raise RuntimeError(
            f"Network error while asking the index for hashes: {str(error) or type(error).__name__}"
        ) from error
    if response.status_code == 404:
        return None
    if not response.is_success:
        raise RuntimeError(f"Network error while asking the index for hashes: HTTP {response.status_code}")
    try:
        document = response.json()
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _named(files: Any, sha256_of: Any) -> dict[str, FileHash]:
    listed = [each for each in files if isinstance(each, dict)] if isinstance(files, list) else []
    return {
        str(each["filename"]): FileHash(sha256=str(sha256_of(each)), url=str(each.get("url", "")))
        for each in listed
        if each.get("filename") and sha256_of(each)
    }


def find_matching_hash(path: str | Path, hashes: Mapping[str, FileHash], package_name: str | None = None) -> str | None:
    """The expected hash of a file, by its name, in whatever case; `None`, with a WARNING, when there is none."""
    name = Path(path).name
    found = hashes.get(name) or next((each for file, each in hashes.items() if file.lower() == name.lower()), None)
    if found is None:
        logger.warning("The index has no hash for %s of package %s", name, package_name or name)
        return None
    return found["sha256"]


def verify_package_integrity(
    path: str | Path, expected: str, package_name: str | None = None, strict: bool = True
) -> bool:
    """Compare a file with the hash that is expected of it; case does not matter.

    Args:
        strict: Raise when they differ; otherwise return False.

    Raises:
        FileNotFoundError: There is no such file.
        IntegrityVerificationError: They differ.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"Package file not found: {path}")
    actual = compute_file_hash(path)
    if actual == expected.lower():
        return True
    if strict:
        raise IntegrityVerificationError(package_name or Path(path).name, expected, actual)
    logger.warning("Integrity of %s cannot be confirmed", package_name or Path(path).name)
    return False
