"""The programs of the pages about the guard print what the pages say."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from doc_blocks import ROOT, blocks
from support import allow, manager_of, plugin

from cpex.framework.guard import KINDS


@pytest.mark.parametrize("program", ["host", "plain"])
def test_a_program_of_the_page_prints_what_the_page_says(program: str, tmp_path: Path) -> None:
    shown = blocks("guard.md")
    for name, text in shown.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", f"{program}.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.returncode) == (shown[f"{program}.out"], 0), done.stderr


async def test_the_parts_of_programs_on_the_page_run() -> None:
    text = (ROOT / "docs" / "guard.md").read_text(encoding="utf-8")
    parts = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
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
