"""Edits of a configuration leave everything else as it was written."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from cpex.framework.loader.config import ConfigLoader
from cpex.tools.config_edit import ConfigEdit, ConfigEditError

ENTRY = {"name": "new", "kind": "a.B", "version": "1.0", "hooks": ["tool_pre_invoke"], "config": {}}
WRITTEN = """\
# The pipeline of the shop.
plugin_dirs: [plugins]   # beside this file

plugins:
  # The first.
  - name: one
    kind: a.One
    version: 1.0.0      # as released
    priority: {{ env.get("PRIORITY", 10) }}
    hooks: [tool_pre_invoke]
    config:
      text: |
        a text
        # not a comment

  # The second.
  - {name: two, kind: a.Two, hooks: [tool_pre_invoke]}

# Limits.
hook_timeout_s: 10
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(WRITTEN)
    return path


def names(text: str) -> list[str]:
    config = ConfigLoader.load_text(text, env={}).config
    return [each.name for each in config.plugins or []]


@pytest.mark.conformance("P15")
def test_a_new_plugin_comes_last_and_the_rest_stays_letter_by_letter(path: Path) -> None:
    edit = ConfigEdit(path)
    edit.add(ENTRY)
    edit.save()
    text = path.read_text()
    added = textwrap.indent(yaml.safe_dump([ENTRY], sort_keys=False), "  ")
    assert text == WRITTEN.replace("\n\n# Limits.", f"\n{added}\n# Limits.")
    assert names(text) == ["one", "two", "new"]
    assert (path.parent / "config.yaml.bak").read_text() == WRITTEN
    edit.undo()
    assert path.read_text() == WRITTEN


def test_a_plugin_is_removed_with_its_lines_only(path: Path) -> None:
    edit = ConfigEdit(path)
    edit.remove(["two"])
    assert edit.text == WRITTEN.replace("  - {name: two, kind: a.Two, hooks: [tool_pre_invoke]}\n", "")
    edit.remove(["one", "none of these"])
    assert "plugins: []" in edit.text
    assert "# Limits.\nhook_timeout_s: 10\n" in edit.text
    assert names(edit.text) == []


def test_what_was_added_and_removed_leaves_no_trace(path: Path) -> None:
    edit = ConfigEdit(path)
    edit.add(ENTRY)
    edit.remove(["new"])
    assert edit.text == WRITTEN
    edit.save()
    assert not (path.parent / "config.yaml.bak").exists()


def test_a_version_is_written_over_and_its_comment_stays(path: Path) -> None:
    edit = ConfigEdit(path)
    edit.set_version("one", "2.0")
    edit.set_version("two", "2.0")
    assert edit.text == WRITTEN.replace("version: 1.0.0 ", "version: '2.0' ")


@pytest.mark.parametrize(
    "before",
    [
        "",
        "# nothing yet\n",
        "plugins: []\n",
        "plugins:\n",
        "plugins: ~  # none\n",
        "plugins: [ ]\nhook_timeout_s: 1\n",
        "hook_timeout_s: 1",
        "plugins:\n- {name: old, kind: a.B, hooks: [tool_pre_invoke]}\n",
        "plugins:\n    - name: old\n      kind: a.B\n      hooks: [tool_pre_invoke]",
        "hook_timeout_s: 1\nplugins:\n  - name: old\n    kind: a.B\n    hooks:\n    - tool_pre_invoke\n\n\n# the end\n",
    ],
)
def test_however_an_empty_or_short_file_is_written_a_plugin_can_be_added(tmp_path: Path, before: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(before)
    had = names(before)
    edit = ConfigEdit(path)
    edit.add(ENTRY)
    edit.need_folder("plugins")
    edit.save()
    assert names(path.read_text()) == [*had, "new"]
    assert ConfigLoader.load_text(path.read_text()).config.plugin_dirs == ["plugins"]
    assert all(line in path.read_text() for line in before.splitlines() if line.startswith("#"))


@pytest.mark.conformance("P15")
def test_a_file_that_is_not_there_is_made_with_its_folder(tmp_path: Path) -> None:
    edit = ConfigEdit(tmp_path / "new" / "config.yaml")
    edit.add(ENTRY)
    edit.save()
    assert names((tmp_path / "new" / "config.yaml").read_text()) == ["new"]
    edit.undo()
    assert not (tmp_path / "new" / "config.yaml").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("plugins: [{name: a, kind: b.C}]\n", "is written in one line; write one entry to a line"),
        ("plugins: 3\n", "is written in one line; write one entry to a line"),
        ("plugins: [\n", "is no YAML"),
        ("- a\n", "is no mapping"),
    ],
)
def test_what_cannot_be_edited_is_refused_and_stays(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(ConfigEditError, match=message):
        ConfigEdit(path).add(ENTRY)
    assert path.read_text() == text


def test_a_folder_is_named_only_where_none_is(path: Path, tmp_path: Path) -> None:
    edit = ConfigEdit(path)
    edit.need_folder("other")
    assert edit.text == WRITTEN
    path.write_text("# head\nplugin_dirs: []\nplugins: []\n")
    edit = ConfigEdit(path)
    edit.need_folder("other")
    assert edit.text == "# head\nplugin_dirs: [other]\nplugins: []\n"


ENTRIES = st.lists(
    st.fixed_dictionaries(
        {"name": st.sampled_from("abcdef"), "kind": st.just("a.B")},
        optional={
            "description": st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=30),
            "config": st.dictionaries(st.sampled_from(["x", "y"]), st.text(max_size=20) | st.lists(st.integers())),
        },
    ),
    max_size=4,
    unique_by=lambda each: each["name"],
)


@settings(deadline=None)
@given(ENTRIES, st.sampled_from([None, "|", '"', "'"]), st.sets(st.sampled_from("abcdef")), st.booleans())
def test_whatever_is_added_and_removed_the_others_keep_their_values(
    entries: list[dict[str, Any]], style: str | None, doomed: set[str], more: bool
) -> None:
    import tempfile

    text = yaml.dump({"plugins": entries, "hook_timeout_s": 1}, default_style=style, sort_keys=more)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "c.yaml"
        path.write_text(text, encoding="utf-8")
        edit = ConfigEdit(path)
        try:
            edit.add(ENTRY)
            edit.remove(sorted(doomed))
        except ConfigEditError:
            # Quoted keys are written by no person; what matters is that nothing was lost.
            assert path.read_text(encoding="utf-8") == text
            return
        document = yaml.safe_load(edit.text)
    assert document["plugins"] == [each for each in [*entries, ENTRY] if each["name"] not in doomed]
    assert str(document["hook_timeout_s"]) == "1"
