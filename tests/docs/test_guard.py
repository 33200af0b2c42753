"""The parts of programs on the page of the guard run, and its table is whole."""

from __future__ import annotations

import textwrap
from typing import Any

from doc_blocks import ROOT, noted
from support import allow, manager_of, plugin

from cpex.framework.guard import KINDS


async def test_the_parts_of_programs_on_the_page_run() -> None:
    parts = noted("docs/guard.md")
    manager = manager_of(plugin(allow))
    async with manager.request() as request:
        names: dict[str, Any] = {"manager": manager, "request": request, "search": search}
        for part in parts:
            imports = "".join(line for line in part.splitlines(True) if line.startswith(("from ", "import ")))
            rest = textwrap.indent("".join(part.splitlines(True)[imports.count("\n") :]), "    ")
            exec(f"{imports}async def run():\n{rest}    return result", names)
            assert await names["run"]() == "found tea"


async def search(q: str) -> str:
    return f"found {q}"


def test_the_table_of_the_page_names_every_hook_of_every_kind() -> None:
    text = (ROOT / "docs" / "guard.md").read_text(encoding="utf-8")
    missing = [
        step.hook for kind in KINDS.values() for step in (*kind.before, *kind.after) if f"`{step.hook}`" not in text
    ]
    assert missing == []
