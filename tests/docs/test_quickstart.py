"""The quick start's first step, and the step that `cpex init` names next, as somebody new takes them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from doc_blocks import ROOT, environment, noted

LIMIT_S = 600


def typed(commands: str, folder: Path) -> str:
    """What a shell prints that is given the commands; each has to end well."""
    # What finds packages stays; this environment's own variables are a reader's, who has none of ours.
    links = {"PIP_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", ""), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(
        ["bash", "-ec", commands],
        cwd=folder,
        env=environment(**links),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.timeout(2 * LIMIT_S)
def test_a_copy_of_the_repository_installs_and_its_first_project_passes_its_test(tmp_path: Path) -> None:
    (install,) = noted("docs/quickstart.md")
    copy = tmp_path / "copy"
    for name in ("cpex", "pyproject.toml", "README.md", "LICENSE"):
        typed(f"mkdir -p {copy} && cp -r {ROOT / name} {copy}", tmp_path)
    told = typed(f"{install}\ncd {tmp_path}\ncpex init guards", copy)
    (following,) = [line.removeprefix("next: ") for line in told.splitlines() if line.startswith("next: ")]
    assert "2 passed" in typed(f". {copy}/.venv/bin/activate\n{following}", tmp_path)
