"""Certificates of the tests' own."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def self_signed(directory: Path, host: str = "localhost") -> tuple[str, str]:
    """Paths of a certificate, which is its own authority, and its key; skips the test where there is no `openssl`."""
    if shutil.which("openssl") is None:
        pytest.skip("`openssl` is not installed (apt-get install openssl)")
    certificate, key = str(directory / f"{host}.crt"), str(directory / f"{host}.key")
    name = ["-subj", f"/CN={host}", "-addext", f"subjectAltName=DNS:{host}"]
    made = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", key, "-out", certificate]
    subprocess.run(["openssl", "req", "-x509", "-days", "2", *made, *name], check=True, capture_output=True)
    return certificate, key
