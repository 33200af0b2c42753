"""The programs of the pages about adapters print what the pages say, each in the environment of its library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import ROOT, blocks
from integration.adapters.environment import IndexUnreachable, python_with

PAGES = sorted(page for page in (ROOT / "docs" / "adapters").glob("*.md") if page.stem != "index")


PLAIN = {"asgi", "mcp_server"}
"""Pages whose libraries are installed beside the tests."""


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_program_of_the_page_prints_what_the_page_says(page: Path, tmp_path: Path) -> None:
    shown = blocks(f"adapters/{page.name}")
    for name, text in shown.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    (program,) = [name.removesuffix(".out") for name in shown if name.endswith(".out")]
    try:
        python = python_with(page.stem.replace("_", "-")) if page.stem not in PLAIN else Path(sys.executable)
    except IndexUnreachable as error:
        pytest.skip(f"the framework could not be fetched: {error}")
    done = subprocess.run(
        [python, f"{program}.py"], cwd=tmp_path, capture_output=True, text=True, timeout=590, check=False
    )
    assert (done.stdout, done.returncode) == (shown[f"{program}.out"], 0), done.stderr


def test_the_overview_leads_to_every_page_and_names_every_extra() -> None:
    text = (ROOT / "docs" / "adapters" / "index.md").read_text(encoding="utf-8")
    assert [page.name for page in PAGES if f"({page.name})" not in text] == []
    extras = {page.stem.replace("_", "-") for page in PAGES if page.stem not in PLAIN}
    assert sorted(extra for extra in extras if f"`cpex[{extra}]`" not in text) == []
