"""What `make services` does on a machine that has nothing of it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "services.sh"


def test_what_cannot_be_installed_is_named_and_does_no_harm(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in ("sh", "dirname", "id"):
        found = shutil.which(name)
        assert found is not None
        os.symlink(found, programs / name)
    # A tree of its own, as that of the project may have the editors' server.
    script = tmp_path / "tests" / SCRIPT.name
    script.parent.mkdir()
    shutil.copy(SCRIPT, script)
    command = [str(programs / "sh"), str(script)]
    run = subprocess.run(command, env={"PATH": str(programs)}, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout == (
        "redis-server is not installed: the tests that start one are skipped\n"
        "valkey-server is not installed: the store's tests on it are skipped\n"
        "yaml-language-server is not installed: the tests of what editors say are skipped\n"
    )
