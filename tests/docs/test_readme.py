"""What the README and the demo tell a reader to type ends well, and its links lead somewhere."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from doc_blocks import ROOT, lay_out, noted, run

README = (ROOT / "README.md").read_text(encoding="utf-8")
DEMO = ROOT / "examples" / "layered"


def ends_well(folder: Path, *words: str) -> None:
    done = run(folder, "-m", "cpex.tools.cli", *words)
    assert done.returncode == 0, done.stderr


def test_the_commands_of_the_readme_end_well(tmp_path: Path) -> None:
    lay_out(README, tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (commands,) = noted("README.md")
    for line in commands.splitlines():
        words = line.partition("#")[0].split()
        assert words.pop(0) == "cpex"
        ends_well(tmp_path, *words)


def test_the_demo_runs_over_the_recorded_stream(tmp_path: Path) -> None:
    """Its page, `examples/layered/README.md`, shows the command, and `make demo` runs it."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (command,) = noted("examples/layered/README.md")
    words = command.split()
    assert " ".join(words[:5]) in (ROOT / "Makefile").read_text(encoding="utf-8")
    ends_well(tmp_path, *words[1:])
    assert len((tmp_path / "decisions.jsonl").read_text().splitlines()) == 664
    assert json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[0])["v"] == 1


@pytest.mark.parametrize("page", sorted(path.name for path in ROOT.glob("*.md")))
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert [link for link in links if not (ROOT / link).exists()] == []
