"""The manifest of required behaviours, and the tests that hold them.

`manifest.yaml` lists what the framework must do. A test holds a behaviour by carrying its id:
`@pytest.mark.conformance("D7a")`. Marks are read from the text of the tests, so that a test that is skipped today, or
whose file does not import, still counts for what it says.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = Path(__file__).with_name("manifest.yaml")


@dataclass(frozen=True, slots=True)
class Requirement:
    """One behaviour that is promised."""

    id: str
    """`D…`: a decision about where to depart from release 0.1. `M…`: a weakness of its message format that is mended.
    `P…`: a defect of its decision points, command line and templates that is mended.
    `V…`: a hazard of its isolated plugins that is closed.
    `S…`: a scenario of it that is kept."""
    behaviour: str
    source: str
    """A page with its heading, as `docs/reference/pipeline.md#order`, or the decision by its id."""
    differs: str = ""
    """The decision by which a scenario of release 0.1 ends otherwise here."""
    status: Literal["held", "not yet"] = "held"
    reason: str = ""
    """Why it is not held yet."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A test that says it holds some behaviour."""

    id: str
    test: str
    """`path::function`, the path from the root of the repository."""


def requirements() -> list[Requirement]:
    """The manifest, in its order.

    Raises:
        TypeError: An entry has a key that `Requirement` has not, or lacks one.
    """
    entries: list[dict[str, Any]] = yaml.safe_load(MANIFEST.read_text(encoding="utf-8"))
    return [Requirement(**entry) for entry in entries]


def marks() -> list[Mark]:
    """Every mark of every test, in the order of paths and lines."""
    return [mark for path in sorted((ROOT / "tests").rglob("test_*.py")) for mark in marks_of(path)]


def marks_of(path: Path) -> Iterator[Mark]:
    """The marks of one file.

    Raises:
        ValueError: A mark names its behaviour by something else than a literal text.
    """
    where = path.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        for decorator in node.decorator_list:
            for name in _names(decorator, f"{where}::{node.name}"):
                yield Mark(name, f"{where}::{node.name}")


def _names(decorator: ast.expr, test: str) -> Iterator[str]:
    if not (isinstance(decorator, ast.Call) and ast.unparse(decorator.func) == "pytest.mark.conformance"):
        return
    for argument in decorator.args:
        if not (isinstance(argument, ast.Constant) and isinstance(argument.value, str)):
            raise ValueError(f"{test}: a conformance mark takes ids as literal text, not `{ast.unparse(argument)}`")
        yield argument.value


def anchors(page: Path) -> set[str]:
    """The headings of a page in the form that links to them use."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
