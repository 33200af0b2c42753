"""Every block of every page is run, or says who runs it, or says why it is not run."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import (
    READ,
    ROOT,
    Fence,
    checker_of,
    fences,
    follow,
    is_whole,
    lay_out,
    noted_blocks,
    pages,
    run,
    unread,
)

from cpex.framework.loader.config import ConfigLoader
from cpex.framework.loader.plugin import PluginLoader
from cpex.framework.loader.trial import find_plugin_faults


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


TEXTS = {name_of(page): page.read_text(encoding="utf-8") for page in pages()}
FENCES = {page: fences(text) for page, text in TEXTS.items()}
OURS = [page for page, text in TEXTS.items() if not checker_of(page, text)]
"""The pages whose named blocks are run here."""


def named(page: str) -> dict[str, Fence]:
    """The files of a page, without those that have a test of their own."""
    return {fence.name: fence for fence in FENCES[page] if fence.name and not fence.noted}


def programs() -> Iterator[Any]:
    """Every program whose output is shown."""
    for page in OURS:
        for name in named(page):
            if name.endswith(".out"):
                yield pytest.param(page, name.removesuffix(".out"), id=f"{page}:{name}")


def transcripts(page: str) -> list[str]:
    return [fence.code for fence in FENCES[page] if fence.language == "console" and not fence.noted]


def modules(page: str) -> list[str]:
    """The Python files of a page that neither print what is shown, nor are named by another block."""
    files = named(page)
    return [
        name
        for name in files
        if name.endswith(".py") and f"{name.removesuffix('.py')}.out" not in files and not used(page, name)
    ]


def used(page: str, name: str) -> bool:
    """Whether another block of the page that is run reads the file, by its name or as a module."""
    module = Path(name).stem if Path(name).stem != "__init__" else Path(name).parent.name
    words = re.compile(rf"(?<![\w/.]){re.escape(name)}\b" + (rf"|\b{module}\b" if name.endswith(".py") else ""))
    if Path(name).name.startswith("test_") and any(re.search(r"pytest(?!.*\.py)", code) for code in transcripts(page)):
        return True
    others = [fence for fence in FENCES[page] if fence.name != name and (fence.name or fence.language == "console")]
    return any(words.search(fence.code) for fence in others if not fence.noted)


def stands_alone(fence: Fence) -> bool:
    """Whether it is a whole configuration that no program of its page reads."""
    return fence.language == "yaml" and not fence.name and not fence.noted and is_whole(fence.code)


def is_accounted_for(page: str, fence: Fence) -> bool:
    """Whether a block is run, by a rule or by a test that its note names, or has a note that says why not."""
    if fence.noted or fence.language == "console" or stands_alone(fence):
        return True
    if not fence.name:
        return False
    return page not in OURS or fence.name.endswith((".out", ".py")) or used(page, fence.name)


def test_every_block_is_run_or_says_why_not() -> None:
    left = [
        f"{page}:{fence.line} ({fence.language}{f', {fence.name}' if fence.name else ''})"
        for page, found in FENCES.items()
        for fence in found
        if not is_accounted_for(page, fence)
    ]
    assert left == [], "name the block's file, or add a note, as tests/doc_blocks.py says"


def test_no_fence_goes_unseen() -> None:
    """A fence without a language, or with another form, would escape the other tests."""
    opening = {page: len(re.findall(r"^[ \t]*```", text, re.MULTILINE)) for page, text in TEXTS.items()}
    assert {page: count for page, count in opening.items() if count != 2 * len(FENCES[page])} == {}


def test_fences_in_lists_are_indented_as_the_site_needs_it() -> None:
    """By four: with fewer, the list ends before the block, and its numbers begin anew after it."""
    assert [page for page, text in TEXTS.items() if re.search(r"^(?: {1,3}| {5,})```", text, re.MULTILINE)] == []


def test_the_tests_that_notes_name_exist() -> None:
    """That they read the blocks is what `tests/conftest.py` sees to, each time that one runs."""
    wrong = []
    for file, name in noted_blocks():
        path = ROOT / file
        tree = ast.parse(path.read_text(encoding="utf-8")) if path.is_file() else ast.Module([], [])
        if name not in {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}:
            wrong.append(f"{file}::{name}")
    assert sorted(wrong) == []


def test_a_block_that_a_noted_test_does_not_read_is_told() -> None:
    (test, ((page, fence),)) = next(each for each in noted_blocks().items() if len(each[1]) == 1)
    READ.discard((page, fence.line))
    assert unread(test, one_page_at_a_time=False) == [f"{page}:{fence.line}"]
    assert unread(test, one_page_at_a_time=True) == ["any of its pages"]
    READ.add((page, fence.line))
    assert unread(test, one_page_at_a_time=False) == []


@pytest.mark.parametrize(("page", "program"), list(programs()))
def test_a_program_prints_what_its_page_shows(page: str, program: str, tmp_path: Path) -> None:
    lay_out(TEXTS[page], tmp_path)
    done = run(tmp_path, "-W", "error", f"{program}.py")
    assert (done.returncode, done.stdout) == (0, named(page)[f"{program}.out"].code), done.stderr


@pytest.mark.parametrize("page", [page for page in TEXTS if transcripts(page)])
def test_a_terminal_shows_what_the_page_shows(page: str, tmp_path: Path) -> None:
    lay_out(TEXTS[page], tmp_path)
    for transcript in transcripts(page):
        follow(transcript, tmp_path)


@pytest.mark.parametrize("page", [page for page in OURS if modules(page)])
def test_the_modules_of_a_page_can_be_imported(page: str, tmp_path: Path) -> None:
    lay_out(TEXTS[page], tmp_path)
    done = run(tmp_path, "-c", "\n".join(f"exec(open({name!r}).read(), {{}})" for name in modules(page)))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("page", [page for page, found in FENCES.items() if any(map(stands_alone, found))])
def test_every_whole_configuration_of_a_page_can_be_started(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lay_out(TEXTS[page], tmp_path)
    monkeypatch.chdir(tmp_path)
    for fence in FENCES[page]:
        if stands_alone(fence):
            path = tmp_path / "whole.yaml"
            path.write_text(fence.code, encoding="utf-8")
            assert find_plugin_faults(ConfigLoader.load(str(path)), PluginLoader()) == (), f"{page}:{fence.line}"
