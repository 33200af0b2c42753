"""The page about plugins in other processes: its sections are valid."""

from __future__ import annotations

import re

import yaml
from doc_blocks import ROOT

from cpex.framework import MCPClientConfig

PAGE = ROOT / "docs" / "reference" / "external.md"


def test_the_sections_of_the_page_are_valid() -> None:
    shown = re.findall(r"^```yaml\n(mcp:.*?)^```$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(shown) == 1
    for each in shown:
        MCPClientConfig.model_validate(yaml.safe_load(each)["mcp"])
