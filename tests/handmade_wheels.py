"""Wheels made by hand, so that pip can install something without an index and without building anything.

Source: PEP 427.
"""

from __future__ import annotations

import base64
import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

import cpex

ROOT = Path(cpex.__file__).parent


def make_wheel(
    folder: Path, name: str, version: str, files: Mapping[str, str | bytes], requires: tuple[str, ...] = ()
) -> Path:
    """A wheel of some files, given by their path in it.

    Args:
        folder: Made if it is not there.
        requires: What it needs, as in `Requires-Dist`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{name.replace('-', '_')}-{version}"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}", *(f"Requires-Dist: {r}" for r in requires)]
    written = {
        **files,
        f"{stem}.dist-info/METADATA": "\n".join(metadata) + "\n",
        f"{stem}.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(_line_of_record(path, content) for path, content in written.items())
    written[f"{stem}.dist-info/RECORD"] = record + f"{stem}.dist-info/RECORD,,\n"
    path = folder / f"{stem}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for member, content in written.items():
            wheel.writestr(member, content)
    return path


def _line_of_record(path: str, content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    return f"{path},sha256={digest},{len(data)}\n"


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
