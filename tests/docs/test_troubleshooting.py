"""Every heading of the page of errors is the text of an error, and the blocks below it provoke that error."""

from __future__ import annotations

import re

import pytest
from doc_blocks import ROOT, fences

PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### `([^\n]*)`\n(.*?)(?=^##|\Z)", PAGE, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("heading", SECTIONS)
def test_a_heading_is_what_the_blocks_below_it_print(heading: str) -> None:
    """That they print it, the test of all blocks holds."""
    printed = [fence.code for fence in fences(SECTIONS[heading]) if fence.language in ("console", "text")]
    text = ".*".join(map(re.escape, heading.split("…")))
    assert any(re.search(text, each) for each in printed), printed


def test_every_heading_is_literal() -> None:
    headings = re.findall(r"^### (.*)$", PAGE, re.MULTILINE)
    assert headings == [f"`{heading}`" for heading in SECTIONS]
    assert len(headings) >= 15
