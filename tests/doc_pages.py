"""Writes the tables of the reference pages: `python tests/doc_pages.py`.

A page is written by hand. Where it has `<!-- table: fields models.config.Config -->`, what follows up to
`<!-- end of table -->` is made by the function of that name in `doc_tables.py`, with the rest as its arguments. The
schema of configuration files, beside the pages, is written as well, and every whole configuration that a page shows
gets the line that leads editors to it.
"""

from __future__ import annotations

import json
import re
import sys
import textwrap
from pathlib import Path

import doc_tables
from doc_blocks import is_whole
from doc_blocks import pages as all_pages

from cpex.framework.loader.json_schema import config_schema

REFERENCE = Path(__file__).resolve().parents[1] / "docs" / "reference"
SCHEMA = REFERENCE / "config.schema.json"
HEADER_LINE = "# yaml-language-server: $schema=cpex.schema.json"
_YAML = re.compile(
    r"^(?P<indent>[ \t]*)(?P<fence>```ya?ml[^\n]*\n)(?P<code>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL
)
COMMAND = "python tests/doc_pages.py"
_TABLE = re.compile(
    r"^(?P<begin><!-- table: (?P<name>\w+)(?P<arguments>[^>]*) -->\n).*?^(?P<end><!-- end of table -->)$",
    re.MULTILINE | re.DOTALL,
)


def pages() -> list[Path]:
    """The pages that have such a table."""
    return [page for page in sorted(REFERENCE.glob("*.md")) if _TABLE.search(page.read_text(encoding="utf-8"))]


def up_to_date(text: str) -> str:
    """A page with its tables made anew."""

    def made_anew(found: re.Match[str]) -> str:
        body = getattr(doc_tables, found["name"])(*found["arguments"].split())
        return f"{found['begin']}\n{body}\n\n{found['end']}"

    return _TABLE.sub(made_anew, text)


def tables_of(page: Path) -> set[str]:
    """The tables of a page: function and arguments."""
    found = _TABLE.finditer(page.read_text(encoding="utf-8"))
    return {f"{each['name']}{each['arguments']}" for each in found}


def with_headers(text: str) -> str:
    """A page whose whole configurations begin with the line that leads editors to the schema."""

    def led(found: re.Match[str]) -> str:
        code = textwrap.dedent(found["code"])
        if not is_whole(code) or code.startswith(HEADER_LINE):
            return found[0]
        return found[0].replace(found["code"], f"{found['indent']}{HEADER_LINE}\n{found['code']}", 1)

    return _YAML.sub(led, text)


def schema_text() -> str:
    """The published schema, as `cpex schema` prints it."""
    return json.dumps(config_schema(), ensure_ascii=False, indent=2) + "\n"


def main() -> None:
    """Rewrite every page that is out of date."""
    SCHEMA.write_text(schema_text(), encoding="utf-8")
    for page in all_pages():
        before = page.read_text(encoding="utf-8")
        if (after := with_headers(before)) != before:
            page.write_text(after, encoding="utf-8")
            print(f"wrote {page}", file=sys.stderr)
    for page in pages():
        before = page.read_text(encoding="utf-8")
        after = up_to_date(before)
        if after != before:
            page.write_text(after, encoding="utf-8")
            print(f"wrote {page}", file=sys.stderr)


if __name__ == "__main__":
    main()
