from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = Path(__file__).parents[3] / "docs" / "plugins"


def blocks(page: Path) -> dict[str, str]:
    """The first block of each language."""
    found: dict[str, str] = {}
    for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M):
        found.setdefault(language, text)
    return found


NAMES = (
    *("circuit_breaker", "content_policy", "injection_guard", "pii_redaction", "rate_limit", "secrets"),
    *("token_budget", "tool_allow_list"),
)


@pytest.mark.parametrize("name", NAMES)
def test_the_example_of_a_page_prints_what_the_page_says(name: str, tmp_path: Path) -> None:
    parts = blocks(PAGES / f"{name}.md")
    (tmp_path / "plugins.yaml").write_text(parts["yaml"], encoding="utf-8")
    (tmp_path / "main.py").write_text(parts["python"], encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": str(PAGES.parents[1])}
    run = subprocess.run(
        [sys.executable, "main.py"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (run.returncode, run.stdout) == (0, parts["text"]), run.stderr
