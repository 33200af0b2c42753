"""Every whole configuration that we show or ship leads editors to the schema, and fits it.

A part of a configuration cannot have the line: an editor would take it for a file. It is told by its keys.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import ROOT, as_data, fences, is_whole, pages
from doc_pages import COMMAND, SCHEMA, with_headers
from jsonschema import Draft7Validator

from cpex.framework.loader.config import ConfigLoader
from cpex.framework.loader.json_schema import config_schema
from cpex.framework.loader.plugin import PluginLoader
from cpex.framework.loader.trial import find_plugin_faults
from cpex.tools.schema import HEADER
from cpex.tools.templates import SCHEMA_FILE, STARTER, ProjectValues, render, template_types

VALIDATOR = Draft7Validator(config_schema())
ENV = {"CPEX_EXAMPLE": "x"}
TEMPLATES = [STARTER, *template_types()]
VALUES = ProjectValues("mail_filter", "Mail filter", "Ann", "ann@example.com", "Looks at mail.")
FILES = [
    path
    for folder in ("docs", "examples")
    for path in sorted((ROOT / folder).rglob("*.y*ml"))
    if is_whole(path.read_text(encoding="utf-8"))
]


def shown() -> Iterator[Any]:
    """Every whole configuration on a page."""
    for page in pages():
        for fence in fences(page.read_text(encoding="utf-8")):
            if fence.language in ("yaml", "yml") and is_whole(fence.code):
                yield pytest.param(fence.code, id=f"{page.relative_to(ROOT)}:{fence.line}")


def errors(text: str) -> list[str]:
    """What an editor would underline."""
    return [f"{error.json_path}: {error.message}" for error in VALIDATOR.iter_errors(as_data(text))]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_that_we_ship_leads_editors_to_the_schema_and_fits_it(path: Path) -> None:
    first, _, _ = path.read_text(encoding="utf-8").partition("\n")
    assert first.startswith(HEADER)
    assert (path.parent / first.removeprefix(HEADER)).resolve() == SCHEMA
    assert errors(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("template", TEMPLATES)
def test_a_project_that_we_write_leads_editors_to_the_schema_that_lies_in_it(template: str, tmp_path: Path) -> None:
    project = tmp_path / "mail_filter"
    render(template, project, VALUES)
    files = [path for path in project.rglob("*.y*ml") if is_whole(path.read_text(encoding="utf-8"))]
    assert files != []
    for path in files:
        text = path.read_text(encoding="utf-8")
        first, _, _ = text.partition("\n")
        assert first.startswith(HEADER)
        assert (path.parent / first.removeprefix(HEADER)).resolve() == project / SCHEMA_FILE
        assert errors(text) == []
    for path in project.rglob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert text == with_headers(text), path.name


@pytest.mark.parametrize("block", list(shown()))
def test_what_a_page_shows_is_underlined_just_where_the_loader_finds_fault(
    block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    checked = ConfigLoader.check_text(block, strict=True, env=ENV)
    faults = [*checked.faults]
    if checked.config is not None:
        loaded = ConfigLoader.load_text(block, file="page", env=ENV)
        faults += find_plugin_faults(loaded, PluginLoader())
    by_themselves = {"config-unknown-key", "config-unknown-value", "config-missing-key", "config-type"}
    assert bool(errors(block)) == any(fault.code in by_themselves for fault in faults)


def test_every_whole_configuration_on_a_page_leads_editors_to_the_schema() -> None:
    bare = [page.name for page in pages() if (text := page.read_text(encoding="utf-8")) != with_headers(text)]
    assert bare == [], f"run: {COMMAND}"


def test_parts_of_configurations_are_told_from_whole_ones() -> None:
    assert is_whole("# a note\nmax_payload_bytes: 1000\nplugins: []\n")
    assert not is_whole("- name: a\n  kind: b.C\n")
    assert not is_whole("mcp: {proto: STDIO}\n")
    assert with_headers("```yaml\nplugins: []\n```\n") != "```yaml\nplugins: []\n```\n"


def test_the_examples_were_found() -> None:
    assert len(FILES) >= 1
    assert len(list(shown())) >= 10
