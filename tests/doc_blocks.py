"""Code blocks of pages: what they are, how they are run, and why one is not.

A fence names its file: ```` ```yaml file=plugins.yaml ````. All files of a page lie in one folder; `NAME.out` is what
`python NAME.py` prints there, and a `console` block is a terminal in it. A block that is not run that way says so in a
comment on the line above its fence:

- `<!-- checked by tests/x.py::test_y -->` where a test runs it in a way of its own,
- `<!-- not run: REASON -->` where nothing can.

`<!-- blocks checked by tests/x.py::test_y -->` says the former of all other files of a page. A test that a note names
has to read the block from its page, by `noted` or `blocks`: `tests/conftest.py` fails it otherwise.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from cpex.framework.loader.rules import IGNORED_KEYS
from cpex.framework.models.config import Config

ROOT = Path(__file__).resolve().parents[1]
TIMEOUT_S = 180
_FENCE = re.compile(
    r"^(?:[ \t]*<!-- (?P<note>[^\n]*?) -->\n)?"
    r"^(?P<indent>[ \t]*)```(?P<language>\w+)(?: file=(?P<name>\S+))?\n(?P<code>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_OF_PAGE = re.compile(r"^<!-- blocks checked by (?P<file>\S+\.py)::(?P<name>\w+) -->$", re.MULTILINE)
_OF_FOLDER = {
    "docs/adapters": ("tests/docs/test_adapters.py", "test_the_program_of_the_page_prints_what_the_page_says"),
}
"""Folders of pages that all need something which is not installed beside the tests."""
_CHECKED = re.compile(r"checked by (?P<test>\S+\.py)(?:::(?P<name>\w+))?\Z")
_NOT_RUN = re.compile(r"not run: (?P<reason>\S.*)\Z")


@dataclass(frozen=True)
class Fence:
    """One block: its language, the file that it is (empty without one), its text, its line, and the note above it."""

    language: str
    name: str
    code: str
    line: int
    note: str

    @property
    def checked_by(self) -> tuple[str, str] | None:
        """`checked by tests/x.py::test_y`: the test that runs the block in a way of its own."""
        found = _CHECKED.match(self.note)
        return (found["test"], found["name"] or "") if found else None

    @property
    def not_run_because(self) -> str | None:
        """`not run: REASON`: what the block is instead of a program."""
        found = _NOT_RUN.match(self.note)
        return found["reason"] if found else None

    @property
    def noted(self) -> bool:
        """Whether a note says what becomes of it."""
        return self.checked_by is not None or self.not_run_because is not None


def pages() -> list[Path]:
    """Every page: of the site, of the repository's root, of the examples."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])


def fences(text: str) -> list[Fence]:
    """The blocks of a page, in order."""
    return [
        Fence(
            found["language"],
            found["name"] or "",
            re.sub(rf"^{found['indent']}", "", found["code"], flags=re.MULTILINE),
            text.count("\n", 0, found.start("language")) + 1,
            found["note"] or "",
        )
        for found in _FENCE.finditer(text)
    ]


def as_data(code: str) -> Any:
    """A YAML text as data; templates that YAML cannot read by itself count as text."""
    return yaml.safe_load(re.sub(r"(:\s+)(\{\{.*?\}\})\s*$", r"\1'\2'", code, flags=re.MULTILINE))


def is_whole(code: str) -> bool:
    """Whether a YAML text is a whole configuration, rather than a part of one or something else.

    It is one where the loader could read it as a file: a mapping, with no other keys than a configuration has.
    """
    data = as_data(code)
    return isinstance(data, dict) and bool(data) and data.keys() <= Config.model_fields.keys() | IGNORED_KEYS


def checker_of(page: str, text: str) -> tuple[str, str] | None:
    """The test, by file and name, that runs a page's files in a way of its own; `None` where none does."""
    found = _OF_PAGE.search(text)
    return (found["file"], found["name"]) if found else _OF_FOLDER.get(page.rpartition("/")[0])


READ: set[tuple[str, int]] = set()
"""Blocks, by page and line, that the test which runs now has read."""


class Blocks(dict[str, str]):
    """`{file name: code}` of pages; notes what is read."""

    def __init__(self, places: dict[str, tuple[str, Fence]]) -> None:
        super().__init__({name: fence.code for name, (_, fence) in places.items()})
        self.places = places

    def __getitem__(self, name: str) -> str:
        page, fence = self.places[name]
        READ.add((page, fence.line))
        return super().__getitem__(name)

    def items(self) -> Any:
        """All of them, which are read by that."""
        return [(name, self[name]) for name in self]


def blocks(page: str) -> Blocks:
    """Every named block of a page below `docs/`."""
    path = f"docs/{page}"
    text = (ROOT / path).read_text(encoding="utf-8")
    return Blocks({fence.name: (path, fence) for fence in fences(text) if fence.name})


@cache
def noted_blocks() -> dict[tuple[str, str], list[tuple[str, Fence]]]:
    """What notes say: test, by file and name -> its blocks, each with its page."""
    found: dict[tuple[str, str], list[tuple[str, Fence]]] = {}
    for path in pages():
        page, text = path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")
        for fence in fences(text):
            test = fence.checked_by or (checker_of(page, text) if fence.name and not fence.noted else None)
            if test is not None:
                found.setdefault(test, []).append((page, fence))
    return found


def noted(page: str) -> list[str]:
    """The blocks of a page that are noted as checked by the test that runs now."""
    file, _, rest = os.environ["PYTEST_CURRENT_TEST"].partition("::")
    mine = noted_blocks().get((file, re.split(r"[\[ ]", rest)[0]), [])
    here = [fence for each, fence in mine if each == page]
    assert here, f"{page} has no block that is noted as checked by this test"
    READ.update((page, fence.line) for fence in here)
    return [fence.code for fence in here]


def unread(test: tuple[str, str], *, one_page_at_a_time: bool) -> list[str]:
    """Blocks that are noted as checked by a test which has just run, and that it has not read.

    Args:
        one_page_at_a_time: Whether only pages count of which it has read something: one run of several.
    """
    mine = noted_blocks().get(test, [])
    seen = {page for page, _ in READ}
    counted = [(page, fence) for page, fence in mine if not one_page_at_a_time or page in seen]
    if mine and not counted:
        return ["any of its pages"]
    return [f"{page}:{fence.line}" for page, fence in counted if (page, fence.line) not in READ]


def lay_out(text: str, folder: Path) -> None:
    """Write the files of a page."""
    for fence in fences(text):
        if fence.name and not fence.name.endswith(".out"):
            path = folder / fence.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(fence.code, encoding="utf-8")


def environment(**more: str) -> dict[str, str]:
    """A reader's: nothing of ours is set, `cpex`, `python` and `pytest` are those beside this interpreter."""
    inherited = {name: text for name, text in os.environ.items() if not name.startswith(("PLUGINS_", "PYTEST_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    plain = {"PATH": path, "COLUMNS": "100", "NO_COLOR": "1", "PYTHONUNBUFFERED": "", "PYTHONDONTWRITEBYTECODE": "1"}
    return inherited | plain | more


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run `python WORDS…` in the folder of a page."""
    return subprocess.run(
        [sys.executable, *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )


def follow(transcript: str, folder: Path) -> None:
    """Type the commands of a `console` block; hold what they print, and how they end, against what it shows.

    Each command has a shell of its own; `$ echo $?` shows how the one before ended.
    """
    code = 0
    for step in re.split(r"^\$ ", transcript, flags=re.MULTILINE)[1:]:
        command, _, expected = step.partition("\n")
        if command == "echo $?":
            assert expected == f"{code}\n"
            continue
        # The program prints to both streams; a page shows what a terminal would.
        script = f'cpex() {{ "{sys.executable}" -m cpex.tools.cli "$@"; }}; {command}'
        done = subprocess.run(
            ["bash", "-c", script],
            cwd=folder,
            env=environment(),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        code = done.returncode
        assert re.fullmatch(_pattern(expected), _squeezed(done.stdout)), f"$ {command}\n{done.stdout}"


def _squeezed(text: str) -> str:
    """Without what the widths of columns decide."""
    return "\n".join(" ".join(line.split()) for line in text.splitlines())


def _pattern(expected: str) -> str:
    """`…` stands for anything in a line, and in a line of its own for any lines."""
    parts = [re.escape(line).replace("…", ".*") for line in _squeezed(expected).splitlines()]
    return "\n".join("[^\0]*?" if part == ".*" else part for part in parts)
