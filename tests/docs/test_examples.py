"""Every example configuration fits the schema, and every file that we ship leads editors to it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from doc_blocks import ROOT
from doc_pages import COMMAND, SCHEMA, shown_pages, with_headers
from jsonschema import Draft7Validator

from cpex.framework.loader.config import ConfigLoader
from cpex.framework.loader.json_schema import config_schema
from cpex.tools.schema import HEADER

VALIDATOR = Draft7Validator(config_schema())
ENV = {"CPEX_EXAMPLE": "x"}
WHOLE = re.compile(r"(?:#.*\n)*(?:plugins|plugin_dirs|server_settings|grpc_server_settings):", re.ASCII)
"""How a block begins that is a whole configuration, rather than a part of one or a manifest."""
FILES = [path for path in sorted((ROOT / "examples").rglob("*.y*ml")) if WHOLE.search(path.read_text(encoding="utf-8"))]


def shown() -> Iterator[Any]:
    """Every whole configuration on a page."""
    for page in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]:
        blocks = re.findall(r"^```yaml[^\n]*\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
        for number, block in enumerate(blocks):
            if WHOLE.match(block):
                yield pytest.param(block, id=f"{page.relative_to(ROOT)}-{number}")


def errors(text: str) -> list[str]:
    """What an editor would underline; templates that YAML cannot read by itself count as text."""
    document = yaml.safe_load(re.sub(r"(:\s+)(\{\{.*?\}\})\s*$", r"\1'\2'", text, flags=re.MULTILINE))
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(document)]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_that_we_ship_leads_editors_to_the_schema_and_fits_it(path: Path) -> None:
    first, _, _ = path.read_text(encoding="utf-8").partition("\n")
    assert first.startswith(HEADER)
    assert (path.parent / first.removeprefix(HEADER)).resolve() == SCHEMA
    assert errors(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("block", list(shown()))
def test_what_a_page_shows_is_underlined_just_where_the_loader_finds_fault(block: str) -> None:
    checked = ConfigLoader.check_text(block, strict=True, env=ENV)
    by_themselves = [fault for fault in checked.faults if fault.code.startswith("config-unknown")]
    assert bool(errors(block)) == bool(by_themselves)


def test_every_whole_configuration_on_a_page_leads_editors_to_the_schema() -> None:
    bare = [page.name for page in shown_pages() if (text := page.read_text(encoding="utf-8")) != with_headers(text)]
    assert bare == [], f"run: {COMMAND}"


def test_the_examples_were_found() -> None:
    assert len(FILES) >= 1
    assert len(list(shown())) >= 10
