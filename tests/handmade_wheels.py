"""Wheels made by hand, so that pip can install something without an index and without building anything."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import cpex

ROOT = Path(cpex.__file__).parent


def make_wheel(folder: Path, name: str, version: str, files: Mapping[str, str | bytes]) -> Path:
    """A wheel of some files, given by their path in it; it requires nothing."""
    module = name.replace("-", "_")
    info = f"{module}-{version}.dist-info"
    metadata = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    listed = "".join(f"{path},,\n" for path in [*files, *metadata, f"{info}/RECORD"])
    path = folder / f"{module}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, content in {**files, **metadata, f"{info}/RECORD": listed}.items():
            wheel.writestr(member, content)
    return path


def wheel_of_this_package(folder: Path, version: str, more: Mapping[str, str] | None = None) -> Path:
    """A wheel of the working tree, without its requirements.

    Args:
        more: Files to put beside the package.
    """
    files: dict[str, str | bytes] = {
        f"cpex/{path.relative_to(ROOT).as_posix()}": path.read_bytes()
        for path in sorted(ROOT.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    return make_wheel(folder, "cpex", version, {**files, **(more or {})})
