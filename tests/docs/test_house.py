"""The tour of the house names what is there, and the changelog is made of its fragments."""

from __future__ import annotations

import importlib.util
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest
from doc_blocks import ROOT, noted
from unit.test_imports import GROUPS

from cpex.framework import clock

TOUR = (ROOT / "docs" / "design" / "house.md").read_text(encoding="utf-8")
_spec = importlib.util.spec_from_file_location("changelog", ROOT / "docs_src" / "changelog.py")
assert _spec is not None
assert _spec.loader is not None
changelog = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(changelog)


def test_the_tour_passes_through_every_room() -> None:
    package = ROOT / "cpex"
    (plan,) = noted("docs/design/house.md")
    shown = re.findall(r"^ {2,4}(\w+(?:/|\.py)) ", plan, re.MULTILINE)
    folders = [f"{path.name}/" for path in (*package.iterdir(), *(package / "framework").iterdir()) if path.is_dir()]
    assert sorted(set(folders) - {"__pycache__/"} - set(shown)) == []
    missing = [name for name in shown if not (package / name).exists() and not (package / "framework" / name).exists()]
    assert missing == []


def test_the_tour_tells_which_way_imports_run() -> None:
    told = [re.findall(r"`(\w+)`", line) for line in re.findall(r"^\d\. (.*)$", TOUR, re.MULTILINE)]
    assert told == [group.split() for group in GROUPS]


def test_the_paths_of_the_tour_exist() -> None:
    paths = re.findall(r"`((?:cpex|tests)/[\w/.]+)`", TOUR)
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_fragment_becomes_a_note() -> None:
    assert changelog.entries(ROOT / "changelog.d")


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
