"""The page on the architecture names what is there, and the changelog is made of its fragments."""

from __future__ import annotations

import importlib.util
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from doc_blocks import ROOT, noted
from unit.test_imports import GROUPS

from cpex.framework import clock

PAGE = (ROOT / "docs" / "design" / "architecture.md").read_text(encoding="utf-8")
_spec = importlib.util.spec_from_file_location("changelog", ROOT / "docs_src" / "changelog.py")
assert _spec is not None
assert _spec.loader is not None
changelog = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(changelog)


def test_the_map_shows_every_package() -> None:
    package = ROOT / "cpex"
    (tree,) = noted("docs/design/architecture.md")
    shown = re.findall(r"^ {2,4}(\w+(?:/|\.py)) ", tree, re.MULTILINE)
    folders = [f"{path.name}/" for path in (*package.iterdir(), *(package / "framework").iterdir()) if path.is_dir()]
    assert sorted(set(folders) - {"__pycache__/"} - set(shown)) == []
    missing = [name for name in shown if not (package / name).exists() and not (package / "framework" / name).exists()]
    assert missing == []


def test_the_page_tells_which_way_imports_run() -> None:
    section = PAGE.partition("## Which way imports run")[2]
    told = [re.findall(r"`(\w+)`", line) for line in re.findall(r"^\d\. (.*)$", section, re.MULTILINE)]
    assert told == [group.split() for group in GROUPS]


def test_the_paths_of_the_page_exist() -> None:
    paths = re.findall(r"`((?:benchmarks|cpex|tests)/[\w/.]+)`", PAGE)
    assert [path for path in paths if not (ROOT / path).exists()] == []
    folders = [ROOT / "cpex" / "framework" / name for name in ("pipeline", "loader")]
    bare = set(re.findall(r"`(\w+\.py)`", PAGE))
    assert [name for name in sorted(bare) if not any((folder / name).exists() for folder in folders)] == []


def test_the_page_names_every_module_that_tests_share() -> None:
    shared = {path.name for path in (ROOT / "tests").glob("*.py")} - {"conftest.py"}
    assert sorted(shared - set(re.findall(r"`tests/(\w+\.py)`", PAGE))) == []


def test_every_fragment_becomes_notes_of_one_change_each() -> None:
    notes = [note for paragraphs in changelog.entries(ROOT / "changelog.d").values() for note in paragraphs]
    assert notes
    assert [note for note in notes if len(note) > 1500] == [], "a blank line parts a change from the one above it"


def test_a_release_moves_fragments_into_the_changelog(tmp_path: Path) -> None:
    folder = tmp_path / "changelog.d"
    folder.mkdir()
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{changelog.MARK}\n## 0.1.0 (2029-01-01)\n")
    (folder / "1.fixed.md").write_text("A second\nline.\n\nAnother.\n")
    (folder / "2.added.md").write_text("`x` is new.\n")
    with clock.use_clock(clock.FixedClock(datetime(2030, 1, 1, tzinfo=UTC))):
        changelog.release("0.2.0", tmp_path)
    assert (tmp_path / "CHANGELOG.md").read_text() == (
        f"# Changelog\n\n{changelog.MARK}\n## 0.2.0 (2030-01-01)\n\n### Added\n\n- `x` is new.\n\n"
        "### Fixed\n\n- A second\n  line.\n- Another.\n\n## 0.1.0 (2029-01-01)\n"
    )
    assert list(folder.iterdir()) == []


def test_a_file_that_is_no_fragment_is_named(tmp_path: Path) -> None:
    (tmp_path / "1.new.md").write_text("x")
    with pytest.raises(ValueError, match=r"no fragments: 1\.new\.md; name them NUMBER\.KIND\.md, kinds: breaking, "):
        changelog.entries(tmp_path)
