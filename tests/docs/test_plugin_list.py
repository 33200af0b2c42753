"""The list of built-in plugins names each that is registered, with a page that shows it in the mode of the list."""

from __future__ import annotations

import re
from importlib.metadata import entry_points

from doc_blocks import ROOT

FOLDER = ROOT / "docs" / "plugins"
LIST = (FOLDER / "index.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| \[`([\w.]+)`\]\((\w+\.md)\)[^|]*\|[^|]*\| (\w+) \|$", LIST, re.MULTILINE)


def test_every_registered_kind_is_in_the_list() -> None:
    registered = {each.name for each in entry_points(group="cpex.plugins") if each.value.startswith("cpex.builtins.")}
    assert registered - set(re.findall(r"`([\w.]+)`", LIST)) == set()
    assert {kind for kind, _, _ in ROWS} <= registered


def test_every_page_of_a_plugin_is_in_the_list() -> None:
    assert {page for _, page, _ in ROWS} == {path.name for path in FOLDER.glob("*.md")} - {"index.md"}


def test_a_page_shows_its_plugin_in_the_mode_of_the_list() -> None:
    wrong = []
    for kind, page, mode in ROWS:
        text = (FOLDER / page).read_text(encoding="utf-8")
        shown = re.search(r"^ +mode: (\w+)$", text, re.MULTILINE)
        if f"`{kind}`" not in text or (shown and shown[1] != mode):
            wrong.append((page, mode, shown and shown[1]))
    assert wrong == []
