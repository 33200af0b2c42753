"""How many attacks that it was not written against does the injection guard catch, and how much honest text?

Usage: `python -m benchmarks.injections [--missed]`. The attacks come from packages by others, which are fetched from
the index and read as data, never imported: AgentDojo (its attacks with its goals, planted where its own environments
have room for them) and agent-injection-bench. Honest text are the environments of AgentDojo as they are without an
attack: mails, chats, files, reviews. Exit codes: 0 it was measured, 1 the packages could not be fetched, 2 usage.
"""

from __future__ import annotations

import argparse
import ast
import itertools
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.environments import Environment, IndexUnreachable
from cpex.builtins.security.injection_guard import InjectionGuardSettings
from cpex.builtins.text import Leaf

PACKAGES = ("agentdojo==0.1.35", "agent-injection-bench==0.1.0")
HONEST = ("control", "baseline")
"""Families of agent-injection-bench that are no attacks."""
_NAMES = {"user": "Emma Johnson", "model": "Claude"}


@dataclass(frozen=True, slots=True)
class Document:
    """A text, and what is hidden in it."""

    text: str
    source: str
    family: str
    """The kind of attack, or `honest`."""


class _Loader(yaml.SafeLoader):
    """Leaves out what a file includes: those files are read themselves."""


_Loader.add_constructor("!include", lambda loader, node: None)


def packages() -> Path:
    """Where the packages lie.

    Raises:
        IndexUnreachable: They could not be fetched.
    """
    environment = Environment(".venv-injections")
    with environment.lacking("installed", f"{PACKAGES}") as missing:
        if missing:
            environment.create(" and ".join(PACKAGES))
            environment.fetch("--no-deps", *PACKAGES)
    return next(environment.home.glob("lib/python*/site-packages"))


def documents(site: Path) -> Iterator[Document]:
    """All of both packages."""
    yield from _agentdojo(site / "agentdojo")
    for line in (site / "aib/data/attacks.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        family = "honest" if row["family"] in HONEST else row["family"]
        yield Document(row["injected"], "agent-injection-bench", family)


def _agentdojo(package: Path) -> Iterator[Document]:
    attacks = dict(_attacks(package / "attacks"))
    for suite in sorted((package / "data/suites").iterdir()):
        vectors: dict[str, Any] = yaml.safe_load((suite / "injection_vectors.yaml").read_text(encoding="utf-8"))
        honest = {name: str(vector["default"]) for name, vector in vectors.items()}
        files = [suite / "environment.yaml", *sorted(suite.glob("include/*.yaml"))]
        leaves = [text for file in files for text in _texts(yaml.load(file.read_text(encoding="utf-8"), _Loader))]
        for leaf in leaves:
            yield Document(_planted(leaf, honest), "agentdojo", "honest")
        rooms = itertools.cycle([leaf for leaf in leaves if any(f"{{{name}}}" in leaf for name in vectors)])
        goals = [*_goals(package / "default_suites/v1" / suite.name / "injection_tasks.py")]
        for (attack, template), goal in itertools.product(attacks.items(), goals):
            order = template.replace("{goal}", goal)
            for name, value in _NAMES.items():
                order = order.replace(f"{{{name}}}", value)
            yield Document(_planted(next(rooms), dict.fromkeys(vectors, order)), "agentdojo", attack)


def _attacks(folder: Path) -> Iterator[tuple[str, str]]:
    """Names of attacks, and their texts with `{goal}` in them."""
    for module in sorted(folder.glob("*_attacks.py")):
        for node in ast.parse(module.read_text(encoding="utf-8")).body:
            if not isinstance(node, ast.ClassDef) or node.name == "ManualAttack":
                continue
            texts = [*_constants(node)]
            template = max((text for text in texts if "{goal}" in text), key=len, default=None)
            if template is not None:
                yield node.name.removesuffix("Attack"), template


def _constants(node: ast.AST) -> Iterator[str]:
    """Strings in the code of a class but its docstrings."""
    docstrings = {
        id(owner.body[0].value)
        for owner in ast.walk(node)
        if isinstance(owner, ast.ClassDef | ast.FunctionDef) and owner.body and isinstance(owner.body[0], ast.Expr)
    }
    for each in ast.walk(node):
        if isinstance(each, ast.Constant) and isinstance(each.value, str) and id(each) not in docstrings:
            yield each.value


def _goals(module: Path) -> Iterator[str]:
    """What the attacks are to achieve: the class attribute `GOAL`, with the names it is built from filled in."""
    for node in ast.parse(module.read_text(encoding="utf-8")).body:
        if not isinstance(node, ast.ClassDef):
            continue
        for statement in node.body:
            if isinstance(statement, ast.Assign) and getattr(statement.targets[0], "id", "") == "GOAL":
                yield "".join(_pieces(statement.value))


def _pieces(value: ast.expr) -> Iterator[str]:
    if isinstance(value, ast.JoinedStr):
        for part in value.values:
            yield str(part.value) if isinstance(part, ast.Constant) else "x"
    elif isinstance(value, ast.BinOp):
        yield from (*_pieces(value.left), *_pieces(value.right))
    elif isinstance(value, ast.Constant):
        yield str(value.value)


def _texts(value: Any) -> Iterator[str]:
    """Every string of some length in a structure."""
    if isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
    elif isinstance(value, str) and len(value) >= 20:
        yield value


def _planted(text: str, plants: dict[str, str]) -> str:
    for name, plant in plants.items():
        text = text.replace(f"{{{name}}}", plant)
    return text


def main(words: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.injections", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("--missed", action="store_true", help="also print what went unnoticed and what was stopped")
    options = parser.parse_args(words)
    try:
        site = packages()
    except IndexUnreachable as error:
        print(f"error: the packages could not be fetched: {error}", file=sys.stderr)
        return 1
    settings = InjectionGuardSettings()
    scorer = settings.scorer()
    rows: dict[tuple[str, str], list[Document]] = {}
    stopped: set[Document] = set()
    for document in documents(site):
        rows.setdefault((document.source, document.family), []).append(document)
        if scorer.judge([Leaf(document.text, None, place="result")]).score >= settings.threshold:
            stopped.add(document)
    print("| source | kind | texts | denied |")
    print("|---|---|---:|---:|")
    for (source, family), texts in rows.items():
        print(f"| {source} | {family} | {len(texts)} | {sum(text in stopped for text in texts)} |")
        if options.missed:
            wrong = [text for text in texts if (text in stopped) is (family == "honest")]
            print(*(f"    {text.text!r}" for text in wrong[:3]), sep="\n", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
