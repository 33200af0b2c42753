"""The page about plugins in other processes: its sections are valid."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_blocks import noted

from cpex.framework import PluginConfig


def test_the_sections_of_the_page_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sections: list[dict[str, Any]] = [yaml.safe_load(each) for each in noted("docs/reference/external.md")]
    assert [list(each) for each in sections] == [["mcp"], ["grpc"], ["unix_socket"]]
    # Files that the page names have to be there.
    for name in sections[1]["grpc"]["tls"].values():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("-")
    for section in sections:
        config = PluginConfig.model_validate({"name": "p", "kind": "external", **section})
        assert getattr(config, next(iter(section))) is not None
