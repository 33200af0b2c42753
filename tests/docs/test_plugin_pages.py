"""Each built-in plugin's page says what it misses, names every setting, and shows output that is checked."""

from __future__ import annotations

import re
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import ROOT
from pydantic import BaseModel

FOLDER = ROOT / "docs" / "plugins"
PAGES = dict(
    re.findall(r"^\| \[`([\w.]+)`\]\((\w+\.md)\)", (FOLDER / "index.md").read_text(encoding="utf-8"), re.MULTILINE)
)
CLASSES = {each.name: each for each in entry_points(group="cpex.plugins") if each.name in PAGES}
SCALAR = bool | int | float | str | Path


def text_of(kind: str) -> str:
    return (FOLDER / PAGES[kind]).read_text(encoding="utf-8")


def described(kind: str) -> dict[str, str]:
    """Names in the first table of settings, and what stands for their defaults."""
    table = text_of(kind).split("\n## Settings\n")[1].split("\n\n", 2)
    rows = next(part for part in table if part.lstrip().startswith("|")).strip().splitlines()[2:]
    cells = [re.split(r"(?<!\\) \| ", row.strip("| ")) for row in rows]
    return {cell[0].strip("` "): cell[1].strip() for cell in cells}


@pytest.mark.parametrize("kind", sorted(PAGES))
def test_every_setting_has_its_line_with_its_default(kind: str) -> None:
    model: type[BaseModel] = CLASSES[kind].load().settings_model
    lines = described(kind)
    assert sorted(lines) == sorted(model.model_fields)
    wrong = {}
    for name, field in model.model_fields.items():
        default: Any = field.default
        if isinstance(default, SCALAR) and not field.is_required():
            # `60` stands for 60.0, and `true` is how YAML writes it.
            wanted = {
                str(default),
                str(default).lower(),
                f"{default:g}" if isinstance(default, float) else str(default),
            }
            if lines[name].strip("`\"'") not in {each.strip("\"'") for each in wanted}:
                wrong[name] = lines[name], default
    assert wrong == {}


@pytest.mark.parametrize("kind", sorted(PAGES))
def test_the_page_says_what_is_missed(kind: str) -> None:
    assert "\n## What it misses\n" in text_of(kind)


@pytest.mark.parametrize("kind", sorted(PAGES))
def test_the_page_shows_output_that_a_test_checks(kind: str) -> None:
    assert re.search(r"```text file=\w+\.out|<!-- checked by ", text_of(kind))
