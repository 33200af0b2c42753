"""The record that tells whether an environment on disk is the one that a plugin asks for.

`.venv_metadata.json` is shared with hosts of release 0.1: they read and write it, too. A key that is missing in it
means that its writer did not look at that thing, and is no mismatch. All plugins of a package share one environment;
what each of their classes asked for stands under `classes`, so that two of them do not take each other's record for
outdated.

Source: docs/isolated.md, "When the environment is built".
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["RECORD_FILE", "Wanted", "read_record", "write_record"]

RECORD_FILE = ".venv_metadata.json"


def _hash_of(file: Path | None) -> str:
    """SHA-256 of a file's bytes, hexadecimal; of nothing when there is no such file."""
    content = b""
    if file is not None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            content = file.read_bytes()
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an environment must have been made from to be of use."""

    class_name: str
    venv: Path
    requirements: Path | None
    manifest: Path
    version: str | None
    """Of the plugin, as its configuration has it."""

    def record(self, installed: Sequence[str] = (), former: dict[str, Any] | None = None) -> dict[str, Any]:
        """The record of an environment made from this.

        Args:
            installed: What was put there beside the requirements file, as pip takes it.
            former: The record of the same environment, when it was not built anew.
        """
        found = self.requirements if self.requirements is not None and self.requirements.is_file() else None
        asked = {
            "requirements_hash": _hash_of(found),
            "manifest_version": self.version,
            "manifest_hash": _hash_of(self.manifest),
        }
        return {
            "venv_path": str(self.venv.absolute()),
            "requirements_file": str(found.absolute()) if found is not None else None,
            **asked,
            "python_version": platform.python_version(),
            "installed": [*installed, *_texts((former or {}).get("installed"))],
            "classes": {**_classes(former), self.class_name: asked},
        }

    def mismatch(self, record: dict[str, Any] | None) -> str | None:
        """Why the environment must be built anew, for a log line; `None` when it can be used, or added to."""
        if record is None:
            return "there is no record of a finished build"
        made_by = str(record.get("python_version", ""))
        if made_by and made_by.split(".")[:2] != [str(part) for part in sys.version_info[:2]]:
            return f"it was made by Python {made_by}"
        if self.missing_in(record):
            return None
        made_from = _classes(record).get(self.class_name, record)
        now = self.record()
        if made_from.get("requirements_hash") != now["requirements_hash"]:
            return "its requirements file has changed"
        for key, name in (("manifest_version", "version"), ("manifest_hash", "manifest")):
            if key in made_from and made_from[key] != now[key]:
                return f"the plugin's {name} has changed"
        return None

    def missing_in(self, record: dict[str, Any] | None) -> bool:
        """Whether the environment was made for other classes of the package only, and needs this one's requirements."""
        known = _classes(record)
        return bool(known) and self.class_name not in known


def _classes(record: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    listed = (record or {}).get("classes")
    if not isinstance(listed, dict):
        return {}
    return {name: asked for name, asked in listed.items() if isinstance(asked, dict)}


def _texts(listed: Any) -> list[str]:
    return [each for each in listed if isinstance(each, str)] if isinstance(listed, list) else []


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record in a cache folder; `None` when there is none that can be read."""
    try:
        record = json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def write_record(folder: Path, record: dict[str, Any]) -> None:
    """Write the record so that nobody ever reads a part of it."""
    handle, name = tempfile.mkstemp(dir=folder, prefix=".record-", text=True)
    with contextlib.suppress(FileNotFoundError):
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(record, file, indent=1)
            os.replace(name, folder / RECORD_FILE)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name)
