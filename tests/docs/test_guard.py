"""The parts of programs on the page of the guard run, and its table is whole."""

from __future__ import annotations

import textwrap
from typing import Any

from doc_blocks import ROOT, noted
from support import allow, manager_of, plugin

from cpex.framework import PluginResult
from cpex.framework.guard import KINDS


async def test_the_parts_of_programs_on_the_page_run() -> None:
    parts = [each for each in noted("docs/guard.md") if "listed(" not in each]
    manager = manager_of(plugin(allow))
    async with manager.request() as request:
        names: dict[str, Any] = {"manager": manager, "request": request, "search": search}
        for part in parts:
            imports = "".join(line for line in part.splitlines(True) if line.startswith(("from ", "import ")))
            rest = textwrap.indent("".join(part.splitlines(True)[imports.count("\n") :]), "    ")
            exec(f"{imports}async def run():\n{rest}    return result", names)
            assert await names["run"]() == "found tea"


async def test_a_list_is_shown_as_the_page_says() -> None:
    (part,) = [each for each in noted("docs/guard.md") if "listed(" in each]

    async def hide(payload: Any, context: Any) -> PluginResult[Any]:
        left = [each for each in payload.tools if each["name"] != "shell"]
        return PluginResult(modified_payload=payload.model_copy(update={"tools": left}))

    imports, _, rest = part.partition("\n\n")
    async with manager_of(plugin(hide, hooks=["tool_list"])).request() as request:
        names: dict[str, Any] = {"request": request}
        exec(f"{imports}\nasync def run():\n{textwrap.indent(rest, '    ')}\n    return tools", names)
        assert await names["run"]() == [{"name": "search"}]


async def search(q: str) -> str:
    return f"found {q}"


def test_the_table_of_the_page_names_every_hook_of_every_kind() -> None:
    text = (ROOT / "docs" / "guard.md").read_text(encoding="utf-8")
    missing = [
        step.hook for kind in KINDS.values() for step in (*kind.before, *kind.after) if f"`{step.hook}`" not in text
    ]
    assert missing == []
