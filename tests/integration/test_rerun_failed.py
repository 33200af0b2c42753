"""What a run of the tests makes of failures: pytest is run on files that fail always, once, or in numbers."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import rerun_failed

ALWAYS = "def test_always():\n    assert False\n"
ONCE = """
from pathlib import Path

def test_once():
    seen = Path("seen")
    first = not seen.exists()
    seen.touch()
    assert not first
"""


def judged(folder: Path, tests: str) -> tuple[int, str]:
    """A run in a folder, and what was said of it."""
    (folder / "pytest.ini").write_text("[pytest]\n", encoding="utf-8")
    (folder / "test_it.py").write_text(tests, encoding="utf-8")

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *words]
        # Without the plugins that are installed here, which take most of the time of so small a run.
        env = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_ADDOPTS": ""}
        return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)

    status = run("-m", "pytest", "-q", "--cache-clear").returncode
    told = run(rerun_failed.__file__, str(status))
    return told.returncode, told.stdout


def test_a_test_that_failed_once_passes_alone_and_is_named(tmp_path: Path) -> None:
    status, text = judged(tmp_path, ONCE)
    assert status == 0
    assert text.count("1 passed") == rerun_failed.ROUNDS
    assert text.endswith("mend it.\n  test_it.py::test_once\n")


@pytest.mark.parametrize(
    ("tests", "runs"),
    [
        (ALWAYS, 1),
        (ONCE + ALWAYS, rerun_failed.ROUNDS + 1),
        ("\n".join(ALWAYS.replace("always", str(number)) for number in range(rerun_failed.FEW + 1)), 0),
        ("def test_broken(:", 0),
    ],
    ids=["again", "one of two", "too many", "no test at all"],
)
def test_what_fails_again_or_in_numbers_has_failed(tmp_path: Path, tests: str, runs: int) -> None:
    status, text = judged(tmp_path, tests)
    assert status != 0
    assert text.count("Again, by itself") == runs
    assert "FAILED ONCE" not in text


@pytest.mark.parametrize("status", [0, 2, 3, 4, 5])
def test_a_run_that_ended_otherwise_is_left_as_it_is(status: int) -> None:
    assert rerun_failed.main(status) == status
